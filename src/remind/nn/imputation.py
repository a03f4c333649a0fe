"""Learned vectors in place of the tokens of missing modalities."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remind.types import Layout

Start = Literal["normal", "zeros"]


class NearestGroups(nn.Module):
    """What stands in for a combination without parameters: the nearest groups that have, by modalities that differ."""

    masks: Tensor  # bool [g, m], availability of each group
    shares: Tensor  # float [g]

    def __init__(self, masks: Bool[Tensor, "g m"], counts: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("masks", masks)
        self.register_buffer("shares", (torch.tensor(counts, dtype=torch.float64) / sum(counts)).float())

    def forward(self, available: Bool[Tensor, "b m"]) -> Float[Tensor, "b g"]:
        """The share-weighted mean over a combination's nearest groups, as weights that sum to 1."""
        return self._nearest(self._different(available)[:, :, None])[:, :, 0]

    def without(self, available: Bool[Tensor, "b m"]) -> Float[Tensor, "b g m"]:
        """The same for every modality that the combination lacks, over the groups that lack it too, if there are any.

        Those that have it know nothing of its absence.
        """
        farther = available.shape[1] * self.masks  # than any group that lacks it
        return self._nearest(self._different(available)[:, :, None] + farther)

    def _different(self, available: Bool[Tensor, "b m"]) -> Int[Tensor, "b g"]:
        return (available[:, None, :] ^ self.masks).sum(-1)

    def _nearest(self, distance: Int[Tensor, "b g k"]) -> Float[Tensor, "b g k"]:
        weight = (distance == distance.amin(1, keepdim=True)) * self.shares[:, None]
        return weight / weight.sum(1, keepdim=True)


class GroupEmbeddings(nn.Module):
    """``B_k`` of group ``k``, REMIND's; a combination that has none (group -1) gets the mean of its nearest groups'.

    The vectors of groups that were ``added`` to a trained model stand behind the others, and stand in for nobody.
    """

    def __init__(
        self, dim: int, masks: Bool[Tensor, "g m"], counts: Sequence[int], *, start: Start, added: int = 0
    ) -> None:
        super().__init__()
        self.vectors = nn.Parameter(_first(len(masks) + added, dim, start))
        self.nearest = NearestGroups(masks, counts)

    def forward(self, group: Int[Tensor, " b"], available: Bool[Tensor, "b m"]) -> Float[Tensor, "b 1 d"]:
        """The vector of each sample's group, for all of its missing modalities."""
        vectors = self.vectors[group.clamp_min(0)]
        unseen = torch.nonzero(group < 0).ravel()
        if len(unseen):
            mean = self.nearest(available[unseen]) @ self.vectors[: len(self.nearest.masks)]
            vectors = vectors.index_put((unseen,), mean.to(vectors))  # autocast may have made it another type
        return vectors[:, None]


class ModalityEmbeddings(nn.Module):
    """A vector for each modality where it is missing, the same in every combination."""

    def __init__(self, dim: int, modalities: int, *, start: Start) -> None:
        super().__init__()
        self.vectors = nn.Parameter(_first(modalities, dim, start))

    def forward(self, group: Int[Tensor, " b"], available: Bool[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
        """All of them, for each sample."""
        return self.vectors.expand(len(group), -1, -1)


class MissingBank(nn.Module):
    """Flex-MoE's missing-modality bank ``W``: a block of tokens for each group and modality, used where it lacks it.

    Drawn from N(0, 1) as in the official code; our encoders' tokens are of that scale. There, a combination unseen in
    training has a block that never learned; ours takes, for each modality, the mean of its nearest groups' blocks.
    """

    place: Tensor  # int [t], the modality of each place

    def __init__(self, dim: int, layout: Layout) -> None:
        super().__init__()
        groups, modalities = layout.masks.shape
        self.blocks = nn.Parameter(torch.randn(groups, sum(layout.lengths), dim))
        self.nearest = NearestGroups(layout.masks, layout.counts)
        place = torch.arange(modalities).repeat_interleave(torch.tensor(layout.lengths))
        self.register_buffer("place", place, persistent=False)

    def forward(self, group: Int[Tensor, " b"], available: Bool[Tensor, "b m"]) -> Float[Tensor, "b t d"]:
        """What fills every place of each sample, were its modality missing."""
        blocks = self.blocks[group.clamp_min(0)]
        unseen = torch.nonzero(group < 0).ravel()
        if not len(unseen):
            return blocks
        weight = self.nearest.without(available[unseen])[:, :, self.place]
        mean = torch.einsum("bgt,gtd->btd", weight, self.blocks)
        return blocks.index_put((unseen,), mean.to(blocks))  # autocast may have made it another type


def _first(count: int, dim: int, start: Start) -> Float[Tensor, "n d"]:
    return torch.randn(count, dim) * 0.02 if start == "normal" else torch.zeros(count, dim)
