"""A running mean of the weights: what is validated, selected and saved, in place of the last step's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a model's parameters (Polyak averaging); ``decay=0`` follows them exactly."""

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.parameters = dict(model.named_parameters())
        self.decay = decay
        self.restart()

    def restart(self) -> None:
        """Begin again at the model's present weights."""
        self.mean = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """After an optimiser step."""
        for name, parameter in self.parameters.items():
            self.mean[name].lerp_(parameter, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the mean weights inside, its own outside."""
        own = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self._write(self.mean)
        try:
            yield
        finally:
            self._write(own)

    def load_state_dict(self, mean: dict[str, Tensor]) -> None:
        """Put back a saved ``mean``."""
        for name, tensor in mean.items():
            self.mean[name].copy_(tensor)

    @torch.no_grad()
    def _write(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])
