"""Sparse mixture of experts (Shazeer et al. 2017): noisy gates, the experts that they choose, losses that balance them.

Letters: r rows (tokens, or whatever is routed), d width, e experts, h hidden width, o width of what comes out.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from remind.nn.soft_moe import Experts

Kind = Literal["softmax", "laplace", "gaussian"]


class Gated(NamedTuple):
    """What a gate made of rows. Outside training there is no noise, and no question of where it might have led."""

    clean: Float[Tensor, "r e"]  # logits
    noisy: Float[Tensor, "r e"]  # logits with noise: those which decide
    weights: Float[Tensor, "r e"]  # softmax over the logits that were kept; 0 elsewhere
    chance: Float[Tensor, "r e"] | None  # of being kept, were this expert's noise drawn again


class NoisyTopK(nn.Module):
    """Each row keeps the ``kept`` experts of largest noisy logit, by Shazeer's Eq. 3 to 5.

    Logits: ``softmax`` x . w; ``laplace`` -|x - w|; ``gaussian`` -|x - w|^2 (FuseMoE, Han et al. 2024). The noise has
    the learned scale softplus(x . v) + 0.01, ``v`` zero at first, as Shazeer's is; ``w`` is drawn, since experts that
    tie would be chosen by their number. All of it in the weights' own precision, whatever autocast says: a rounded
    logit chooses another expert.
    """

    def __init__(self, dim: int, experts: int, *, kept: int, kind: Kind = "softmax") -> None:
        super().__init__()
        self.kept, self.kind = min(kept, experts), kind
        spread = math.sqrt(1 / dim) if kind == "softmax" else 1.0  # of rows that a LayerNorm made
        self.experts = nn.Parameter(torch.randn(experts, dim) * spread)
        self.noise = nn.Parameter(torch.zeros(experts, dim))

    def forward(self, rows: Float[Tensor, "r d"]) -> Gated:
        """Gate every row by itself."""
        with torch.autocast(rows.device.type, enabled=False):
            rows = rows.to(self.experts.dtype)
            clean = self._logits(rows)
            if not self.training:
                return Gated(clean, clean, keep(clean, self.kept), None)
            scale = F.softplus(F.linear(rows, self.noise)) + 0.01
            noisy = clean + scale * torch.randn_like(clean)
            return Gated(clean, noisy, keep(noisy, self.kept), chance_kept(clean, noisy, scale, self.kept))

    def _logits(self, rows: Float[Tensor, "r d"]) -> Float[Tensor, "r e"]:
        if self.kind == "softmax":
            return F.linear(rows, self.experts)
        distance = torch.cdist(rows, self.experts, compute_mode="donot_use_mm_for_euclid_dist")
        return -distance if self.kind == "laplace" else -distance.square()


def keep(logits: Float[Tensor, "r e"], kept: int) -> Float[Tensor, "r e"]:
    """Softmax over the largest ``kept`` logits of each row, 0 for the others."""
    largest, which = logits.topk(kept, dim=1)
    return torch.zeros_like(logits).scatter(1, which, largest.softmax(1))


def chance_kept(
    clean: Float[Tensor, "r e"], noisy: Float[Tensor, "r e"], scale: Float[Tensor, "r e"], kept: int
) -> Float[Tensor, "r e"]:
    """Shazeer's P(x, i), Eq. 9: that an expert would be kept if its own noise, and no other, were drawn again.

    It would be if it came out above the ``kept``-th largest noisy logit of the other experts.
    """
    if kept == clean.shape[1]:
        return torch.ones_like(clean)
    largest = noisy.topk(kept + 1, dim=1).values
    last, next_one = largest[:, -2:-1], largest[:, -1:]
    return torch.special.ndtr((clean - torch.where(noisy > next_one, next_one, last)) / scale)


def cv_squared(total: Float[Tensor, "*g e"]) -> Float[Tensor, "*g"]:
    """Squared coefficient of variation over experts: 0 where all have the same; of one expert, or of nothing, 0."""
    if total.shape[-1] < 2:
        return total.new_zeros(total.shape[:-1])
    return total.var(-1) / (total.mean(-1).square() + 1e-10)


class SparseMoE(nn.Module):
    """The sum of what its experts make of a row, by weight; an expert runs on the rows that weigh it, and no other.

    Rows are gathered for one expert after another: at 1280 rows, top 4 of 16 to 32 experts, three to eight times as
    fast on a CPU as all experts on all rows, and the same however unevenly rows are spread (``grouped_mm`` is no
    faster, and wants aligned widths and single precision).
    """

    def __init__(self, dim: int, experts: int, *, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.experts = Experts(dim, experts, hidden=hidden, out=out)

    def forward(self, rows: Float[Tensor, "r d"], weights: Float[Tensor, "r e"]) -> Float[Tensor, "r o"]:
        """``sum_e weights_e f_e(row)``."""
        held = self.experts
        expert, row = weights.T.nonzero(as_tuple=True)  # sorted by expert
        parts = rows[row].split(expert.bincount(minlength=len(held.up.weight)).tolist())
        networks = zip(parts, held.up.weight, held.up.bias, held.down.weight, held.down.bias, strict=True)
        made = torch.cat([F.gelu(part @ up + a) @ down + b for part, up, a, down, b in networks])
        made = made * weights[row, expert][:, None]
        return made.new_zeros(len(rows), made.shape[1]).index_add(0, row, made)
