"""Token sequences of samples that hold different modalities, without the ones they lack."""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remind.types import Encoded, Tokens


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


def pack(encoded: Encoded, lengths: Sequence[int], imputed: Float[Tensor, "b k d"] | None) -> Tokens:
    """Lay the tokens of each sample's available modalities side by side, padded to the longest sample.

    Args:
        encoded: the tokens of every modality.
        lengths: how many tokens each modality stands for where it is missing.
        imputed: a vector for each sample (``k = 1``) that stands for every token of every missing modality, as Eq. 7's
            ``B_k``, or one for each modality (``k = m``) that stands for its tokens where it is missing; collapsed: one
            token with ``log_count = log c`` in place of ``c`` copies. None: no such token.
    """
    available, device = encoded.available, encoded.available.device
    batch = len(available)
    missing = ~available * torch.tensor(lengths, device=device)
    if imputed is not None and imputed.shape[1] == 1:
        missing = missing.sum(1, keepdim=True)
    stands = (missing > 0) & (imputed is not None)
    observed = _observed(encoded)
    start = observed.cumsum(1) - observed
    used = observed.sum(1)
    width = int((used + stands.sum(1)).max())
    dtype = common_dtype(encoded)
    values = torch.zeros(batch, width, encoded.tokens[0].values.shape[-1], dtype=dtype, device=device)
    log_count = torch.where(torch.arange(width, device=device) < used[:, None], 0.0, -math.inf)
    log_count = log_count.to(torch.promote_types(dtype, torch.float32))
    for modality, (tokens, rows) in enumerate(zip(encoded.tokens, encoded.rows, strict=True)):
        order = torch.arange(tokens.values.shape[1], device=device)
        place, row = start[rows, modality, None] + order, rows[:, None].expand(-1, len(order))
        if tokens.length is None:
            values = values.index_put((row, place), tokens.values.to(dtype))
        else:
            real = order < tokens.length[:, None]
            values = values.index_put((row[real], place[real]), tokens.values[real].to(dtype))
    if imputed is not None:
        row, which = stands.nonzero(as_tuple=True)
        place = used[row] + (stands.cumsum(1) - 1)[row, which]
        values = values.index_put((row, place), imputed[row, which].to(dtype))
        log_count = log_count.index_put((row, place), missing[row, which].to(log_count).log())
    return Tokens(values, log_count)


def lay_out(encoded: Encoded, lengths: Sequence[int], filling: Float[Tensor, "b t d"]) -> Tokens:
    """Give every modality its own places, the same in all samples; where it is missing, what fills them stays.

    Modality ``j`` has ``lengths[j]`` places, of which a sample with fewer tokens leaves the last as padding.
    ``filling`` has a row for every place.
    """
    values = filling.to(torch.promote_types(common_dtype(encoded), filling.dtype))
    log_count = torch.zeros(values.shape[:2], dtype=torch.promote_types(values.dtype, torch.float32)).to(values.device)
    start = 0
    for tokens, rows, length in zip(encoded.tokens, encoded.rows, lengths, strict=True):
        width = tokens.values.shape[1]
        places = start + torch.arange(length, device=values.device)
        values = values.index_put((rows[:, None], places[:width]), tokens.values.to(values.dtype))
        if tokens.length is not None or width < length:
            used = torch.full_like(rows, width) if tokens.length is None else tokens.length
            padded = torch.arange(length, device=values.device) >= used[:, None]
            log_count = log_count.index_put(
                (rows[:, None], places), torch.zeros_like(padded, dtype=log_count.dtype).masked_fill(padded, -math.inf)
            )
        start += length
    return Tokens(values, log_count)


def common_dtype(encoded: Encoded) -> torch.dtype:
    """A dtype that holds the tokens of all modalities."""
    return reduce(torch.promote_types, (tokens.values.dtype for tokens in encoded.tokens))


def _observed(encoded: Encoded) -> Int[Tensor, "b m"]:
    """How many tokens each sample has of each modality."""
    columns = []
    for place, (tokens, rows) in enumerate(zip(encoded.tokens, encoded.rows, strict=True)):
        available = encoded.available[:, place]
        if tokens.length is None:
            columns.append(available * tokens.values.shape[1])
        else:
            columns.append(torch.zeros_like(available, dtype=torch.int64).index_put((rows,), tokens.length))
    return torch.stack(columns, dim=1)
