"""Encoders: one modality's inputs to tokens of width ``dim``. One file each, listed here by kind."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from remind.nn.tokens import lengths_of
from remind.registry import Registry
from remind.types import Ragged

AT_ONCE = {"cpu": 1}  # inputs a frozen backbone sees at once, by device
ELSEWHERE = 8


class Backbone(nn.Module, ABC):
    """The costly part of an encoder. Once frozen it need run once an input: this is what the feature store keeps."""

    width: int
    num_tokens: int  # the most an input gives

    @abstractmethod
    def forward(self, inputs: Any) -> Ragged:
        """Features ``[n, l, width]`` of the samples that have the modality."""


class Encoder(nn.Module, ABC):
    """Built as ``X(shape, dim, *, hyperparameters)``, ``shape`` being what the data fixes.

    An encoder with a backbone takes inputs, or the features that its backbone made of them.
    """

    num_tokens: int  # the most an input gives, and what a missing one counts for
    backbone: Backbone | None
    frozen: bool  # whether the backbone never learns

    @abstractmethod
    def forward(self, inputs: Any) -> Ragged:
        """Tokens ``[n, l, dim]`` of the samples that have the modality."""

    def learn(self, wanted: bool) -> None:
        """Let it learn, or not; a frozen backbone never does."""
        self.requires_grad_(wanted)
        if self.backbone is not None and self.frozen:
            self.backbone.requires_grad_(False)

    def prepare(self) -> None:
        """Before training steps: a backbone that does not learn gives the same each time; its tokens may be dropped.

        Batch norms keep their statistics: a batch holds the few samples that have the modality, and what one of them
        gives must depend neither on the others nor on whether we train.
        """
        self.train()
        if self.backbone is not None and not any(weight.requires_grad for weight in self.backbone.parameters()):
            self.backbone.eval()
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def features(backbone: Backbone, inputs: Any) -> Ragged:
    """What a backbone makes of inputs; features are handed through.

    Where the backbone does not learn, a CPU sees one input at a time: what a sample gives then depends on no other
    sample of its batch, to the last bit, and can be computed once.
    """
    if isinstance(inputs, Ragged):
        return inputs
    parts = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    count, device = len(parts[0]), parts[0].device
    if not count:
        return Ragged(torch.zeros(0, backbone.num_tokens, backbone.width, device=device))
    if learns(backbone):
        return backbone(inputs)
    with torch.no_grad():
        chunks = zip(*(part.split(AT_ONCE.get(device.type, ELSEWHERE)) for part in parts), strict=True)
        return join([backbone(chunk[0] if isinstance(inputs, Tensor) else type(inputs)(*chunk)) for chunk in chunks])


def learns(backbone: Backbone) -> bool:
    """Whether a gradient is wanted of it here and now."""
    return torch.is_grad_enabled() and any(parameter.requires_grad for parameter in backbone.parameters())


def join(pieces: list[Ragged]) -> Ragged:
    """Pieces one below the other, padded to the longest."""
    if all(piece.length is None for piece in pieces):
        return Ragged(torch.cat([piece.values for piece in pieces]))
    longest = max(piece.values.shape[1] for piece in pieces)
    padded = [nn.functional.pad(piece.values, (0, 0, 0, longest - piece.values.shape[1])) for piece in pieces]
    return Ragged(torch.cat(padded), torch.cat([lengths_of(piece) for piece in pieces]))


ENCODERS = Registry(
    "encoder",
    {
        "tabular": "remind.encoders.tabular:TabularEncoder",
        "text": "remind.encoders.text:TextEncoder",
        "image": "remind.encoders.image:ImageEncoder",
        "volume": "remind.encoders.volume:VolumeEncoder",
        "sequence": "remind.encoders.sequence:SequenceEncoder",
        "embedding": "remind.encoders.embedding:EmbeddingEncoder",
    },
)
