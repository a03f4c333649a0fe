"""Volumes and videos: a few frames of a few pixels, in Kinetics' normalisation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

from remind.modalities import Cells, Transform
from remind.modalities.files import Decode, FileReader
from remind.modalities.image import as_window, stack
from remind.modalities.spec import VolumeModality
from remind.reading import Window
from remind.reading.volume import read_planes, read_volume

MEAN, DEVIATION = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)  # Kinetics-400's


class VolumeShape(NamedTuple):
    """Frames (slices), and the size of a side."""

    frames: int
    size: int


@dataclass(frozen=True)
class VolumeTransform(Transform):
    """Decoded, windowed, resized trilinearly, standardised: ``[n, 3, frames, size, size]``."""

    frames: int
    size: int
    window: Window | None

    @classmethod
    def fit(cls, cells: Cells, settings: Mapping[str, Any]) -> "VolumeTransform":
        """Nothing is learned."""
        assert isinstance(cells.modality, VolumeModality)
        return cls(settings["frames"], settings["size"], as_window(cells.modality.window))

    @classmethod
    def opener(cls, modality: VolumeModality) -> Decode:
        """Decodes every plane."""
        return partial(read_planes, window=as_window(modality.window))

    @property
    def shape(self) -> VolumeShape:
        """Frames and size."""
        return VolumeShape(self.frames, self.size)

    def reader(self, cells: Cells) -> FileReader:
        """Reads volumes when they are asked for."""
        decode = partial(read_volume, frames=self.frames, size=self.size, window=self.window)
        shape = (3, self.frames, self.size, self.size)
        return FileReader(cells, decode, partial(stack, shape=shape, mean=MEAN, spread=DEVIATION))

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "VolumeTransform":
        """The transform ``to_json`` wrote."""
        return cls(data["frames"], data["size"], data["window"] and Window(*data["window"]))
