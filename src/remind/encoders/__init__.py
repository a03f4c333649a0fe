"""Encoders: one modality's inputs to ``num_tokens`` tokens of width ``dim``. One file each, listed here by kind."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from remind.registry import Registry


class Encoder(nn.Module, ABC):
    """Built as ``X(shape, dim, *, hyperparameters)``, ``shape`` being what the data fixes."""

    num_tokens: int

    @abstractmethod
    def forward(self, inputs: Any) -> Float[Tensor, "n l d"]:
        """Tokens of the samples that have the modality."""


ENCODERS = Registry(
    "encoder",
    {
        "tabular": "remind.encoders.tabular:TabularEncoder",
        "image": "remind.encoders.image:ImageEncoder",
    },
)
