"""NumPy files: embeddings and volumes."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.lib import format as npy
from torch import Tensor

from remind.reading import Unreadable
from remind.reading.files import PIXELS, guarded, judge_size, kind
from remind.reading.planes import Planes, natural_span

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}  # the third is for other things


def read_embedding(path: Path) -> Float[Tensor, "l w"]:
    """A vector, or one a step: ``[w]`` or ``[l, w]`` numbers in a ``.npy`` file. No step at all is no error.

    Raises:
        Unreadable: if it is not a sound array of numbers, all of them finite.
    """
    with guarded():
        if kind(path) != "npy":
            raise Unreadable("is not an NPY file")
        values = _mapped(path, "iuf")
        if values.ndim not in (1, 2):
            raise Unreadable(f"has {values.ndim} dimensions; an embedding has 1 or 2")
        if values.shape[-1] == 0:
            raise Unreadable("holds vectors of width 0")
        if values.size > PIXELS:
            raise Unreadable(f"holds {values.size} numbers; at most 2^28 are read")
        vectors = torch.from_numpy(np.atleast_2d(values).astype(np.float32))
        if not vectors.isfinite().all():
            raise Unreadable("holds values that are not finite")
        return vectors


def array_planes(path: Path) -> Planes:
    """A volume ``[t h w]``, ``[t h w c]`` or ``[c t h w]``, ``c`` of 1 or 3."""
    values = _mapped(path, "biuf")
    if values.ndim == 4 and values.shape[-1] in (1, 3):
        values = values.transpose(0, 3, 1, 2)
    elif values.ndim == 4 and values.shape[0] in (1, 3):
        values = values.transpose(1, 0, 2, 3)
    elif values.ndim == 3:
        values = values[:, None]
    else:
        raise Unreadable(f"is of shape {list(values.shape)}; a volume has 3 dimensions, or a fourth of 1 or 3 channels")
    count, _, height, width = values.shape
    judge_size(height, width, count)
    return Planes(count, lambda indices: (values[index] for index in indices), natural_span(values.dtype))


def _mapped(path: Path, kinds: str) -> np.ndarray:
    """An array left on disk; its header is judged before it is mapped, and objects are never loaded."""
    with path.open("rb") as file:
        if (version := npy.read_magic(file)) not in _HEADERS:
            raise Unreadable("is of a version of NPY that is not read")
        shape, by_column, dtype = _HEADERS[version](file)
        start = file.tell()
    if dtype.kind not in kinds:
        raise Unreadable("holds no plain numbers")
    end = start + math.prod(shape) * dtype.itemsize
    if path.stat().st_size < end:
        raise Unreadable("is truncated, or claims too large a shape")
    if path.stat().st_size > end:
        raise Unreadable("holds more than its header claims")
    return np.memmap(path, dtype, "r", start, shape, "F" if by_column else "C")
