"""``remind cohort check``: the table and every file at once; what is wrong, and what is only strange."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from remind.cohort.check import problems
from remind.cohort.cohort import Cohort
from remind.cohort.spec import CohortSpec, read_spec
from remind.cohort.splits import SPLITS
from remind.cohort.survey import Progress, survey
from remind.cohort.table import read_samples
from remind.errors import RemindError
from remind.modalities.spec import FileModality


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
    there = {spec.id, spec.subject_column, *(c for m in spec.modalities.values() for c in m.cells())}
    usable = there <= set(samples.columns) and not samples.is_empty()
    if not found:
        found += _empty_splits(Cohort(spec, samples, folder))
    if usable:
        warned += [f"{place}: {sentence}" for sentence in _alike_subjects(spec, samples)]
    broken = pl.DataFrame()
    if files and usable and any(isinstance(m, FileModality) for m in spec.modalities.values()):
        cohort = Cohort(spec, samples, folder)
        opened = survey(cohort, workers=workers, progress=progress)
        found += list(_unreadable(opened))
        warned += [*_empty(opened), *_twice(cohort, opened), *_orphans(cohort, opened)]
        broken = opened.filter(pl.col("state") == "unreadable")
    return Audit(found, warned, broken)


def _empty_splits(cohort: Cohort) -> Iterator[str]:
    for split in SPLITS:
        try:
            cohort.rows(split)
        except RemindError as error:
            yield str(error)


def _alike_subjects(spec: CohortSpec, samples: pl.DataFrame) -> Iterator[str]:
    """Subjects that a slip of the hand may have made two of one."""
    names = samples[spec.subject_column].cast(pl.String).drop_nulls().unique()
    plain = names.str.to_lowercase().str.replace_all(r"[\s_-]", "").str.strip_chars_start("0")
    if count := int(plain.is_duplicated().sum()):
        yield (
            f"{count} values of {spec.subject_column!r} differ from another only in case, spaces, dashes or leading "
            "zeros; if they are one patient, write them alike, or the splits will cut through them."
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
    named = {cohort.root / cell for cell in opened["cell"]}
    for (modality,), lines in opened.group_by("modality", maintain_order=True):
        paths = {cohort.root / cell for cell in lines["cell"]}
        places = {(path.parent, path.suffix) for path in paths if path.suffix}
        beside = {file for parent, suffix in places if parent.is_dir() for file in parent.glob(f"*{suffix}")}
        if orphans := len(beside - named):
            yield f"modality {modality!r}: {orphans} files that stand beside its own are named by no row."


def _ids(lines: pl.DataFrame, *, shown: int = 5) -> str:
    ids = lines["id"].unique(maintain_order=True)
    rest = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return f"ids {', '.join(ids[:shown])}{rest}"
