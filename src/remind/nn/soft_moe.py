"""Soft mixture of experts (Puigcerver et al. 2024; the paper's Eq. 5 and 6).

Letters: b batch, t tokens, d width, e experts, s slots of an expert, h hidden width, o width of what comes out.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Router(nn.Module):
    """Cosine logits ``scale * z_hat . phi_hat``: tokens and slot vectors have unit norm (App. 7.2.2).

    With unit vectors a logit lies in ``[-scale, scale]``, which bounds how sure the routing can be: see
    ``docs/decisions/0006-gate.md``. The scale is learned; ``start`` is its first value.
    """

    def __init__(self, dim: int, experts: int, *, slots: int = 1, start: float = 1.0) -> None:
        super().__init__()
        self.phi = nn.Parameter(torch.randn(dim, experts, slots) / math.sqrt(dim))
        self.scale = nn.Parameter(torch.tensor(start))

    def forward(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t e s"]:
        """Logits of every token for every slot."""
        return cosine_logits(self.scale, torch.einsum("btd,des->btes", unit(z), self.phi), self.phi[None])


def unit(z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """Tokens of norm one."""
    return F.normalize(z, dim=-1)


def cosine_logits(
    scale: Float[Tensor, ""], aligned: Float[Tensor, "b t e s"], phi: Float[Tensor, "#b d e s"]
) -> Float[Tensor, "b t e s"]:
    """``scale`` times the cosines, from products with slot vectors whose norms are still to be divided out."""
    norms = torch.linalg.vector_norm(phi, dim=1).clamp_min(1e-12)
    return scale * aligned / norms[:, None]


def dispatch_weights(logits: Float[Tensor, "b t e s"], log_count: Float[Tensor, "b t"]) -> Float[Tensor, "b t e s"]:
    """Eq. 5: softmax over tokens for every slot; a token that stands for ``c`` has ``c`` times the weight."""
    return (logits + log_count[:, :, None, None]).softmax(dim=1)


def combine_weights(logits: Float[Tensor, "b t e s"]) -> Float[Tensor, "b t e s"]:
    """Eq. 6: softmax over all slots of all experts, for every token."""
    return logits.flatten(2).softmax(dim=-1).view_as(logits)


class BatchedLinear(nn.Module):
    """``e`` linear maps, each on its own rows, as one batched product."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, inputs, outputs).uniform_(-1, 1) / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(experts, 1, outputs))

    def forward(self, rows: Float[Tensor, "e r i"]) -> Float[Tensor, "e r o"]:
        """Every map on its rows."""
        return torch.baddbmm(self.bias, rows, self.weight)


class Experts(nn.Module):
    """``e`` two-layer GELU networks ``d -> h -> d`` (or ``-> out``), held and run as one batched product."""

    def __init__(self, dim: int, experts: int, *, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.up = BatchedLinear(experts, dim, hidden)
        self.down = BatchedLinear(experts, hidden, out or dim)

    def forward(self, slots: Float[Tensor, "b e s d"]) -> Float[Tensor, "b e s o"]:
        """Every expert on its own slots."""
        batch, experts, count, dim = slots.shape
        rows = slots.transpose(0, 1).reshape(experts, batch * count, dim)
        out = self.down(F.gelu(self.up(rows)))
        return out.view(experts, batch, count, -1).transpose(0, 1)


class SoftMoE(nn.Module):
    """Slots are mixtures of un-normalised tokens; tokens are mixtures of what the experts make of the slots."""

    def __init__(self, dim: int, experts: int, *, hidden: int) -> None:
        super().__init__()
        self.experts = Experts(dim, experts, hidden=hidden)

    def forward(
        self, z: Float[Tensor, "b t d"], dispatch: Float[Tensor, "b t e s"], combine: Float[Tensor, "b t e s"]
    ) -> Float[Tensor, "b t d"]:
        """``Y = C f(D^T Z)``."""
        slots = torch.einsum("btes,btd->besd", dispatch, z)
        return torch.einsum("btes,besd->btd", combine, self.experts(slots))
