"""Tokens computed elsewhere: passed through, or projected."""

from torch import nn

from remind.encoders import Encoder
from remind.modalities.embedding import EmbeddingShape
from remind.registry import Share
from remind.types import Ragged


class EmbeddingEncoder(Encoder):
    """Tokens ``[n, l, width]`` in, ``[n, l, dim]`` out, as many as there are.

    Where ``dim`` is their width they pass as they are, without a weight; otherwise through a norm, for their scale is
    anyone's, and a Linear.
    """

    def __init__(self, shape: EmbeddingShape, dim: int, *, dropout: Share = 0.0) -> None:
        super().__init__()
        self.backbone, self.frozen = None, False
        self.num_tokens = shape.tokens
        same = shape.width == dim
        self.project = nn.Identity() if same else nn.Sequential(nn.LayerNorm(shape.width), nn.Linear(shape.width, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Ragged) -> Ragged:
        """Tokens of the samples that have them."""
        return Ragged(self.dropout(self.project(inputs.values)), inputs.length)
