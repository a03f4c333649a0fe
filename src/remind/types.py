"""What passes between encoders, fusion and objective.

Letters: b batch, n samples that have a modality, m modalities, g groups, l tokens of one modality, t tokens of all,
d and w widths, e experts, s slots, c classes.
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


class Layout(NamedTuple):
    """What a fusion is told of a cohort before it sees any of it."""

    lengths: tuple[int, ...]  # tokens that each modality stands for where it is missing
    masks: Bool[Tensor, "g m"]  # availability of each training group
    counts: tuple[int, ...]  # training samples of each
    added: int = 0  # how many of the groups, the last ones, came when the model was adapted


class Encoded(NamedTuple):
    """What the encoders make of a batch: each modality's tokens, of the samples that have it, and their rows."""

    tokens: tuple[Ragged, ...]
    rows: tuple[Int[Tensor, " _"], ...]
    available: Bool[Tensor, "b m"]
    group: Int[Tensor, " b"]  # -1: a combination unseen in training


class Routing(NamedTuple):
    """How tokens reach slots and come back, and what the gate thought of it."""

    dispatch: Float[Tensor, "b t e s"] | None  # sums to 1 over tokens, counted (Eq. 5); None: experts take whole tokens
    combine: Float[Tensor, "b t e s"]  # sums to 1 over experts and slots (Eq. 6)
    uncertainty: Float[Tensor, " b"]  # of the shared routing, in the gate's own measure; larger is less sure
    opened: Bool[Tensor, " b"]  # whether the group's residual was used
    log_count: Float[Tensor, "b t"]  # how many tokens each one that is routed stands for


class Fused(NamedTuple):
    """What a fusion makes of a batch of tokens."""

    pooled: Float[Tensor, "b w"]
    routing: Routing
    auxiliary: Float[Tensor, ""] | None = None  # a loss of the fusion's own, added to the objective's


class Output(NamedTuple):
    """What a model makes of a batch."""

    logits: Float[Tensor, "b c"]
    fused: Fused
