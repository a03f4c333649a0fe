"""The shared router plus a small residual for each modality combination (Eq. 7), opened by the gate (Eq. 8)."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from remind.nn.gate import Gate, Measure
from remind.nn.rows import rows_of
from remind.nn.soft_moe import Router, combine_weights, cosine_logits, dispatch_weights, unit
from remind.types import Routing


class GroupRouter(nn.Module):
    """``scale * z_hat . normalise(phi_shared + a * phi_k)``, where ``a`` is 1 if the gate opens for the sample.

    Residuals are out of play until ``specialise`` is called. They start at zero, and then the routing is the shared
    router's bit for bit. Group -1 has no residual.
    """

    specialised: Tensor  # bool; a buffer, so that a loaded model routes as the saved one did
    in_play: bool  # the same, known without asking the device

    def __init__(
        self,
        dim: int,
        experts: int,
        groups: int,
        *,
        slots: int = 1,
        start: float = 1.0,
        gate: Measure = "joint",
        threshold: float | str | None = None,
        init: Literal["zeros", "sinusoidal"] = "zeros",
    ) -> None:
        super().__init__()
        self.shared = Router(dim, experts, slots=slots, start=start)
        self.residual = nn.Parameter(_residual(init, groups, dim, experts, slots))
        self.gate = Gate(measure=gate, threshold=threshold)
        self.register_buffer("specialised", torch.tensor(False))
        self.in_play = False
        self.register_load_state_dict_post_hook(_recall)
        self.sparse = False  # whether the residuals' gradient is: for an optimiser that takes it so

    def specialise(self) -> None:
        """Bring the residuals into play: stage two begins."""
        self.specialised.fill_(True)
        self.in_play = True

    def forward(self, z: Float[Tensor, "b t d"], log_count: Float[Tensor, "b t"], group: Int[Tensor, " b"]) -> Routing:
        """Route each sample by the shared logits, or by its group's where those are uncertain."""
        phi, scale, z_hat = self.shared.phi, self.shared.scale, unit(z)
        aligned = torch.einsum("btd,des->btes", z_hat, phi)
        logits = cosine_logits(scale, aligned, phi[None])
        uncertainty, opened = self.gate(logits, log_count)
        opened = opened & (group >= 0) & self.in_play
        if self.in_play:
            residual = rows_of(self.residual, group.clamp_min(0), sparse=self.sparse) * opened[:, None, None, None]
            shifted = aligned + torch.einsum("btd,bdes->btes", z_hat, residual)
            logits = cosine_logits(scale, shifted, phi + residual)
        return Routing(dispatch_weights(logits, log_count), combine_weights(logits), uncertainty, opened, log_count)


def _recall(router: GroupRouter, _: Any) -> None:
    """After weights were loaded."""
    router.in_play = bool(router.specialised)


def _residual(init: str, groups: int, dim: int, experts: int, slots: int) -> Float[Tensor, "g d e s"]:
    """Zeros, or (Table 16) sinusoids whose positions number the groups' slots and whose frequencies run over ``d``."""
    if init == "zeros":
        return torch.zeros(groups, dim, experts, slots)
    frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angle = torch.arange(groups * experts * slots)[:, None] * frequency
    table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim] / math.sqrt(dim)
    return table.view(groups, experts, slots, dim).permute(0, 3, 1, 2).contiguous()
