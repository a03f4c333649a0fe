"""A batch: the inputs of only those samples that have them.

Everything is a ``NamedTuple``: Fabric cannot move frozen dataclasses.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor


class TabularShape(NamedTuple):
    """What an encoder of a table must know: how many numbers, and the size of each category's vocabulary."""

    numbers: int
    categories: tuple[int, ...]


class TabularInput(NamedTuple):
    """Rows of a table: standardised numbers (0 where the cell is empty), which cells were filled, category codes."""

    numbers: Float[Tensor, "n f"]
    observed: Bool[Tensor, "n f"]
    codes: Int[Tensor, "n k"]


class Packed(NamedTuple):
    """One modality's inputs, of the samples that have it, and the rows of the batch those are."""

    inputs: TabularInput
    rows: Int[Tensor, " n"]


class Batch(NamedTuple):
    """Samples with whatever they have."""

    packed: dict[str, Packed]
    available: Bool[Tensor, "b m"]
    group: Int[Tensor, " b"]  # -1: a combination unseen in training
    target: Int[Tensor, " b"]
    row: Int[Tensor, " b"]  # of the cohort
