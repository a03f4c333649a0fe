"""Tables to tensors: what is learned from the training rows, and from no other."""

from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
import torch

from remind.cohort.batch import TabularInput, TabularShape
from remind.cohort.spec import TabularModality
from remind.errors import RemindError

UNKNOWN = 0  # the code of an empty cell and of a category the training rows did not have


@dataclass(frozen=True)
class TabularTransform:
    """Mean and deviation of each number, vocabulary of each category."""

    numbers: dict[str, tuple[float, float]]
    categories: dict[str, list[str]]

    @classmethod
    def fit(cls, samples: pl.DataFrame, modality: TabularModality) -> "TabularTransform":
        """Learn from training rows. A constant or empty column gets deviation 1."""
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
            if not (samples[column].dtype.is_numeric() or samples[column].dtype in (pl.Boolean, pl.Null)):
                raise RemindError(f"column {column!r} holds {samples[column].dtype}; the model was trained on numbers.")
            values = samples[column].cast(pl.Float64)
            observed[:, place] = values.is_not_null().to_numpy()
            with np.errstate(over="ignore"):
                numbers[:, place] = ((values - mean) / spread).fill_null(0.0).to_numpy()
        codes = np.full((height, len(self.categories)), UNKNOWN, dtype=np.int64)
        for place, (column, known) in enumerate(self.categories.items()):
            code = {value: index for index, value in enumerate(known, start=UNKNOWN + 1)}
            text = samples[column].cast(pl.String)
            codes[:, place] = text.replace_strict(code, default=UNKNOWN, return_dtype=pl.Int64).fill_null(UNKNOWN)
        return TabularInput(torch.from_numpy(numbers), torch.from_numpy(observed), torch.from_numpy(codes))

    def to_json(self) -> dict:
        """Plain data for a checkpoint; floats keep every bit."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> "TabularTransform":
        """The transform ``to_json`` wrote."""
        return cls({column: tuple(pair) for column, pair in data["numbers"].items()}, data["categories"])
