"""One learned vector a group, in place of the tokens of its missing modalities."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class ImputationEmbeddings(nn.Module):
    """``B_k`` of group ``k``. An unseen combination gets the share-weighted mean of its nearest known groups.

    Nearest: the fewest modalities different from it.
    """

    masks: Tensor  # bool [g, m], availability of each group
    shares: Tensor  # float [g]

    def __init__(
        self, dim: int, masks: Bool[Tensor, "g m"], shares: Float[Tensor, " g"], *, init: Literal["normal", "zeros"]
    ) -> None:
        super().__init__()
        start = torch.randn(len(masks), dim) * 0.02 if init == "normal" else torch.zeros(len(masks), dim)
        self.vectors = nn.Parameter(start)
        self.register_buffer("masks", masks)
        self.register_buffer("shares", shares.float())

    def forward(self, group: Int[Tensor, " b"], available: Bool[Tensor, "b m"]) -> Float[Tensor, "b d"]:
        """The vector of each sample's group."""
        vectors = self.vectors[group.clamp_min(0)]
        unseen = torch.nonzero(group < 0).ravel()
        if not len(unseen):
            return vectors
        different = (available[unseen, None, :] ^ self.masks).sum(-1)
        nearest = different == different.amin(1, keepdim=True)
        weight = nearest * self.shares
        mean = (weight / weight.sum(1, keepdim=True)) @ self.vectors
        return vectors.index_put((unseen,), mean)
