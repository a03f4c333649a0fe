"""A run's weights, and what ends a run on the way."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from remind.engine.watch import Silence


class Stop(BaseException):
    """Ends what is under way where it stands, in this process."""


class StopAt(Silence):
    """A watch that ends the run after a step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, done: int) -> None:
        if done == self.at:
            raise Stop


def weights(run: Path) -> dict[str, Tensor]:
    """Those of the model it selected."""
    return load_file(run / "checkpoint" / "model" / "tensors.safetensors")
