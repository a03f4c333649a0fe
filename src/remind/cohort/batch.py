"""A batch: the inputs of only those samples that have them.

Everything is a ``NamedTuple``: Fabric cannot move frozen dataclasses.
"""

from typing import Any, NamedTuple

from jaxtyping import Bool, Int
from torch import Tensor


class Packed(NamedTuple):
    """One modality's inputs, of the samples that have it, and the rows of the batch those are."""

    inputs: Any  # of the kind's own type; or, as Ragged, what a frozen backbone makes of them
    rows: Int[Tensor, " n"]


class Batch(NamedTuple):
    """Samples with whatever they have."""

    packed: dict[str, Packed]
    available: Bool[Tensor, "b m"]
    group: Int[Tensor, " b"]  # -1: a combination unseen in training
    target: Int[Tensor, " b"]
    row: Int[Tensor, " b"]  # of the cohort
