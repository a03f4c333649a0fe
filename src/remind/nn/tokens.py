"""Token sequences of samples that hold different modalities, without the ones they lack."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remind.types import Tokens


def padding(tokens: Tokens) -> Bool[Tensor, "b t"]:
    """Which slots of the batch hold no token."""
    return tokens.log_count == -math.inf


def blank_padding(tokens: Tokens) -> Tokens:
    """The same tokens with zeros in the padding, so that nothing stored there (not even NaN) can reach a result."""
    return tokens._replace(values=tokens.values.masked_fill(padding(tokens)[..., None], 0.0))


def mean_token(tokens: Tokens) -> Float[Tensor, "b d"]:
    """The mean over all the tokens a sample stands for, each counted as often as it is repeated."""
    weight = tokens.log_count.exp()
    return torch.einsum("bt,btd->bd", weight / weight.sum(1, keepdim=True), tokens.values)


def pack(
    encoded: Sequence[tuple[Float[Tensor, "_ _ d"], Int[Tensor, " _"]]],
    available: Bool[Tensor, "b m"],
    lengths: Sequence[int],
    imputed: Float[Tensor, "b d"] | None,
) -> Tokens:
    """Lay the tokens of each sample's available modalities side by side, padded to the longest sample.

    Args:
        encoded: for every modality, the tokens of the samples that have it and the rows of the batch they belong to.
        available: which modalities each sample has.
        lengths: how many tokens each modality has.
        imputed: one vector a sample that stands for every token of every missing modality (Eq. 7's ``B_k``,
            collapsed: one token with ``log_count = log c`` in place of ``c`` copies), or None for no such token.
    """
    batch, device = len(available), available.device
    size = torch.tensor(lengths, device=device)
    observed = available * size
    start = observed.cumsum(1) - observed
    used = observed.sum(1)
    extra = 0 if imputed is None else 1
    width = int(used.max()) + extra
    dtype = encoded[0][0].dtype
    values = torch.zeros(batch, width, encoded[0][0].shape[-1], dtype=dtype, device=device)
    log_count = torch.where(torch.arange(width, device=device) < used[:, None], 0.0, -math.inf).to(dtype)
    for modality, (tokens, rows) in enumerate(encoded):
        place = start[rows, modality, None] + torch.arange(lengths[modality], device=device)
        values = values.index_put((rows[:, None], place), tokens)
    if imputed is not None:
        everyone = torch.arange(batch, device=device)
        values = values.index_put((everyone, used), imputed.to(dtype))
        missing = (int(sum(lengths)) - used).to(dtype)
        log_count = log_count.index_put((everyone, used), missing.log())
    return Tokens(values, log_count)
