"""What passes between encoders, fusion and objective.

Letters: b batch, n samples that have a modality, l tokens of one, t tokens of all, d and w widths, e experts, s slots,
c classes.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor


class Ragged(NamedTuple):
    """Rows of tokens of unequal length, padded on the right. ``length`` None: all of them are real."""

    values: Float[Tensor, "n l w"]
    length: Int[Tensor, " n"] | None = None


class Tokens(NamedTuple):
    """Tokens of a batch, each standing for ``exp(log_count)`` identical ones.

    ``log_count`` is 0 for a real token, ``-inf`` for padding, and ``log c`` for the one token that stands for all
    ``c`` broadcast copies of an imputation embedding.
    """

    values: Float[Tensor, "b t d"]
    log_count: Float[Tensor, "b t"]


class Routing(NamedTuple):
    """How tokens reach slots and come back, and what the gate thought of it."""

    dispatch: Float[Tensor, "b t e s"]  # sums to 1 over tokens, counted (Eq. 5)
    combine: Float[Tensor, "b t e s"]  # sums to 1 over experts and slots (Eq. 6)
    uncertainty: Float[Tensor, " b"]  # of the shared routing, in the gate's own measure; larger is less sure
    opened: Bool[Tensor, " b"]  # whether the group's residual was used


class Fused(NamedTuple):
    """What a fusion makes of a batch of tokens."""

    pooled: Float[Tensor, "b d"]
    routing: Routing


class Output(NamedTuple):
    """What a model makes of a batch."""

    logits: Float[Tensor, "b c"]
    fused: Fused
