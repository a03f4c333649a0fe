"""Every file of a cohort opened once: which are empty, which cannot be read, and a checksum of each.

A cell is in one of four states. *absent*: null. *present*: read. *empty*: it leads to something that holds nothing
(blank text, a sequence of no events, an embedding of no tokens); it counts as missing. *unreadable*: its file is not
there or cannot be decoded; it is never replaced, and counts as missing only if the user allows it.
"""

import hashlib
import io
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from torch.utils.data import DataLoader, Dataset

from remind.cohort.cohort import Cohort
from remind.cohort.workers import worker_settings
from remind.documents import digest
from remind.errors import RemindError
from remind.modalities import TRANSFORMS
from remind.modalities.files import within
from remind.modalities.spec import FileModality
from remind.reading import Unreadable

CACHE = "survey.cache"
KEY = {"path": pl.String, "reading": pl.String, "size": pl.Int64, "changed": pl.Int64}  # what a finding holds for
FOUND = {"state": pl.String, "reason": pl.String, "digest": pl.String, "width": pl.Int64}
COLUMNS = {**KEY, **FOUND}

Progress = Callable[[int, int], None]
"""Told how many of how many files have been opened."""


class Finding(NamedTuple):
    """What opening one file has shown."""

    state: str  # present, empty, unreadable
    reason: str | None
    digest: str | None  # SHA-256
    width: int | None  # of an array of tokens


@dataclass(frozen=True)
class Files(Dataset[Finding]):
    """Files to be opened, each as training would read it."""

    paths: list[tuple[Path, str]]  # root and cell
    openers: list[Callable[[Path], Any]]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Finding:
        root, cell = self.paths[place]
        try:
            path = within(root, cell)
            held = self.openers[place](path)
        except Unreadable as reason:
            return Finding("unreadable", str(reason), None, None)
        width = held.shape[1] if isinstance(held, torch.Tensor) and held.ndim == 2 else None
        return Finding("present" if len(held) else "empty", None, checksum(path), width)


def survey(
    cohort: Cohort, *, cache: Path | None = None, workers: int = 0, progress: Progress = lambda done, total: None
) -> pl.DataFrame:
    """The state of every cell that is a path: row, id, modality, cell, state, reason, digest, width.

    ``cache`` is a folder; files whose size and time of change stand there are not opened again, unless they could not
    be read.
    """
    cells = _cells(cohort)
    known = _read_cache(cache) if cache else pl.DataFrame(schema=COLUMNS)
    table = cells.join(known, on=list(KEY), how="left", maintain_order="left")
    fresh = table.filter(pl.col("state").is_null()).unique(["path", "reading"], maintain_order=True)
    if fresh.height:
        found = fresh.select(list(KEY)).hstack(_open(cohort, fresh, workers, progress))
        known = pl.concat([known, found])
        table = cells.join(known, on=list(KEY), how="left", maintain_order="left")
        if cache:
            _write_cache(cache, known.filter(pl.col("state") != "unreadable"))
    return table.drop(list(KEY))


def admit(
    cohort: Cohort,
    *,
    unreadable: Literal["stop", "missing"] = "stop",
    budget: float = 0.01,
    quarantine: Path | None = None,
    cache: Path | None = None,
    workers: int = 0,
    progress: Progress = lambda done, total: None,
) -> Cohort:
    """The cohort with only those cells left that can be read; ready to be trained on.

    Args:
        unreadable: whether a file that cannot be read stops, or counts as missing.
        budget: the share of a modality's files that may be unreadable, at most.
        quarantine: where to list them, with their reasons, if there are any.

    Raises:
        RemindError: if files are unreadable and may not be, or a sample has nothing left.
    """
    if cohort.digests is not None or not any(isinstance(m, FileModality) for m in cohort.spec.modalities.values()):
        return cohort
    table = survey(cohort, cache=cache, workers=workers, progress=progress)
    broken = table.filter(pl.col("state") == "unreadable")
    if quarantine:
        write_quarantine(quarantine, broken)
    if broken.height:
        _judge(cohort, table, broken, unreadable, budget, quarantine)
    if wrong := odd_widths(table):
        raise RemindError(f"{cohort.spec.name}: {wrong[0]}")
    return _without(cohort, table)


def odd_widths(table: pl.DataFrame) -> list[str]:
    """A sentence for each modality whose arrays do not all have the same width."""
    found = []
    held = table.filter((pl.col("state") == "present") & pl.col("width").is_not_null())
    for (modality,), lines in held.group_by("modality", maintain_order=True):
        widths = lines["width"].value_counts(sort=True)
        if widths.height > 1:
            odd = lines.filter(pl.col("width") != widths["width"][0])
            named = ", ".join(odd["id"].unique(maintain_order=True)[:5])
            found.append(
                f"modality {modality!r}: the tokens of ids {named} have another width than most, "
                f"which have {widths['width'][0]}; write them alike."
            )
    return found


def write_quarantine(path: Path, broken: pl.DataFrame) -> None:
    """List unreadable files: id, modality, file, reason. If there are none, an old list goes."""
    if broken.is_empty():
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.tmp")
    broken.select("id", "modality", file="cell", reason="reason").write_csv(staging)
    staging.replace(path)


