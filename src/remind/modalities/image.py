"""Images: squares in ImageNet's normalisation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from remind.modalities import Cells, Transform
from remind.modalities.files import Decode, FileReader
from remind.modalities.spec import ImageModality, WindowSpec
from remind.reading import Window
from remind.reading.image import read_image

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


@dataclass(frozen=True)
class ImageTransform(Transform):
    """Decoded, windowed, resized to ``size``, standardised: ``[n, 3, size, size]``."""

    size: int
    window: Window | None

    @classmethod
    def fit(cls, cells: Cells, settings: Mapping[str, Any]) -> "ImageTransform":
        """Nothing is learned."""
        assert isinstance(cells.modality, ImageModality)
        return cls(settings["size"], as_window(cells.modality.window))

    @classmethod
    def opener(cls, modality: ImageModality) -> Decode:
        """Decodes the whole image."""
        return partial(read_image, size=1, window=as_window(modality.window))

    @property
    def shape(self) -> int:
        """The size of a side."""
        return self.size

    def reader(self, cells: Cells) -> FileReader:
        """Reads images when they are asked for."""
        decode = partial(read_image, size=self.size, window=self.window)
        return FileReader(cells, decode, partial(stack, shape=(3, self.size, self.size), mean=MEAN, spread=DEVIATION))

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ImageTransform":
        """The transform ``to_json`` wrote."""
        return cls(data["size"], data["window"] and Window(*data["window"]))


def as_window(spec: WindowSpec | None) -> Window | None:
    """The window of a spec."""
    return None if spec is None else Window(spec.center, spec.width)


def stack(
    arrays: list[Float[Tensor, "3 *d"]], *, shape: tuple[int, ...], mean: tuple[float, ...], spread: tuple[float, ...]
) -> Float[Tensor, "n 3 *d"]:
    """Arrays in [0, 1], standardised by channel; of no arrays, an empty stack of their shape."""
    values = torch.stack(arrays) if arrays else torch.zeros(0, *shape)
    channels = (3, *[1] * (len(shape) - 1))
    return (values - torch.tensor(mean).view(channels)) / torch.tensor(spread).view(channels)
