"""Fusions: tokens of whatever modalities a sample has, to one vector. One file each, listed here."""

from abc import ABC, abstractmethod

from jaxtyping import Int
from torch import Tensor, nn

from remind.registry import Registry
from remind.types import Fused, Tokens


class Fusion(nn.Module, ABC):
    """Built as ``X(dim, groups, *, hyperparameters)``."""

    @abstractmethod
    def forward(self, tokens: Tokens, group: Int[Tensor, " b"]) -> Fused:
        """Fuse a batch; ``group`` is -1 for a combination unseen in training."""

    def after_step(self, fused: Fused) -> None:
        """Called after each training step with what ``forward`` gave."""

    def specialise(self) -> None:
        """Called where a stage says that the groups' own parameters come into play."""


FUSIONS = Registry(
    "fusion",
    {
        "soft_moe": "remind.fusions.soft_moe:SoftMoEFusion",
        "remind": "remind.fusions.remind:RemindFusion",
    },
)
