"""Tables: the paper's patch embedding, for numbers, flags of missing cells, and categories."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from remind.encoders import Encoder
from remind.modalities.tabular import TabularInput, TabularShape
from remind.registry import Positive, Share
from remind.types import Ragged


class TabularEncoder(Encoder):
    """Columns in, ``[n, l, d]`` out: the row of features is cut into ``l`` patches, each projected by its own weights.

    The paper's 64 values become 16 patches of 4, then 128 wide, with dropout 0.25. Ours also holds, for each number,
    whether the cell was filled, and an embedding of each category; columns that are never together in meaning share
    no projection.
    """

    def __init__(
        self,
        shape: TabularShape,
        dim: int,
        *,
        tokens: Positive = 16,
        category_dim: Positive = 4,
        dropout: Share = 0.25,
    ) -> None:
        super().__init__()
        self.backbone, self.frozen = None, False
        self.categories = nn.ModuleList(nn.Embedding(size, category_dim) for size in shape.categories)
        features = 2 * shape.numbers + category_dim * len(shape.categories)
        self.patch = math.ceil(features / min(tokens, features))
        self.num_tokens = math.ceil(features / self.patch)  # none without a feature
        self.weight = nn.Parameter(torch.randn(self.num_tokens, self.patch, dim) / math.sqrt(self.patch))
        self.bias = nn.Parameter(torch.randn(self.num_tokens, dim) * 0.02)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: TabularInput) -> Ragged:
        """Tokens ``[n, l, d]`` of the samples that have the table."""
        flags = (~inputs.observed).to(inputs.numbers)
        interleaved = torch.stack([inputs.numbers, flags], dim=-1).flatten(1)
        embedded = [table(codes) for table, codes in zip(self.categories, inputs.codes.unbind(1), strict=True)]
        features = torch.cat([interleaved, *embedded], dim=1)
        features = F.pad(features, (0, self.num_tokens * self.patch - features.shape[1]))
        patches = features.unflatten(1, (self.num_tokens, self.patch))
        return Ragged(self.dropout(torch.einsum("nlp,lpd->nld", patches, self.weight) + self.bias))
