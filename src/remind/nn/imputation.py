"""Learned vectors in place of the tokens of missing modalities."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Start = Literal["normal", "zeros"]


class NearestGroups(nn.Module):
    """What stands in for an unseen combination: its nearest known groups, fewest modalities different."""

    masks: Tensor  # bool [g, m], availability of each group
    shares: Tensor  # float [g]

    def __init__(self, masks: Bool[Tensor, "g m"], shares: Float[Tensor, " g"]) -> None:
        super().__init__()
        self.register_buffer("masks", masks)
        self.register_buffer("shares", shares.float())

    def forward(self, available: Bool[Tensor, "b m"]) -> Float[Tensor, "b g"]:
        """The share-weighted mean over a combination's nearest groups, as weights that sum to 1."""
        different = (available[:, None, :] ^ self.masks).sum(-1)
        weight = (different == different.amin(1, keepdim=True)) * self.shares
        return weight / weight.sum(1, keepdim=True)


class GroupEmbeddings(nn.Module):
    """``B_k`` of group ``k``, REMIND's; an unseen combination gets the mean of its nearest groups'."""

    def __init__(self, dim: int, masks: Bool[Tensor, "g m"], shares: Float[Tensor, " g"], *, start: Start) -> None:
        super().__init__()
        self.vectors = nn.Parameter(_first(len(masks), dim, start))
        self.nearest = NearestGroups(masks, shares)

    def forward(self, group: Int[Tensor, " b"], available: Bool[Tensor, "b m"]) -> Float[Tensor, "b d"]:
        """The vector of each sample's group."""
        vectors = self.vectors[group.clamp_min(0)]
        unseen = torch.nonzero(group < 0).ravel()
        if not len(unseen):
            return vectors
        return vectors.index_put((unseen,), self.nearest(available[unseen]) @ self.vectors)


class SharedEmbedding(nn.Module):
    """One vector for whatever is missing, the same in every combination."""

    def __init__(self, dim: int, *, start: Start) -> None:
        super().__init__()
        self.vector = nn.Parameter(_first(1, dim, start)[0])

    def forward(self, group: Int[Tensor, " b"], available: Bool[Tensor, "b m"]) -> Float[Tensor, "b d"]:
        """The vector, for each sample."""
        return self.vector.expand(len(group), -1)


def _first(count: int, dim: int, start: Start) -> Float[Tensor, "n d"]:
    return torch.randn(count, dim) * 0.02 if start == "normal" else torch.zeros(count, dim)
