"""What most encoders are: a backbone, and a projection of what it makes."""

from typing import Any

from torch import nn

from remind.encoders import Backbone, Encoder, features
from remind.types import Ragged

PAPER_WIDTH = 512


class ProjectedEncoder(Encoder):
    """Inputs through the backbone, or its features of them, to width ``dim``."""

    def __init__(self, backbone: Backbone, project: nn.Module, *, frozen: bool = False) -> None:
        super().__init__()
        self.num_tokens, self.frozen = backbone.num_tokens, frozen
        self.backbone = backbone.requires_grad_(not frozen)
        self.project = project

    def forward(self, inputs: Any) -> Ragged:
        """Tokens ``[n, l, dim]``."""
        assert self.backbone is not None
        found = features(self.backbone, inputs)
        return Ragged(self.project(found.values), found.length)


def straight(width: int, dim: int) -> nn.Module:
    """One Linear, where it is needed."""
    return nn.Identity() if width == dim else nn.Linear(width, dim)


def narrowed(width: int, dim: int) -> nn.Module:
    """The paper's Linear to 512, Kaiming-initialised, and a second one where ``dim`` is another."""
    first = nn.Linear(width, PAPER_WIDTH)
    nn.init.kaiming_normal_(first.weight)
    nn.init.zeros_(first.bias)
    return first if dim == PAPER_WIDTH else nn.Sequential(first, nn.Linear(PAPER_WIDTH, dim))
