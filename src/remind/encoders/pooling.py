"""Fewer tokens: averages over the cells of a map, or over the tokens of a text."""

import math
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from remind.encoders import Backbone
from remind.nn.tokens import lengths_of
from remind.types import Ragged


def even_grid(tokens: int, cells: tuple[int, ...]) -> tuple[int, ...]:
    """The most even way to divide a map into ``tokens`` parts, no side of it finer than the map's cells.

    Raises:
        ValueError: if there is none.
    """
    grids = product(*(range(1, size + 1) for size in cells))
    fitting = [grid for grid in grids if math.prod(grid) == tokens]
    if not fitting:
        raise ValueError(f"a map of {' x '.join(map(str, cells))} cells cannot be pooled to {tokens} tokens")
    return min(fitting, key=sum)  # of equal products, the most even has the least sum


def adaptive_mean(tokens: Ragged, count: int) -> Float[Tensor, "n t w"]:
    """Each row pooled to ``count`` tokens over its own length, as ``AdaptiveAvgPool1d`` would without the padding."""
    length, device = lengths_of(tokens)[:, None, None], tokens.values.device
    part = torch.arange(count, device=device)[:, None]
    start, end = part * length // count, ((part + 1) * length + count - 1) // count
    place = torch.arange(tokens.values.shape[1], device=device)
    inside = (start <= place) & (place < end)
    return (inside / (end - start)).to(tokens.values) @ tokens.values


class PooledMap(Backbone):
    """One of torchvision's residual networks without its head: the last map, averaged over a grid."""

    def __init__(self, network: nn.Module, pool: nn.Module, *, width: int, tokens: int) -> None:
        super().__init__()
        self.width, self.num_tokens = width, tokens
        network.avgpool, network.fc = pool, nn.Identity()
        self.network = network

    def forward(self, inputs: Float[Tensor, "n 3 *d"]) -> Ragged:
        """Cells ``[n, tokens, width]``."""
        flat = self.network(inputs)  # torchvision flattens width and cells into one
        return Ragged(flat.unflatten(1, (self.width, self.num_tokens)).transpose(1, 2))
