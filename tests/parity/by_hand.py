"""Sparse MoE the slow way: one sample, one token, one expert at a time; and small batches to try it on."""

import math
from typing import NamedTuple

import torch
from torch import nn

from remind.types import Encoded, Layout, Ragged


class Case(NamedTuple):
    """A cohort's layout, and a batch of it."""

    layout: Layout
    encoded: Encoded


def combinations(modalities):
    return torch.tensor([[bool(bits >> place & 1) for place in range(modalities)] for bits in range(1, 2**modalities)])


def draw_case(seed, batch, modalities, dim, *, groups=5, only=None):
    """Random tokens in float64, of samples of any combination, known or not; or of ``only`` full or partial ones."""
    torch.manual_seed(seed)
    every = combinations(modalities)
    every = every[torch.randperm(len(every))]
    masks = every[:groups]
    wanted = {None: torch.ones(len(every)).bool(), "full": every.all(1), "partial": ~every.all(1)}[only]
    which = wanted.nonzero().ravel()[torch.randint(int(wanted.sum()), (batch,))]
    lengths = torch.randint(1, 4, (modalities,)).tolist()
    rows = [every[which, place].nonzero().ravel() for place in range(modalities)]
    rows = [here[torch.randperm(len(here))] for here in rows]  # of any order
    tokens = tuple(draw_tokens(len(here), length, dim) for here, length in zip(rows, lengths, strict=True))
    counts = (torch.rand(len(masks)) * 99 + 1).long().sort(descending=True).values.tolist()
    return Case(
        Layout(tuple(lengths), masks, tuple(counts)),
        Encoded(tokens, tuple(rows), every[which], torch.where(which < len(masks), which, -1)),
    )


def draw_tokens(count, longest, dim):
    if torch.rand(()) < 0.5:
        return Ragged(torch.randn(count, longest, dim).double())
    length = torch.randint(1, longest + 1, (count,))
    values = torch.randn(count, longest, dim).double()
    values[torch.arange(longest) >= length[:, None]] = math.nan  # what stands in padding is nobody's business
    return Ragged(values, length)


def observed(encoded, sample, place):
    """The real tokens ``[l, d]`` of a sample's modality."""
    tokens, row = encoded.tokens[place], encoded.rows[place].tolist().index(sample)
    return tokens.values[row] if tokens.length is None else tokens.values[row, : tokens.length[row]]


def randomise(module):
    """Nothing that is zero at first stays so."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def norm(layer, x):
    """LayerNorm of one vector."""
    centred = x - x.mean()
    return centred / (centred.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias


def attend(attention, x):
    """Tokens ``[t, d]`` of one sample, all real; one head and one query at a time."""
    width = x.shape[1] // attention.heads
    query, key, value = (x @ attention.qkv.weight.T + attention.qkv.bias).chunk(3, dim=1)
    out = torch.zeros_like(x)
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        for t in range(len(x)):
            weight = [math.exp(float(query[t, part] @ key[s, part]) / math.sqrt(width)) for s in range(len(x))]
            out[t, part] = sum(w / sum(weight) * value[s, part] for s, w in enumerate(weight))
    return out @ attention.out.weight.T + attention.out.bias


class Gate(NamedTuple):
    """Lists over experts."""

    clean: list[float]
    noisy: list[float]
    weights: list[float]
    chance: list[float]


def gate(layer, kind, kept, x, noise=None):
    """One row's way to its experts; ``noise``, standard normal, is for training."""
    clean = []
    for expert in layer.experts:
        if kind == "softmax":
            clean.append(sum(a * b for a, b in zip(x.tolist(), expert.tolist(), strict=True)))
        else:
            distance = math.dist(x.tolist(), expert.tolist())
            clean.append(-distance if kind == "laplace" else -(distance**2))
    scale = [math.log1p(math.exp(float(x @ vector))) + 0.01 for vector in layer.noise]
    noisy = clean if noise is None else [c + s * n for c, s, n in zip(clean, scale, noise.tolist(), strict=True)]
    first = sorted(range(len(noisy)), key=lambda e: -noisy[e])[:kept]
    total = sum(math.exp(noisy[e] - noisy[first[0]]) for e in first)
    weights = [math.exp(noisy[e] - noisy[first[0]]) / total if e in first else 0.0 for e in range(len(noisy))]
    return Gate(clean, noisy, weights, [chance(clean, noisy, scale, kept, e) for e in range(len(clean))])


def chance(clean, noisy, scale, kept, expert):
    """That this expert would be among the ``kept`` first, were its own noise drawn again."""
    others = sorted((value for e, value in enumerate(noisy) if e != expert), reverse=True)
    if kept > len(others):
        return 1.0
    return 0.5 * (1 + math.erf((clean[expert] - others[kept - 1]) / scale[expert] / math.sqrt(2)))


def expert(held, e, x):
    """One network on one row."""
    before = (x @ held.up.weight[e] + held.up.bias[e, 0]).tolist()
    hidden = torch.tensor([v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in before], dtype=x.dtype)
    return hidden @ held.down.weight[e] + held.down.bias[e, 0]


def mixture(held, weights, x):
    return sum(weight * expert(held, e, x) for e, weight in enumerate(weights))


def cv_squared(rows, experts):
    """Of what the experts got in all, from lists over experts; of fewer than two experts, or of no rows, 0."""
    total = [sum(row[e] for row in rows) for e in experts]
    if len(total) < 2 or not rows:
        return 0.0
    mean = sum(total) / len(total)
    return sum((t - mean) ** 2 for t in total) / (len(total) - 1) / (mean**2 + 1e-10)


def entropy(logits):
    """Of a softmax, over its maximum."""
    if len(logits) < 2:
        return 0.0
    total = sum(math.exp(v - max(logits)) for v in logits)
    share = [math.exp(v - max(logits)) / total for v in logits]
    return -sum(p * math.log(p) for p in share if p > 0) / math.log(len(logits))
