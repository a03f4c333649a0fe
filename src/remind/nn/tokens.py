"""Token sequences of samples that hold different modalities, without the ones they lack."""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remind.types import Encoded, Ragged, Tokens


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
    missing = ~available * torch.tensor(lengths, device=device)
    if imputed is not None and imputed.shape[1] == 1:
        missing = missing.sum(1, keepdim=True)
    stands = (missing > 0) & (imputed is not None)
    observed = _observed(encoded)
    used = observed.sum(1)
    width = int((used + stands.sum(1)).max())
    dtype = common_dtype(encoded)
    log_count = torch.where(torch.arange(width, device=device) < used[:, None], 0.0, -math.inf)
    log_count = log_count.to(torch.promote_types(dtype, torch.float32))
    values = torch.zeros(len(available), width, encoded.tokens[0].values.shape[-1], dtype=dtype, device=device)
    values = values.index_put(*_side_by_side(encoded, observed.cumsum(1) - observed, dtype))
    if imputed is not None:
        row, which = stands.nonzero(as_tuple=True)
        place = used[row] + (stands.cumsum(1) - 1)[row, which]
        values = values.index_put((row, place), imputed[row, which].to(dtype))
        log_count = log_count.index_put((row, place), missing[row, which].to(log_count).log())
    return Tokens(values, log_count)


def _side_by_side(
    encoded: Encoded, start: Int[Tensor, "b m"], dtype: torch.dtype
) -> tuple[tuple[Int[Tensor, " n"], Int[Tensor, " n"]], Float[Tensor, "n d"]]:
    """Row and place of all observed tokens, and the tokens: of all modalities at once, however many there are."""
    widths = [tokens.values.shape[1] for tokens in encoded.tokens]
    having = torch.tensor([len(rows) for rows in encoded.rows], device=start.device)
    cells = torch.cat(encoded.rows), torch.arange(len(widths), device=start.device).repeat_interleave(having)
    width = torch.tensor(widths, device=start.device)[cells[1]]
    cell = torch.arange(len(width), device=start.device).repeat_interleave(width)  # of each token
    order = torch.arange(len(cell), device=start.device) - (width.cumsum(0) - width)[cell]  # of it within its cell
    row, place = cells[0][cell], start[cells][cell] + order
    values = torch.cat([tokens.values.flatten(0, 1).to(dtype) for tokens in encoded.tokens])
    if any(tokens.length is not None for tokens in encoded.tokens):
        length = torch.cat([lengths_of(tokens) for tokens in encoded.tokens])
        real = order < length[cell]
        row, place, values = row[real], place[real], values[real]
    return (row, place), values


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
    width = torch.tensor([tokens.values.shape[1] for tokens in encoded.tokens], device=encoded.available.device)
    observed = encoded.available * width
    for modality, (tokens, rows) in enumerate(zip(encoded.tokens, encoded.rows, strict=True)):
        if tokens.length is not None:
            observed[rows, modality] = tokens.length
    return observed


def lengths_of(tokens: Ragged) -> Int[Tensor, " n"]:
    """How many of each row's tokens are real."""
    rows, most, _ = tokens.values.shape
    return torch.full((rows,), most, device=tokens.values.device) if tokens.length is None else tokens.length
