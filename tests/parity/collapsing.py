"""Tokens that stand for many, the copies they stand for written out, and how far apart the two lie."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from remind.nn.tokens import pack
from remind.types import Encoded, Ragged, Tokens

Kind = Literal["scattered", "packed"]
Function = Callable[[nn.Module, Tokens], Tensor]


def broadcast(tokens: Tokens) -> tuple[Tokens, list[list[int]]]:
    """Every token ``exp(log_count)`` times, side by side, and for every sample which token each of them copies."""
    counts = tokens.log_count.exp().round().long().tolist()
    sources = [[place for place, count in enumerate(row) for _ in range(count)] for row in counts]
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
        encoded = tuple(
            Ragged(torch.randn(len(here), length, dim, dtype=dtype)) for here, length in zip(rows, lengths, strict=True)
        )
        group = torch.zeros(batch, dtype=torch.int64)
        imputed = torch.randn(batch, 1 if torch.rand(()) < 0.5 else modalities, dim, dtype=dtype)
        return pack(Encoded(encoded, tuple(rows), available, group), lengths, imputed)
    count = torch.randint(1, 41, (batch, modalities)) ** torch.randint(0, 2, (batch, modalities))
    count[torch.rand(batch, modalities) < 0.3] = 0
    count[torch.arange(batch), torch.randint(modalities, (batch,))] = 7
    return Tokens(torch.randn(batch, modalities, dim, dtype=dtype), count.to(dtype).log())


class Learned(NamedTuple):
    """A result and the gradients of a weighted sum of it."""

    result: Tensor
    of_values: Tensor
    of_parameters: dict[str, Tensor]


def learn(function: Function, module: nn.Module, tokens: Tokens, weight: Tensor) -> Learned:
    """Run, and differentiate."""
    values = tokens.values.detach().clone().requires_grad_()
    module.zero_grad()
    result = function(module, Tokens(values, tokens.log_count))
    (result * weight).sum().backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return Learned(result.detach(), values.grad, gradients)


def deviations(
    function: Function, module: nn.Module, tokens: Tokens, *, per: Literal["sample", "copy", "token"]
) -> dict[str, float]:
    """How far the result and gradients with collapsed tokens lie from those with copies written out, in float64.

    ``per``: the result is one a ``sample``; or one a ``copy``, so that a collapsed token has what each of its copies
    has; or one a ``token``, so that it has what its copies have together.
    """
    count = tokens.log_count.double().exp().round()
    copies, sources = broadcast(Tokens(tokens.values.double(), count.log()))
    with torch.no_grad():
        weight = torch.randn_like(function(module, tokens).double()) / len(count)
    on_tokens = on_copies = weight
    if per != "sample":
        count = count.reshape(*count.shape, *[1] * (weight.dim() - 2))
        weight = weight / count.sum(1, keepdim=True)  # a mean over the copies, as over the samples
        on_tokens, on_copies = weight * (count if per == "copy" else count.sign()), spread(weight, sources)
    one = learn(function, module, tokens, on_tokens.to(tokens.values))
    many = learn(function, deepcopy(module).double(), copies, on_copies)
    results = one.result, many.result
    if per == "copy":
        results = spread(one.result, sources), many.result * spread(torch.ones_like(weight), sources)
    elif per == "token":
        results = one.result, total(many.result, sources, count.shape[1])
    assert one.of_parameters.keys() == many.of_parameters.keys()
    found = {"result": apart(*results), "values": apart(one.of_values, total(many.of_values, sources, count.shape[1]))}
    return found | {name: apart(gradient, many.of_parameters[name]) for name, gradient in one.of_parameters.items()}


def apart(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of the largest entry expected (of 1 where that is less)."""
    assert actual.shape == expected.shape
    assert actual.isfinite().all()
    return float((actual - expected).abs().max() / expected.abs().max().clamp_min(1))
