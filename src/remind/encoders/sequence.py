"""Irregular sequences: events as a set of (time, variable, value), read by a small transformer."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from remind.encoders import Backbone
from remind.encoders.projected import ProjectedEncoder, straight
from remind.modalities.sequence import SequenceInput, SequenceShape
from remind.registry import Positive, Share
from remind.types import Ragged


class SequenceEncoder(ProjectedEncoder):
    """Events in, ``[n, tokens, dim]`` out.

    Args:
        shape: how many variables there are.
        dim: width of the tokens.
        tokens: what a sequence, however long, becomes.
        width: width of an event inside.
        layers: of the transformer.
        heads: of its attention.
        limit: how many events of a sample are read, the last ones.
        dropout: inside the transformer.
    """

    def __init__(
        self,
        shape: SequenceShape,
        dim: int,
        *,
        tokens: Positive = 4,
        width: Positive = 64,
        layers: Positive = 2,
        heads: Positive = 4,
        limit: Positive = 512,
        dropout: Share = 0.1,
    ) -> None:
        if width % heads:
            raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")
        super().__init__(Events(shape.variables, tokens, width, layers, heads, dropout), straight(width, dim))


class Events(Backbone):
    """STraTS' embedding of events (Tipirneni & Reddy, 2022), a pre-norm transformer, and queries that attend to it.

    An event is the sum of an embedding of its variable and of two numbers, its time and its value. Their order is known
    by their times only. One learned event is put before the others, so that there is always something to attend to.
    """

    def __init__(self, variables: int, tokens: int, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.num_tokens, self.width = tokens, width
        self.variable = nn.Embedding(variables, width)
        self.time, self.value = _number(width), _number(width)
        self.start = nn.Parameter(torch.randn(1, 1, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(1, tokens, width))
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)

    def forward(self, inputs: SequenceInput) -> Ragged:
        """``tokens`` vectors of a sample, each a mean of what its events became."""
        time, variable, value = (part[:, : int(inputs.length.max())] for part in inputs[:3])
        events = self.variable(variable) + self.time(time[..., None]) + self.value(value[..., None])
        events = torch.cat([self.start.expand(len(events), -1, -1), events], dim=1)
        padding = torch.arange(events.shape[1], device=events.device) > inputs.length[:, None]
        for layer in self.layers:
            events = layer(events, src_key_padding_mask=padding)
        return Ragged(self._attend(self.norm(events), padding))

    def _attend(self, events: Float[Tensor, "n l w"], padding: Tensor) -> Float[Tensor, "n t w"]:
        queries = self.queries.expand(len(events), -1, -1)
        attended, _ = self.attention(queries, events, events, key_padding_mask=padding, need_weights=False)
        return attended


def _number(width: int) -> nn.Module:
    """STraTS' embedding of a number: one hidden layer, whose width is the root of the embedding's."""
    hidden = math.isqrt(width)
    return nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, width, bias=False))
