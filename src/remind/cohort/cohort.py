"""A cohort read from its folder and found sound."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from remind.cohort.check import problems
from remind.cohort.combination import GroupTable, distinct
from remind.cohort.spec import CohortSpec, SplitColumn, SplitShares, as_spec, read_spec
from remind.cohort.splits import SPLITS, draw
from remind.cohort.table import Frame, as_polars, availability, labels, read_samples
from remind.errors import RemindError, unknown
from remind.modalities import Cells


@dataclass(frozen=True)
class Cohort:
    """A table of samples and the spec of its modalities. Rows are in order of their ids, whatever the file's order."""

    spec: CohortSpec
    samples: pl.DataFrame
    folder: Path = Path()
    digests: Mapping[str, list[str | None]] | None = None  # SHA-256 of each file by modality, once all were opened
    drawn: np.ndarray | None = None  # the split by the table alone: what opening files shows moves nobody

    @property
    def root(self) -> Path:
        """Where the paths in its cells start."""
        return self.folder / (self.spec.root or "")

    def cells(self, name: str, rows: np.ndarray) -> Cells:
        """The cells of one modality of some samples."""
        modality = self.spec.modalities[name]
        frame = self.samples[modality.cells()][rows]
        return Cells(name, modality, frame, [self.ids[row] for row in rows], self.root)

    def content(self, name: str) -> list[str | None]:
        """What stands in one modality of each sample, as SHA-256; None where it is missing."""
        if self.digests and name in self.digests:
            return self.digests[name]
        lines = self.samples[self.spec.modalities[name].cells()].rows()
        there = self.available[:, self.modalities.index(name)]
        return [
            hashlib.sha256(json.dumps(line, default=str).encode()).hexdigest() if one else None
            for line, one in zip(lines, there, strict=True)
        ]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names, in the spec's order."""
        return tuple(self.spec.modalities)

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of their indices."""
        return self.spec.label.classes

    def __len__(self) -> int:
        return self.samples.height

    @cached_property
    def ids(self) -> list[str]:
        """Sample ids, as text."""
        return self.samples[self.spec.id].cast(pl.String).to_list()

    @cached_property
    def subjects(self) -> np.ndarray:
        """The patient each sample belongs to, as text ``[n]``."""
        return self.samples[self.spec.subject_column].cast(pl.String).to_numpy().astype(str)

    @cached_property
    def available(self) -> np.ndarray:
        """Which modalities each sample has, ``bool [n, m]``."""
        return availability(self.spec, self.samples)

    @cached_property
    def target(self) -> np.ndarray:
        """Class index of each sample, ``int64 [n]``; -1 where a sample to be predicted has no label."""
        return labels(self.spec, self.samples).fill_null(-1).to_numpy()

    @cached_property
    def split(self) -> np.ndarray:
        """The split of each sample, as an index into ``SPLITS``, ``int64 [n]``."""
        if self.drawn is not None:
            return self.drawn
        if isinstance(self.spec.split, SplitColumn):
            place = {name: index for index, name in enumerate(SPLITS)}
            return self.samples[self.spec.split.column].replace_strict(place, return_dtype=pl.Int64).to_numpy()
        _, combination, _ = distinct(self.available)
        return draw(self.subjects, self.target, combination, self.spec.split)

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of one split, ascending.

        Raises:
            RemindError: if no sample is in it.
        """
        found = np.flatnonzero(self.split == SPLITS.index(split))
        if not len(found):
            raise RemindError(
                f"{self.spec.name}: the {split} split is empty; give it a larger share under 'split' in cohort.yaml, "
                "or more subjects."
            )
        return found

    @cached_property
    def groups(self) -> GroupTable:
        """The combinations of the training split."""
        return GroupTable.fit(self.available[self.rows("train")], self.modalities, self.spec.tail_below)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the spec, of every value it names, and of opened files; the same in whatever row order."""
        digest = hashlib.sha256(self.spec.model_dump_json(exclude={"root"}).encode())
        for column in self.spec.columns():
            values = self.samples[column]
            if values.dtype.is_float():
                digest.update(values.cast(pl.Float64).fill_null(math.nan).to_numpy().tobytes())
            else:
                digest.update(json.dumps(values.cast(pl.String).to_list()).encode())
        digest.update(json.dumps(self.digests).encode() if self.digests else b"")
        return digest.hexdigest()


def load(
    source: str | Path | Frame, spec: Mapping[str, Any] | str | Path | None = None, *, root: str | Path | None = None
) -> Cohort:
    """Read a cohort and check it, all but its files, which are opened when they are needed.

    Args:
        source: a folder (``cohort.yaml`` and ``samples.parquet`` or ``samples.csv``), or a polars or pandas table.
        spec: of a table: what ``cohort.yaml`` would say, or the path of one.
        root: of a table: where the paths in it start; by default the spec's ``root``, or here.

    Raises:
        RemindError: if anything in it is wrong; names the file, the rows and the mend. ``remind cohort check`` lists
            every problem at once.
    """
    if not isinstance(source, str | Path):
        if spec is None:
            raise RemindError(
                "a table needs its spec: remind.load(table, {'name': ..., 'id': ..., 'label': ..., ...})."
            )
        return _sound(_rooted(as_spec(spec), root), as_polars(source), "the table", Path())
    if spec is not None:
        raise RemindError(f"{source}: a folder brings its spec in cohort.yaml; give no other.")
    folder = Path(source)
    found = read_spec(folder / "cohort.yaml")
    samples, place = read_samples(folder, found)
    return _sound(found, samples, str(place), folder, f": run 'remind cohort check {folder}'")


def _rooted(spec: CohortSpec, root: str | Path | None) -> CohortSpec:
    return spec if root is None else spec.model_copy(update={"root": str(root)})


def unlabelled(spec: CohortSpec, samples: pl.DataFrame, root: str | Path | None, place: str = "the table") -> Cohort:
    """Samples to be predicted, in their order: their row numbers as ids; no label, subject or split is needed.

    Raises:
        RemindError: if a column of a modality is not there or of no use, or a sample has no modality.
    """
    inputs = {column for modality in spec.modalities.values() for column in modality.cells()}
    if absent := [column for column in spec.columns() if column in inputs - set(samples.columns)]:
        known = unknown("column", absent[0], samples.columns)
        raise RemindError(f"{place}: {spec.columns()[absent[0]]} names a column that is not there: {known}")
    name = "row" + "_" * max((len(column) for column in inputs), default=0)  # a name that no input has
    plain = _rooted(spec, root).model_copy(update={"id": name, "subject": None, "split": SplitShares()})
    rows = pl.Series(name, [f"{row:0{len(str(len(samples)))}d}" for row in range(1, len(samples) + 1)], pl.String)
    given = [samples[column] for column in samples.columns if column in inputs]
    table = rows.to_frame().with_columns(*given, pl.lit(None, pl.String).alias(spec.label.column))
    return _sound(plain, table, place, Path(), labelled=False)


def _sound(
    spec: CohortSpec, samples: pl.DataFrame, place: str, folder: Path, advice: str = "", *, labelled: bool = True
) -> Cohort:
    if found := problems(spec, samples, place, labelled=labelled):
        raise RemindError(found[0] + (f" ({len(found) - 1} more{advice}.)" if len(found) > 1 else ""))
    by_id = samples[spec.id].cast(pl.String).arg_sort()
    return Cohort(spec, samples[list(spec.columns())][by_id], folder)
