"""A cohort read from its folder and found sound."""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from remind.cohort.check import problems
from remind.cohort.combination import GroupTable, distinct
from remind.cohort.spec import CohortSpec, SplitColumn, read_spec
from remind.cohort.splits import SPLITS, draw
from remind.cohort.table import availability, labels, read_samples
from remind.errors import RemindError


@dataclass(frozen=True)
class Cohort:
    """A table of samples and the spec of its modalities. Rows are in order of their ids, whatever the file's order."""

    spec: CohortSpec
    samples: pl.DataFrame
    folder: Path | None = None

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
        """Class index of each sample, ``int64 [n]``."""
        return labels(self.spec, self.samples).to_numpy()

    @cached_property
    def split(self) -> np.ndarray:
        """The split of each sample, as an index into ``SPLITS``, ``int64 [n]``."""
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
        """SHA-256 of the spec and of every value it names: the same for the same cohort, in whatever row order."""
        digest = hashlib.sha256(self.spec.model_dump_json().encode())
        for column in self.spec.columns():
            values = self.samples[column]
            if values.dtype.is_float():
                digest.update(values.cast(pl.Float64).fill_null(math.nan).to_numpy().tobytes())
            else:
                digest.update(json.dumps(values.cast(pl.String).to_list()).encode())
        return digest.hexdigest()


def load(folder: str | Path) -> Cohort:
    """Read a cohort folder (``cohort.yaml`` and ``samples.parquet`` or ``samples.csv``) and check it.

    Raises:
        RemindError: if anything in it is wrong; names the file, the rows and the mend. ``remind cohort check`` lists
            every problem at once.
    """
    folder = Path(folder)
    spec = read_spec(folder / "cohort.yaml")
    samples, place = read_samples(folder, spec)
    if found := problems(spec, samples, place):
        more = f" ({len(found) - 1} more: run 'remind cohort check {folder}'.)" if len(found) > 1 else ""
        raise RemindError(found[0] + more)
    by_id = samples[spec.id].cast(pl.String).arg_sort()
    return Cohort(spec, samples[list(spec.columns())][by_id], folder)
