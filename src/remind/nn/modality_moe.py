"""Sparse MoE over modalities: a row for each that a sample has, and experts that speak to all of them (FuseMoE).

Letters: b batch, n samples that have a modality, m modalities, d width, e experts.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from remind.nn.gate import expert_uncertainty
from remind.nn.sparse_moe import Kind, NoisyTopK, SparseMoE, cv_squared
from remind.types import Routing

RouterKind = Literal["permod", "joint", "disjoint"]
Rows = Sequence[Int[Tensor, " _"]]  # for each modality, which samples of the batch have it


class Exchanged(NamedTuple):
    """What the experts tell each modality of a sample, and how they were chosen."""

    values: Float[Tensor, "b m d"]
    routing: Routing
    balance: Float[Tensor, ""] | None  # CV^2 of importance and load, summed over routers; None outside training


class ModalityMoE(nn.Module):
    """Every router sends its rows to ``top_k`` of its experts; the sum over a sample's rows is cut up by modality.

    ``permod``: a router for each modality, all over the same experts, which map ``d -> m d``. ``disjoint``: the same,
    but each has experts of its own, an ``m``-th of them, though at least one. ``joint``: one router and one row of all
    modalities side by side, zeros for those that the sample lacks.
    """

    def __init__(
        self, dim: int, modalities: int, experts: int, *, top_k: int, hidden: int, router: RouterKind, gate: Kind
    ) -> None:
        super().__init__()
        self.joint, width = router == "joint", modalities * dim
        routers, row = (1, width) if self.joint else (modalities, dim)
        own = max(1, experts // modalities) if router == "disjoint" else experts
        self.first = [own * place if router == "disjoint" else 0 for place in range(routers)]
        self.total = self.first[-1] + own
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(modalities))
        self.gates = nn.ModuleList(NoisyTopK(row, own, kept=top_k, kind=gate) for _ in range(routers))
        self.moe = SparseMoE(row, self.total, hidden=hidden, out=width)

    def forward(self, rows: Sequence[Float[Tensor, "_ d"]], where: Rows, batch: int) -> Exchanged:
        """Exchange between the modalities of each of ``batch`` samples."""
        rows = [norm(row) for norm, row in zip(self.norms, rows, strict=True)]
        if self.joint:
            rows, where = [scatter(rows, where, batch).flatten(1)], [torch.arange(batch, device=rows[0].device)]
        gated = [gate(row) for gate, row in zip(self.gates, rows, strict=True)]
        weights = [
            F.pad(one.weights, (first, self.total - first - one.weights.shape[1]))
            for one, first in zip(gated, self.first, strict=True)
        ]
        made = self.moe(torch.cat(list(rows)), torch.cat(weights))
        told = made.new_zeros(batch, made.shape[1]).index_add(0, torch.cat(list(where)), made)
        with torch.no_grad():
            there = scatter([row.new_ones(len(row), 1) for row in rows], where, batch)[:, :, 0]
            clean, log_count = scatter([one.clean for one in gated], where, batch), there.log()
            routing = Routing(
                None,
                scatter(weights, where, batch)[..., None],
                expert_uncertainty(clean[..., None], log_count),
                torch.zeros(batch, dtype=torch.bool, device=made.device),
                log_count,
            )
        shares = [share.sum(0) for one in gated if one.chance is not None for share in (one.weights, one.chance)]
        balance = cv_squared(torch.stack(shares)).sum() if shares else None
        return Exchanged(told.unflatten(1, (len(self.norms), -1)), routing, balance)


def scatter(rows: Sequence[Float[Tensor, "_ k"]], where: Rows, batch: int) -> Float[Tensor, "b m k"]:
    """Rows of each modality at their samples, zeros for what a sample lacks."""
    values, sample = torch.cat(list(rows)), torch.cat(list(where))
    modality = torch.cat([torch.full_like(here, place) for place, here in enumerate(where)])
    return values.new_zeros(batch, len(where), values.shape[1]).index_put((sample, modality), values)