def checksum(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder, of its files' names and bytes."""
    if path.is_dir():
        parts = "".join(f"{part.name} {checksum(part)}\n" for part in sorted(path.iterdir()) if part.is_file())
        return hashlib.sha256(parts.encode()).hexdigest()
    return digest(path)


def _cells(cohort: Cohort) -> pl.DataFrame:
    """One line a cell that is a path, with what it leads to, and with the size and the time of change of that."""
    tables = []
    for name, modality in cohort.spec.modalities.items():
        if isinstance(modality, FileModality) and cohort.samples[modality.column].dtype == pl.String:
            cells = pl.DataFrame({"row": range(len(cohort)), "id": cohort.ids, "cell": cohort.samples[modality.column]})
            given = cells.drop_nulls("cell")
            lines = [_stamp(cohort.root, cell) for cell in given["cell"]]
            stamps = pl.DataFrame(lines, schema={key: KEY[key] for key in ("path", "size", "changed")}, orient="row")
            reading = modality.model_dump_json(exclude={"column"})
            tables.append(given.with_columns(modality=pl.lit(name), reading=pl.lit(reading)).hstack(stamps))
    schema = {"row": pl.Int64, **dict.fromkeys(("id", "cell", "modality"), pl.String), **KEY}
    return pl.concat([table.select(list(schema)).cast(schema) for table in tables] or [pl.DataFrame(schema=schema)])


def _stamp(root: Path, cell: str) -> tuple[str, int, int]:
    """The path, its bytes, and the time of its last change in nanoseconds; -1 where there is nothing to be read."""
    try:
        path = within(root, cell)
        parts = [path, *sorted(path.iterdir())] if path.is_dir() else [path]
        stats = [part.stat() for part in parts]
    except (Unreadable, OSError, ValueError):
        return str(root / cell), -1, -1
    return str(path.resolve()), sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def _open(cohort: Cohort, fresh: pl.DataFrame, workers: int, progress: Progress) -> pl.DataFrame:
    """Open the files of these cells, in worker processes if there are to be any: state, reason, digest."""
    openers = {name: TRANSFORMS.get(m.kind).opener(m) for name, m in cohort.spec.modalities.items()}
    files = Files([(cohort.root, cell) for cell in fresh["cell"]], [openers[name] for name in fresh["modality"]])
    found = []
    own = torch.Generator()  # else reading would advance the one that dropout uses
    for finding in DataLoader(files, batch_size=None, generator=own, **worker_settings(workers, len(files))):
        found.append(finding)
        progress(len(found), len(files))
    return pl.DataFrame(found, schema=FOUND, orient="row")


def _judge(
    cohort: Cohort, table: pl.DataFrame, broken: pl.DataFrame, unreadable: str, budget: float, quarantine: Path | None
) -> None:
    listed = f"; all are listed in {quarantine}" if quarantine else ""
    named = ", ".join(broken["id"].unique(maintain_order=True)[:5])
    for name in broken["modality"].unique(maintain_order=True):
        of = table.filter(pl.col("modality") == name).height
        bad = broken.filter(pl.col("modality") == name).height
        if unreadable == "stop" or bad / of > budget:
            mend = (
                "mend them, or count them as missing with --unreadable missing (data.unreadable)"
                if unreadable == "stop"
                else f"that is above the budget of {budget:.1%} (data.budget), so nothing is trained; mend them"
            )
            raise RemindError(
                f"{cohort.spec.name}: {bad} of {of} files of modality {name!r} cannot be read (ids {named}){listed}. "
                f"{mend[0].upper()}{mend[1:]}."
            )


def _without(cohort: Cohort, table: pl.DataFrame) -> Cohort:
    """The cohort with nulls in place of cells that are empty or unreadable, and the checksums of the others."""
    samples, digests = cohort.samples, {}
    for name, modality in cohort.spec.modalities.items():
        if isinstance(modality, FileModality):
            mine = table.filter((pl.col("modality") == name) & (pl.col("state") == "present"))
            held = pl.DataFrame({"row": range(len(cohort))}, {"row": mine["row"].dtype}).join(
                mine.select("row", "digest"), on="row", how="left", maintain_order="left"
            )["digest"]
            cell = pl.when(held.is_not_null()).then(pl.col(modality.column))
            samples = samples.with_columns(cell.alias(modality.column))
            digests[name] = held.to_list()
    admitted = replace(cohort, samples=samples, digests=digests, drawn=cohort.split)
    if len(nothing := np.flatnonzero(~admitted.available.any(axis=1))):
        named = ", ".join(cohort.ids[row] for row in nothing[:5])
        raise RemindError(
            f"{cohort.spec.name}: {len(nothing)} samples (ids {named}) have no modality that can be read; drop them."
        )
    return admitted


def _read_cache(folder: Path) -> pl.DataFrame:
    """What is known of files; nothing, if the cache is not there or not as it was written."""
    with suppress(OSError, pl.exceptions.PolarsError):
        content = (folder / CACHE).read_bytes()
        checksum, table = content[:64], content[64:]
        if hashlib.sha256(table).hexdigest().encode() == checksum:
            known = pl.read_parquet(table).select(**{key: pl.col(key).cast(dtype) for key, dtype in COLUMNS.items()})
            return known.filter(pl.col("state").is_in(["present", "empty"]))
    return pl.DataFrame(schema=COLUMNS)


def _write_cache(folder: Path, known: pl.DataFrame) -> None:
    """A checksum, then a Parquet table; several runs may write at once, and the last one stays."""
    table = io.BytesIO()
    known.unique(list(KEY), keep="last", maintain_order=True).write_parquet(table)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{CACHE}.", delete=False) as staging:
        staging.write(hashlib.sha256(table.getvalue()).hexdigest().encode())
        staging.write(table.getvalue())
    Path(staging.name).replace(folder / CACHE)
