"""Fusions: tokens of whatever modalities a sample has, to one vector. One file each, listed here."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Int
from torch import Tensor, nn

from remind.registry import Registry
from remind.types import Encoded, Fused


class Fusion(nn.Module, ABC):
    """Built as ``X(dim, layout, *, hyperparameters)``."""

    width: int  # of what it pools a sample to
    tries: ClassVar[Mapping[str, tuple[Any, ...]]] = {}  # values of its settings that are worth a trial

    @abstractmethod
    def forward(self, encoded: Encoded) -> Fused:
        """Fuse a batch."""

    def after_step(self, fused: Fused) -> None:
        """Called after each training step with what ``forward`` gave."""

    def compilable(self) -> nn.Module | None:
        """What of it ``torch.compile`` can take whole, for ``train.compile``; None: nothing that would be faster."""

    def of_groups(self) -> list[nn.Parameter]:
        """Tables with rows of single groups, which come into play where a stage says so."""
        return []

    def places(self, group: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """The rows of these groups in such tables, -1 for one that has none."""
        return group

    def sparsely(self) -> None:
        """Called where the optimiser takes sparse gradients of such tables."""

    def specialise(self) -> None:
        """Called where a stage says that the groups' own parameters come into play."""


FUSIONS = Registry(
    "fusion",
    {
        "soft_moe": "remind.fusions.soft_moe:SoftMoEFusion",
        "fuse_moe": "remind.fusions.fuse_moe:FuseMoEFusion",
        "flex_moe": "remind.fusions.flex_moe:FlexMoEFusion",
        "remind": "remind.fusions.remind:RemindFusion",
    },
)
