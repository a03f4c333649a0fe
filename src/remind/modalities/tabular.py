"""Tables to tensors: what is learned from the training rows, and from no other."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remind.errors import RemindError
from remind.modalities import Cells, Transform
from remind.modalities.spec import TabularModality

UNKNOWN = 0  # the code of an empty cell and of a category the training rows did not have


class TabularShape(NamedTuple):
    """What an encoder of a table must know: how many numbers, and the size of each category's vocabulary."""

    numbers: int
    categories: tuple[int, ...]


class TabularInput(NamedTuple):
    """Rows of a table: standardised numbers (0 where the cell is empty), which cells were filled, category codes."""

    numbers: Float[Tensor, "n f"]
    observed: Bool[Tensor, "n f"]
    codes: Int[Tensor, "n k"]


@dataclass(frozen=True)
class TableReader:
    """A table transformed once, and held in memory."""

    table: TabularInput

    def __call__(self, places: Sequence[int]) -> TabularInput:
        """These rows of it."""
        chosen = torch.as_tensor(places, dtype=torch.int64)
        return TabularInput(*(part[chosen] for part in self.table))


@dataclass(frozen=True)
class TabularTransform(Transform):
    """Mean and deviation of each number, vocabulary of each category."""

    numbers: dict[str, tuple[float, float]]
    categories: dict[str, list[str]]

    @classmethod
    def fit(cls, cells: Cells, settings: Mapping[str, Any]) -> "TabularTransform":
        """Learn from training rows. A constant or empty column gets deviation 1."""
        modality, samples = cells.modality, cells.frame
        assert isinstance(modality, TabularModality)
        numbers, categories = {}, {}
        for column in modality.columns:
            values = samples[column]
            if column in modality.categorical or not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
                categories[column] = values.cast(pl.String).drop_nulls().unique().sort().to_list()
            else:
                known = np.sort(values.drop_nulls().cast(pl.Float64).to_numpy())  # sorted: any row order, same sum
                varies = len(known) > 0 and known[0] < known[-1]
                numbers[column] = (float(known.mean()) if len(known) else 0.0, float(known.std()) if varies else 1.0)
        return cls(numbers, categories)

    @property
    def shape(self) -> TabularShape:
        """What the encoder is built from."""
        return TabularShape(len(self.numbers), tuple(len(known) + 1 for known in self.categories.values()))

    def apply(self, samples: pl.DataFrame) -> TabularInput:
        """The tensors of these rows."""
        height = samples.height
        numbers = np.zeros((height, len(self.numbers)), dtype=np.float32)
        observed = np.zeros((height, len(self.numbers)), dtype=bool)
        for place, (column, (mean, spread)) in enumerate(self.numbers.items()):
            plain = samples[column].dtype.is_numeric() or samples[column].dtype == pl.Boolean
            if not plain and samples[column].null_count() < height:
                raise RemindError(f"column {column!r} holds {samples[column].dtype}; the model was trained on numbers.")
            values = samples[column].cast(pl.Float64, strict=plain)
            observed[:, place] = values.is_not_null().to_numpy()
            with np.errstate(over="ignore"):
                numbers[:, place] = ((values - mean) / spread).fill_null(0.0).to_numpy()
        codes = np.full((height, len(self.categories)), UNKNOWN, dtype=np.int64)
        for place, (column, known) in enumerate(self.categories.items()):
            code = {value: index for index, value in enumerate(known, start=UNKNOWN + 1)}
            code = {as_whole(value): index for value, index in code.items()} | code
            text = samples[column].cast(pl.String)
            if samples[column].dtype.is_numeric():  # 1 and 1.0 are one category, whichever way a table holds it
                text = text.map_elements(as_whole, return_dtype=pl.String)
            codes[:, place] = text.replace_strict(code, default=UNKNOWN, return_dtype=pl.Int64).fill_null(UNKNOWN)
        return TabularInput(torch.from_numpy(numbers), torch.from_numpy(observed), torch.from_numpy(codes))

    def reader(self, cells: Cells) -> TableReader:
        """Transform all the rows now; they are small."""
        wanted = [*self.numbers, *self.categories]
        if set(wanted) != set(cells.modality.cells()):
            raise RemindError(
                f"modality {cells.name!r} has other columns than the model was trained on ({', '.join(wanted)}); name "
                "those in cohort.yaml."
            )
        table = self.apply(cells.frame)
        if broken := (~table.numbers.isfinite()).any(dim=1).nonzero().ravel().tolist():
            named = ", ".join(cells.ids[place] for place in broken[:5])
            raise RemindError(
                f"modality {cells.name!r} of {len(broken)} samples (ids {named}) is too far from the training rows for "
                "a number; mend the cells."
            )
        return TableReader(table)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint; floats keep every bit."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "TabularTransform":
        """The transform ``to_json`` wrote."""
        return cls({column: tuple(pair) for column, pair in data["numbers"].items()}, data["categories"])


def as_whole(number: str) -> str:
    """A whole number without its decimals: ``1`` for ``1.0``; anything else as it is."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", number)
