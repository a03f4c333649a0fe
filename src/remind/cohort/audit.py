"""``remind cohort check``: the table and every file at once; what is wrong, and what is only strange."""

from collections.abc import Iterator
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import NamedTuple

import polars as pl

from remind.cohort.check import is_flat, problems
from remind.cohort.cohort import Cohort
from remind.cohort.spec import CohortSpec, read_spec
from remind.cohort.splits import SPLITS
from remind.cohort.survey import Progress, odd_widths, survey
from remind.cohort.table import is_given, read_samples
from remind.errors import RemindError
from remind.modalities.files import within
from remind.modalities.spec import FileModality
from remind.reading import Unreadable

OWN = ("samples.parquet", "samples.csv", "quarantine.csv")  # a cohort's own files


class Audit(NamedTuple):
    """What a check has found."""

    problems: list[str]  # must be mended
    warnings: list[str]  # should be looked at
    broken: pl.DataFrame  # unreadable files: id, modality, cell, reason


def audit(
    folder: Path, *, files: bool = True, workers: int = 0, progress: Progress = lambda done, total: None
) -> Audit:
    """Check a cohort folder; with ``files``, open every file its table names.

    Raises:
        RemindError: if there is no spec or no table to be checked.
    """
    spec = read_spec(folder / "cohort.yaml")
    samples, place = read_samples(folder, spec)
    found, warned = problems(spec, samples, str(place)), []
    cells = {column for modality in spec.modalities.values() for column in modality.cells()}
    usable = cells <= set(samples.columns) and not samples.is_empty()
    if not found:
        found += _empty_splits(Cohort(spec, samples, folder))
    broken = pl.DataFrame()
    if not usable:
        return Audit(found, warned, broken)
    cohort = _named(spec, samples, folder)
    warned += [*_alike_subjects(cohort), *_blank_texts(cohort)]
    if files and any(isinstance(m, FileModality) for m in spec.modalities.values()):
        opened = survey(cohort, workers=workers, progress=progress)
        found += [*_unreadable(opened), *odd_widths(opened)]
        warned += [*_empty(opened), *_twice(cohort, opened), *_orphans(cohort, opened)]
        broken = opened.filter(pl.col("state") == "unreadable")
    return Audit(found, warned, broken)


def _named(spec: CohortSpec, samples: pl.DataFrame, folder: Path) -> Cohort:
    """The samples, each with a name: where an id or a subject is of no use, the number of its row."""
    number = pl.concat_str(pl.lit("row "), pl.int_range(1, pl.len() + 1))
    for column in (spec.id, spec.subject_column):
        useful = column in samples.columns and is_flat(samples[column])
        given = pl.col(column).cast(pl.String) if useful else pl.lit(None, pl.String)
        samples = samples.with_columns(pl.coalesce(given, number).alias(column))
    return Cohort(spec, samples, folder)


def _blank_texts(cohort: Cohort) -> Iterator[str]:
    for name, modality in cohort.spec.modalities.items():
        if modality.kind == "text":
            cells = cohort.samples[modality.column]
            blank = cells.is_not_null() & ~is_given(modality, cells)
            if blank.any():
                lines = pl.DataFrame({"id": cohort.ids}).filter(blank)
                yield f"modality {name!r}: {_ids(lines)}: the text is blank; the modality counts as missing."


def _empty_splits(cohort: Cohort) -> Iterator[str]:
    for split in SPLITS:
        try:
            cohort.rows(split)
        except RemindError as error:
            yield str(error)


def _alike_subjects(cohort: Cohort) -> Iterator[str]:
    """Subjects that a slip of the hand may have made two of one."""
    column = cohort.spec.subject_column
    names = cohort.samples[column].unique()
    plain = names.str.to_lowercase().str.replace_all(r"[\s_-]", "").str.strip_chars_start("0")
    if count := int(plain.is_duplicated().sum()):
        yield (
            f"{count} values of {column!r} differ from another only in case, spaces, dashes or leading zeros; if they "
            "are one patient, write them alike, or the splits will cut through them."
        )


def _unreadable(opened: pl.DataFrame) -> Iterator[str]:
    broken = opened.filter(pl.col("state") == "unreadable")
    for (modality, reason), lines in broken.group_by("modality", "reason", maintain_order=True):
        yield f"modality {modality!r}: {_ids(lines)}: the file {reason}."


def _empty(opened: pl.DataFrame) -> Iterator[str]:
    for (modality,), lines in opened.filter(pl.col("state") == "empty").group_by("modality", maintain_order=True):
        yield f"modality {modality!r}: {_ids(lines)}: the file holds nothing; the modality counts as missing."


def _twice(cohort: Cohort, opened: pl.DataFrame) -> Iterator[str]:
    """The same content under two subjects: a mix-up, or a leak between splits."""
    held = opened.filter(pl.col("digest").is_not_null())
    held = held.with_columns(subject=pl.Series(cohort.subjects[held["row"].to_numpy()]))
    for (modality,), lines in held.group_by("modality", maintain_order=True):
        shared = lines.filter(pl.col("subject").n_unique().over("digest") > 1)
        if shared.height:
            yield (
                f"modality {modality!r}: {_ids(shared)}: the same content stands under several subjects; one of them "
                "may have another's file."
            )


def _orphans(cohort: Cohort, opened: pl.DataFrame) -> Iterator[str]:
    """Files beside those that are named, of the same suffix, that no row names."""
    named = {cohort.root / cell for cell in opened["cell"]} | {cohort.folder / name for name in OWN}
    for (modality,), lines in opened.group_by("modality", maintain_order=True):
        paths = []
        for cell in lines["cell"]:
            with suppress(Unreadable):
                paths.append(within(cohort.root, cell))
        places = {(path.parent, path.suffix) for path in paths if path.suffix}
        beside = {file for parent, suffix in places if parent.is_dir() for file in parent.glob(f"*{escape(suffix)}")}
        if orphans := len(beside - named):
            yield f"modality {modality!r}: {orphans} files that stand beside its own are named by no row."


def _ids(lines: pl.DataFrame, *, shown: int = 5) -> str:
    ids = lines["id"].unique(maintain_order=True)
    rest = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return f"ids {', '.join(ids[:shown])}{rest}"
