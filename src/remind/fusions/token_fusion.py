"""Fusions of one set of tokens, in which learned vectors stand for what is missing."""

from abc import abstractmethod
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from remind.fusions import Fusion
from remind.nn.imputation import GroupEmbeddings, ModalityEmbeddings, Start
from remind.nn.tokens import lay_out, pack
from remind.types import Encoded, Fused, Layout, Tokens

Imputation = Literal["group", "modality", "none"]


class TokenFusion(Fusion):
    """A sample is its observed tokens, and copies of a vector in place of those of its missing modalities.

    All copies of a vector are one token that stands for them (decision 3). Or there are none at all (Table 16).
    """

    lengths: tuple[int, ...]
    imputation: nn.Module | None

    @abstractmethod
    def fuse(self, tokens: Tokens, group: Int[Tensor, " b"]) -> Fused:
        """Fuse a batch of tokens; ``group`` is -1 for a combination unseen in training."""

    def forward(self, encoded: Encoded) -> Fused:
        """Fuse a batch."""
        return self.fuse(self.tokens(encoded), encoded.group)

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
        return None if self.imputation is None else self.imputation(encoded.group, encoded.available)


def missing(kind: Imputation, start: Start, dim: int, layout: Layout) -> nn.Module | None:
    """What gives the vectors for missing modalities: one of a sample's group, one of each modality, or nothing."""
    if kind == "none":
        return None
    if kind == "modality":
        return ModalityEmbeddings(dim, len(layout.lengths), start=start)
    return GroupEmbeddings(dim, layout.masks, layout.shares, start=start)
