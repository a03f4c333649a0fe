"""A volume as planes that are read one at a time, so that only those that count are ever in memory."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from remind.reading import Unreadable, Window

Read = Callable[[Sequence[int]], Iterator[np.ndarray]]


class Planes(NamedTuple):
    """``depth`` planes along depth or time; ``read`` gives those of ascending indices, as stored, ``[c h w]``.

    ``c`` is 1 or 3. ``span`` holds the values that become 0 and 1, where the file itself settles them; ``inverted``
    planes are bright where they are low.
    """

    depth: int
    read: Read
    span: tuple[float, float] | None = None
    inverted: bool = False


def natural_span(dtype: np.dtype) -> tuple[float, float] | None:
    """The values of black and white that go without saying: of bytes and of booleans."""
    return {"uint8": (0.0, 255.0), "bool": (0.0, 1.0)}.get(dtype.name)


def scaler(planes: Planes, window: Window | None) -> Callable[[np.ndarray], Float[Tensor, "c h w"]]:
    """What takes a plane to [0, 1]: by the file's own span, else by ``window``, else from least to greatest value."""
    if planes.span is not None:
        low, high = planes.span
    elif window is not None:
        low, high = window.center - window.width / 2, window.center + window.width / 2
    else:
        lows, highs = zip(*map(extremes, planes.read(range(planes.depth))), strict=True)
        low, high = min(lows), max(highs)

    def scale(plane: np.ndarray) -> Float[Tensor, "c h w"]:
        extremes(plane)
        if high <= low:
            return torch.zeros(plane.shape)
        values = plane.astype(np.float32 if plane.dtype == np.uint8 else np.float64)
        values -= low
        values /= high - low
        shown = torch.from_numpy(values).float().clamp_(0, 1)
        return 1 - shown if planes.inverted else shown

    return scale


def extremes(plane: np.ndarray) -> tuple[float, float]:
    """The least and the greatest value of a plane, which must be finite."""
    low, high = float(plane.min()), float(plane.max())
    if not math.isfinite(high - low):  # a single value that is not finite makes it so
        raise Unreadable("holds values that are not finite")
    return low, high


def resample(planes: Planes, *, frames: int, size: int, window: Window | None) -> Float[Tensor, "3 frames size size"]:
    """Trilinear interpolation of all planes, as ``F.interpolate``'s; shows no plane but the two about each frame."""
    scale = scaler(planes, window)
    place = ((np.arange(frames) + 0.5) * planes.depth / frames - 0.5).clip(0, planes.depth - 1)
    lower, upper = np.floor(place).astype(int), np.ceil(place).astype(int)
    volume = torch.zeros(3, frames, size, size)
    wanted = np.unique([lower, upper]).tolist()
    for index, plane in zip(wanted, planes.read(wanted), strict=True):
        small = F.interpolate(scale(plane)[None], (size, size), mode="bilinear", align_corners=False)[0]
        weight = (lower == index) * (1 - (place - lower)) + (upper == index) * (place - lower)
        for frame in np.flatnonzero(weight):
            volume[:, frame] += float(weight[frame]) * small
    return volume.clamp_(0, 1)
