"""Fusions of one set of tokens, in which everything that is missing is one vector."""

from abc import abstractmethod
from typing import Literal

from jaxtyping import Int
from torch import Tensor, nn

from remind.fusions import Fusion
from remind.nn.imputation import GroupEmbeddings, SharedEmbedding, Start
from remind.nn.tokens import lay_out, pack
from remind.types import Encoded, Fused, Layout, Tokens

Imputation = Literal["group", "shared", "none"]


class TokenFusion(Fusion):
    """A sample is its observed tokens, and copies of one vector for those of its missing modalities.

    The copies are one token that stands for all of them (decision 3), or none at all (Table 16).
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
        """Observed tokens side by side, and one for all that is missing."""
        return pack(encoded, self.lengths, self._imputed(encoded))

    def broadcast(self, encoded: Encoded) -> Tokens:
        """The same, with every copy written out, so that a place means the same in all samples.

        Raises:
            ValueError: without a vector for what is missing.
        """
        if (imputed := self._imputed(encoded)) is None:
            raise ValueError("there is nothing to broadcast where imputation is 'none'")
        return lay_out(encoded, self.lengths, imputed[:, None].expand(-1, sum(self.lengths), -1))

    def _imputed(self, encoded: Encoded) -> Tensor | None:
        return None if self.imputation is None else self.imputation(encoded.group, encoded.available)


def missing(kind: Imputation, start: Start, dim: int, layout: Layout) -> nn.Module | None:
    """What gives each sample the vector for its missing modalities: a group's own, everybody's, or nothing."""
    if kind == "none":
        return None
    if kind == "shared":
        return SharedEmbedding(dim, start=start)
    return GroupEmbeddings(dim, layout.masks, layout.shares, start=start)
