"""Losses of single samples."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def focal_loss(logits: Float[Tensor, "b c"], target: Int[Tensor, " b"], *, gamma: float) -> Float[Tensor, " b"]:
    """``-(1 - p)^gamma log p`` of the true class (Lin et al. 2017); ``gamma = 0`` is cross-entropy."""
    log_p = -F.cross_entropy(logits, target, reduction="none")
    unsure = (-log_p.expm1()).clamp_min(1e-12)  # off zero, where a power below one has no slope
    return -(unsure**gamma) * log_p
