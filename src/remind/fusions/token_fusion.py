"""Fusions of one set of tokens, in which learned vectors stand for what is missing."""

from abc import abstractmethod
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from remind.fusions import Fusion
from remind.nn.block import FusionBlock
from remind.nn.imputation import GroupEmbeddings, ModalityEmbeddings, Start
from remind.nn.tokens import lay_out, pack
from remind.types import Encoded, Fused, Layout, Tokens

Imputation = Literal["group", "modality", "none"]


class TokenFusion(Fusion):
    """A sample is its observed tokens, and copies of a vector in place of those of its missing modalities.

    All copies of a vector are one token that stands for them (decision 3). Or there are none at all (Table 16).
    """

    block: FusionBlock
    imputation: nn.Module | None
    having: list[int]  # the groups that have parameters of their own
    own: Tensor  # int64 [g + 1]: the place of each group among those that have parameters of their own; -1: it has none

    def __init__(self, dim: int, layout: Layout, min_count: int) -> None:
        super().__init__()
        self.width, self.lengths = dim, layout.lengths
        self.first = len(layout.counts) - layout.added
        least = min(min_count, max(layout.counts[: self.first]))
        self.having = [group for group, count in enumerate(layout.counts) if count >= least]
        own = torch.full((len(layout.counts) + 1,), -1)
        own[self.having] = torch.arange(len(self.having))
        self.register_buffer("own", own, persistent=False)

    def impute(self, kind: Imputation, layout: Layout, start: Start) -> nn.Module | None:
        """What gives the vectors for missing modalities: one of a sample's group, one of each modality, or nothing."""
        if kind == "none":
            return None
        if kind == "modality":
            return ModalityEmbeddings(self.width, len(layout.lengths), start=start)
        first = [group for group in self.having if group < self.first]
        counts, added = [layout.counts[group] for group in first], len(self.having) - len(first)
        return GroupEmbeddings(self.width, layout.masks[first], counts, start=start, added=added)

    @property
    @abstractmethod
    def shared_router(self) -> nn.Module:
        """What routes all groups alike."""

    @abstractmethod
    def fuse(self, tokens: Tokens, group: Int[Tensor, " b"]) -> Fused:
        """Fuse a batch of tokens; ``group`` is the place that ``own`` gives, -1 for a group without parameters."""

    def compilable(self) -> nn.Module:
        """The block: how wide its tokens are follows from the data, what is done with them does not."""
        return self.block

    def forward(self, encoded: Encoded) -> Fused:
        """Fuse a batch."""
        return self.fuse(self.tokens(encoded), self.places(encoded.group))

    def places(self, group: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """By ``own``: rare groups have no rows."""
        return self.own[group]

    def tokens(self, encoded: Encoded) -> Tokens:
        """Observed tokens side by side, then those that stand for what is missing."""
        return pack(encoded, self.lengths, self._imputed(encoded))

    def broadcast(self, encoded: Encoded) -> Tokens:
        """The same, with every copy written out, so that a place means the same in all samples.

        Raises:
            ValueError: without vectors for what is missing.
        """
        if (imputed := self._imputed(encoded)) is None:
            raise ValueError("there is nothing to broadcast where imputation is 'none'")
        size = torch.tensor(self.lengths, device=imputed.device)
        filling = imputed.expand(-1, len(size), -1).repeat_interleave(size, dim=1)
        return lay_out(encoded, self.lengths, filling)

    def _imputed(self, encoded: Encoded) -> Tensor | None:
        return None if self.imputation is None else self.imputation(self.places(encoded.group), encoded.available)
