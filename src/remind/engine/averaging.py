"""A running mean of the weights: what is validated, selected and saved, in place of the last step's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a model's parameters (Polyak averaging); ``decay=0`` follows them exactly."""

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.model, self.decay = model, decay
        self.mean: dict[str, Tensor] = {}

    def restart(self) -> None:
        """Begin again at the model's present weights, with those that learn now."""
        self.mean = {name: weight.detach().clone() for name, weight in self._learned().items()} if self.decay else {}

    @torch.no_grad()
    def update(self) -> None:
        """After an optimiser step."""
        if self.decay:
            for name, weight in self._learned().items():
                self.mean[name].lerp_(weight, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the mean weights inside, its own outside."""
        own = {name: weight.detach().clone() for name, weight in self._learned().items()} if self.decay else {}
        self._write(self.mean)
        try:
            yield
        finally:
            self._write(own)

    def load_state_dict(self, mean: dict[str, Tensor]) -> None:
        """Put back a saved ``mean``."""
        for name, tensor in mean.items():
            self.mean[name].copy_(tensor)

    def _learned(self) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    @torch.no_grad()
    def _write(self, weights: dict[str, Tensor]) -> None:
        learned = self._learned()
        for name, weight in weights.items():
            learned[name].copy_(weight)
