"""NIfTI volumes, plain or gzipped."""

import gzip
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, io_orientation

from remind.reading import Unreadable
from remind.reading.files import judge_size
from remind.reading.planes import Planes, natural_span

_LATEST_START = 2**24  # of the data; before them lie notes, which a zipped file could inflate without end


def nifti_planes(path: Path, *, zipped: bool) -> Planes:
    """The slices of a volume, in closest canonical orientation: depth to superior, rows to anterior, columns to right.

    A plain file stays on disk. A zipped one is unzipped as far as its header claims, and no further.
    """
    with gzip.open(path) if zipped else path.open("rb") as file:
        header = _header(file.read(540))
        shape, dtype, start = _shape(header), header.get_data_dtype(), header.get_data_offset()
        if dtype.kind not in "iuf":
            raise Unreadable("holds no plain numbers")
        if not header.single_vox_offset <= start <= _LATEST_START:
            raise Unreadable("claims that its data begin where they cannot")
        length = math.prod(shape) * dtype.itemsize
        if zipped:
            file.seek(start)
            content = np.frombuffer(file.read(length), np.uint8)
            more = len(content) == length and file.read(1)  # at the end, which is also where the checksum is compared
        else:
            content = np.memmap(path, mode="r")[start:]
            more = len(content) > length
    if len(content) < length:
        raise Unreadable("is truncated")
    if more:
        raise Unreadable("holds more than its header claims")
    voxels = np.ndarray(shape, dtype, content, order="F")
    slices = apply_orientation(voxels, io_orientation(header.get_best_affine())).transpose(2, 1, 0)[:, None]
    slope, offset = header.get_slope_inter()
    if (slope, offset) in ((None, None), (1, 0)):
        return Planes(len(slices), lambda indices: (slices[index] for index in indices), natural_span(dtype))

    def read(indices: Sequence[int]) -> Iterator[np.ndarray]:
        for index in indices:
            yield slices[index].astype(np.float64) * slope + offset

    return Planes(len(slices), read)


def _header(head: bytes) -> nib.Nifti1Header:
    if head[4:8] == b"n+2\0":
        return nib.Nifti2Header(head)
    if head[344:348] == b"n+1\0":
        return nib.Nifti1Header(head[:348])
    raise Unreadable("is not a NIfTI file")


def _shape(header: nib.Nifti1Header) -> tuple[int, int, int]:
    """Width, height and depth; further dimensions must be of size 1."""
    shape = tuple(map(int, header.get_data_shape()))
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise Unreadable(f"has {len(shape)} dimensions; a volume has 3 (choose one time point)")
    width, height, depth = shape[:3]
    judge_size(height, width, depth)
    return width, height, depth
