"""Tokens that stand for many, the copies they stand for written out, and how far apart the two lie."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from remind.nn.tokens import pack
from remind.types import Tokens

Kind = Literal["scattered", "packed"]


def broadcast(tokens: Tokens) -> tuple[Tokens, list[list[int]]]:
    """Every token ``exp(log_count)`` times, side by side, and for every sample which token each of them copies."""
    sources = []
    for counts in tokens.log_count.exp().round().long().tolist():
        sources.append([place for place, count in enumerate(counts) for _ in range(count)])
    width = max(len(source) for source in sources)
    log_count = tokens.log_count.new_full((len(sources), width), -math.inf)
    for sample, source in enumerate(sources):
        log_count[sample, : len(source)] = 0
    return Tokens(spread(tokens.values, sources), log_count), sources


def spread(values: Tensor, sources: list[list[int]]) -> Tensor:
    """What each token has ``[b, t, ...]``, given to each of its copies; zero in the padding."""
    out = values.new_zeros(len(sources), max(len(source) for source in sources), *values.shape[2:])
    for sample, source in enumerate(sources):
        for copy, place in enumerate(source):
            out[sample, copy] = values[sample, place]
    return out


def total(values: Tensor, sources: list[list[int]], width: int) -> Tensor:
    """What the copies have, summed for each of the ``width`` tokens they copy."""
    out = values.new_zeros(len(sources), width, *values.shape[2:])
    for sample, source in enumerate(sources):
        for copy, place in enumerate(source):
            out[sample, place] += values[sample, copy]
    return out


def draw(kind: Kind, batch: int, modalities: int, dim: int, dtype: torch.dtype) -> Tokens:
    """Random tokens: ``scattered`` ones stand for 0 (padding) to 40 each; ``packed`` ones come from ``pack``."""
    if kind == "packed":
        lengths = torch.randint(1, 6, (modalities,)).tolist()
        available = torch.rand(batch, modalities) < 0.5
        available[torch.arange(batch), torch.randint(modalities, (batch,))] = True
        rows = [available[:, place].nonzero().ravel() for place in range(modalities)]
        encoded = [
            (torch.randn(len(here), length, dim, dtype=dtype), here) for here, length in zip(rows, lengths, strict=True)
        ]
        return pack(encoded, available, lengths, torch.randn(batch, dim, dtype=dtype))
    count = torch.randint(1, 41, (batch, modalities)) ** torch.randint(0, 2, (batch, modalities))
    count[torch.rand(batch, modalities) < 0.3] = 0
    count[torch.arange(batch), torch.randint(modalities, (batch,))] = 7
    return Tokens(torch.randn(batch, modalities, dim, dtype=dtype), count.to(dtype).log())


class Learned(NamedTuple):
    """A result and the gradients of a random projection of it."""

    result: Tensor
    of_values: Tensor
    of_parameters: dict[str, Tensor]


def learn(function: Callable[[Tokens], Tensor], tokens: Tokens, weight: Tensor, module: nn.Module | None) -> Learned:
    """Run, and differentiate the weighted sum of the result."""
    values = tokens.values.detach().clone().requires_grad_()
    if module is not None:
        module.zero_grad()
    result = function(Tokens(values, tokens.log_count))
    (result * weight).sum().backward()
    named = [] if module is None else module.named_parameters()
    return Learned(result.detach(), values.grad, {n: p.grad.clone() for n, p in named if p.grad is not None})


def deviations(
    function: Callable[[Tokens], Tensor],
    tokens: Tokens,
    *,
    module: nn.Module | None = None,
    per: Literal["sample", "copy", "token"],
) -> dict[str, float]:
    """How far the result and the gradients with collapsed tokens lie from those with their copies written out.

    ``per``: the result is one a ``sample``; or one a ``copy``, so that a collapsed token has what each of its copies
    has; or one a ``token``, so that it has what its copies have together.
    """
    copies, sources = broadcast(tokens)
    width = tokens.values.shape[1]
    count = tokens.log_count.exp().round()
    with torch.no_grad():
        shape = function(tokens).shape
    weight = torch.randn(shape, dtype=tokens.values.dtype)
    if per == "sample":
        one, many = learn(function, tokens, weight, module), learn(function, copies, weight, module)
        results = one.result, many.result
    else:
        counted = count if per == "copy" else (count > 0).to(count)
        counted = counted.reshape(*count.shape, *[1] * (len(shape) - 2))
        one = learn(function, tokens, weight * counted, module)
        many = learn(function, copies, spread(weight, sources), module)
        if per == "copy":
            real = (copies.log_count == 0).reshape(*copies.log_count.shape, *[1] * (len(shape) - 2))
            results = spread(one.result, sources), many.result * real
        else:
            results = one.result * counted, total(many.result, sources, width)
    assert one.of_parameters.keys() == many.of_parameters.keys()
    found = {"result": apart(*results), "values": apart(one.of_values, total(many.of_values, sources, width))}
    return found | {name: apart(g, many.of_parameters[name]) for name, g in one.of_parameters.items()}


def apart(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of the largest entry expected (of 1 where that is less)."""
    assert actual.shape == expected.shape
    assert actual.isfinite().all()
    return float((actual - expected).abs().max() / expected.abs().max().clamp_min(1))
