"""Irregular sequences: events of (time, variable, value), standardised by variable."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from remind.errors import RemindError
from remind.modalities import Cells, Transform
from remind.modalities.files import Decode, FileReader
from remind.modalities.spec import SequenceModality
from remind.reading.events import read_events

UNKNOWN = 0  # the code of a variable that no training sample had


class SequenceShape(NamedTuple):
    """How many variables there are, the unknown one included."""

    variables: int


class SequenceInput(NamedTuple):
    """Events in order of time, padded on the right to the longest of the batch."""

    time: Float[Tensor, "n l"]  # hours, over their deviation in training
    variable: Int[Tensor, "n l"]
    value: Float[Tensor, "n l"]  # standardised by variable; 0 for an unknown one
    length: Int[Tensor, " n"]


@dataclass(frozen=True)
class SequenceTransform(Transform):
    """Mean and deviation of each variable; the last ``limit`` events of a sample are kept."""

    variables: dict[str, tuple[float, float]]
    hours: float  # the deviation of the times
    limit: int
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, cells: Cells, settings: Mapping[str, Any]) -> "SequenceTransform":
        """Learn from the training samples' events. A constant variable gets deviation 1."""
        read, limit = FileReader(cells, read_events, list), settings["limit"]
        files = [read([place])[0] for place in range(cells.frame.height)]
        if not files:
            raise RemindError(f"no training sample has modality {cells.name!r}; leave it out.")
        events = pl.concat(files).sort("variable", "value")  # sorted: any order of samples, same sums
        found = events.group_by("variable", maintain_order=True).agg(
            mean=pl.col("value").mean(), spread=pl.col("value").std(ddof=0)
        )
        variables = {name: (mean, spread if spread > 0 else 1.0) for name, mean, spread in found.iter_rows()}
        spread = events["time"].sort().std(ddof=0)
        hours = float(spread) if isinstance(spread, float) and spread > 0 else 1.0
        cut = sum(file.height > limit for file in files)
        notes = (
            f"{cells.name}: {cut} of {len(files)} training samples have more than {limit} events; the last count.",
        )
        return cls(variables, hours, limit, notes if cut else ())

    @classmethod
    def opener(cls, modality: SequenceModality) -> Decode:
        """Reads all the events."""
        return read_events

    @property
    def shape(self) -> SequenceShape:
        """The number of variables."""
        return SequenceShape(len(self.variables) + 1)

    def reader(self, cells: Cells) -> FileReader:
        """Reads events when they are asked for."""
        return FileReader(cells, read_events, self.stack)

    def stack(self, files: list[pl.DataFrame]) -> SequenceInput:
        """The tensors of some samples' events."""
        code = {name: index for index, name in enumerate(self.variables, start=UNKNOWN + 1)}
        mean = {name: mean for name, (mean, _) in self.variables.items()}
        spread = {name: spread for name, (_, spread) in self.variables.items()}
        name = pl.col("variable")
        columns = []
        for events in files:
            value = (pl.col("value") - name.replace_strict(mean, default=None, return_dtype=pl.Float64)) / (
                name.replace_strict(spread, default=None, return_dtype=pl.Float64)
            )
            kept = events.tail(self.limit).select(
                time=(pl.col("time") / self.hours).cast(pl.Float32),
                variable=name.replace_strict(code, default=UNKNOWN, return_dtype=pl.Int64),
                value=value.fill_null(0.0).cast(pl.Float32),
            )
            columns.append([torch.from_numpy(kept[column].to_numpy(writable=True)) for column in kept.columns])
        if not columns:
            empty = torch.zeros(0, 1)
            return SequenceInput(empty, empty.long(), empty, torch.zeros(0, dtype=torch.int64))
        time, variable, value = (pad_sequence(list(parts), batch_first=True) for parts in zip(*columns, strict=True))
        return SequenceInput(time, variable, value, torch.tensor([len(times) for times, _, _ in columns]))

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint; floats keep every bit."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SequenceTransform":
        """The transform ``to_json`` wrote."""
        variables = {name: tuple(pair) for name, pair in data["variables"].items()}
        return cls(variables, data["hours"], data["limit"], tuple(data["notes"]))
