"""Every file of a cohort opened once: which are empty, which cannot be read, and a checksum of each.

A cell is in one of four states. *absent*: null. *present*: read. *empty*: it leads to something that holds nothing
(blank text, a sequence of no events, an embedding of no tokens); it counts as missing. *unreadable*: its file is not
there or cannot be decoded; it is never replaced, and counts as missing only if the user allows it.
"""

import hashlib
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
from remind.errors import RemindError
from remind.modalities import TRANSFORMS
from remind.modalities.files import within
from remind.modalities.spec import FileModality
from remind.reading import Unreadable

CACHE = "survey.parquet"
KEY = ["modality", "cell", "size", "changed"]
FOUND = ["state", "reason", "digest"]
TEXT = dict.fromkeys(("modality", "cell", *FOUND), pl.String)

Progress = Callable[[int, int], None]
"""Told how many of how many files have been opened."""


class Finding(NamedTuple):
    """What opening one file has shown."""

    state: str  # present, empty, unreadable
    reason: str | None
    digest: str | None  # SHA-256


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
            return Finding("unreadable", str(reason), None)
        return Finding("present" if len(held) else "empty", None, checksum(path))


def survey(
    cohort: Cohort, *, cache: Path | None = None, workers: int = 0, progress: Progress = lambda done, total: None
) -> pl.DataFrame:
    """The state of every cell that is a path: row, id, modality, cell, state, reason, digest.

    ``cache`` is a folder; files whose size and time of change stand there are not opened again.
    """
    cells = _cells(cohort)
    known = _read_cache(cache) if cache else None
    table = cells if known is None else cells.join(known, on=KEY, how="left", maintain_order="left")
    if known is None:
        table = table.with_columns(pl.lit(None, pl.String).alias(name) for name in FOUND)
    fresh = table.filter(pl.col("state").is_null()).unique(["modality", "cell"], maintain_order=True)
    if fresh.height:
        found = _open(cohort, fresh, workers, progress)
        rest = table.drop(FOUND).join(found, on=["modality", "cell"], how="left", maintain_order="left")
        table = table.with_columns(pl.coalesce(name, rest[name]).alias(name) for name in FOUND)
        if cache:
            _write_cache(cache, pl.concat([*([] if known is None else [known]), table.select(*KEY, *FOUND)]))
    return table.drop("size", "changed")


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
    if broken.height:
        if quarantine:
            write_quarantine(quarantine, broken)
        _judge(cohort, table, broken, unreadable, budget, quarantine)
    return _without(cohort, table)


def write_quarantine(path: Path, broken: pl.DataFrame) -> None:
    """List unreadable files: id, modality, file, reason."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.tmp")
    broken.select("id", "modality", file="cell", reason="reason").write_csv(staging)
    staging.replace(path)


def checksum(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder, of its files' names and bytes."""
    if path.is_dir():
        parts = "".join(f"{part.name} {checksum(part)}\n" for part in sorted(path.iterdir()) if part.is_file())
        return hashlib.sha256(parts.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cells(cohort: Cohort) -> pl.DataFrame:
    """One line a cell that is a path, with the size and the time of change of what it leads to."""
    tables = []
    for name, modality in cohort.spec.modalities.items():
        if isinstance(modality, FileModality):
            cells = pl.DataFrame({"row": range(len(cohort)), "id": cohort.ids, "cell": cohort.samples[modality.column]})
            given = cells.cast({"cell": pl.String}).drop_nulls("cell").with_columns(modality=pl.lit(name))
            stamps = [_stamp(cohort.root, cell) for cell in given["cell"]]
            size, changed = zip(*stamps, strict=True) if stamps else ((), ())
            tables.append(
                given.with_columns(
                    pl.Series("size", size, dtype=pl.Int64), pl.Series("changed", changed, dtype=pl.Int64)
                )
            )
    return pl.concat(tables)


def _stamp(root: Path, cell: str) -> tuple[int, int]:
    """Bytes, and the time of the last change in nanoseconds; -1 where there is nothing to be read."""
    try:
        path = within(root, cell)
        parts = [path, *sorted(path.iterdir())] if path.is_dir() else [path]
        stats = [part.stat() for part in parts]
    except (Unreadable, OSError, ValueError):
        return -1, -1
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def _open(cohort: Cohort, fresh: pl.DataFrame, workers: int, progress: Progress) -> pl.DataFrame:
    """Open the files of these cells, in worker processes if there are to be any."""
    openers = {name: TRANSFORMS.get(m.kind).opener(m) for name, m in cohort.spec.modalities.items()}
    files = Files([(cohort.root, cell) for cell in fresh["cell"]], [openers[name] for name in fresh["modality"]])
    found = []
    for finding in DataLoader(
        files, batch_size=None, generator=torch.Generator(), **worker_settings(workers, len(files))
    ):
        found.append(finding)
        progress(len(found), len(files))
    state, reason, digest = zip(*found, strict=True)
    parts = {"state": state, "reason": reason, "digest": digest}
    return fresh.select("modality", "cell").with_columns(pl.Series(k, v, dtype=pl.String) for k, v in parts.items())


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
                "mend them, or count them as missing with --unreadable missing"
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
    admitted = replace(cohort, samples=samples, digests=digests)
    if len(nothing := np.flatnonzero(~admitted.available.any(axis=1))):
        named = ", ".join(cohort.ids[row] for row in nothing[:5])
        raise RemindError(
            f"{cohort.spec.name}: {len(nothing)} samples (ids {named}) have no modality that can be read; drop them."
        )
    return admitted


def _read_cache(folder: Path) -> pl.DataFrame | None:
    with suppress(OSError, pl.exceptions.PolarsError):
        known = pl.read_parquet((folder / CACHE).read_bytes())
        if set(known.columns) == {*KEY, *FOUND}:
            return known.select(*KEY, *FOUND).unique(KEY, keep="last", maintain_order=True)
    return None


def _write_cache(folder: Path, table: pl.DataFrame) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / f".{CACHE}.tmp"
    table.unique(KEY, keep="last", maintain_order=True).write_parquet(staging)
    staging.replace(folder / CACHE)
