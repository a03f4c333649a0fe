"""Volumes: scans, series of slices, and videos."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from remind.reading import Unreadable, Window
from remind.reading.arrays import array_planes
from remind.reading.dicom import dicom_planes, series_planes
from remind.reading.files import guarded_pictures, kind
from remind.reading.image import page_planes, picture_planes
from remind.reading.nifti import nifti_planes
from remind.reading.planes import Planes, extremes, resample
from remind.reading.video import VIDEOS, video_planes

_BESIDE = {"DICOMDIR", "Thumbs.db"}  # what programs leave in folders; hidden files are passed over too


def read_volume(
    path: Path, *, frames: int, size: int, window: Window | None = None
) -> Float[Tensor, "3 frames size size"]:
    """A volume or a video in [0, 1], resized trilinearly; grey fills all three channels.

    A file: NPY (``[t h w]``, ``[t h w c]`` or ``[c t h w]``), NIfTI, DICOM, TIFF of many pages, MP4, MOV, AVI, MKV or
    WebM. A folder: the slices of one DICOM series, or PNG and JPEG frames in the order of their names.

    Bytes are divided by 255. Other values are shown through ``window``, else from the least to the greatest value of
    all; a constant volume is zeros. Grey DICOM frames are shown through ``window``, else each through its own.

    Raises:
        Unreadable: if it is not one sound volume.
    """
    with guarded_pictures():
        return resample(_planes(path, window), frames=frames, size=size, window=window)


def read_planes(path: Path, *, window: Window | None = None) -> range:
    """Decode every plane of a volume or a video, and keep none; the numbers of its planes.

    Raises:
        Unreadable: if one of them is not sound.
    """
    with guarded_pictures():
        planes = _planes(path, window)
        for plane in planes.read(range(planes.depth)):
            extremes(plane)
        return range(planes.depth)


def _planes(path: Path, window: Window | None) -> Planes:
    if path.is_dir():
        return _folder(path, window)
    match kind(path):
        case "npy":
            return array_planes(path)
        case "nifti":
            return nifti_planes(path, zipped=False)
        case "gzip":
            return nifti_planes(path, zipped=True)
        case "dicom":
            return dicom_planes(path, window)
        case "tiff":
            return page_planes(path)
        case container if container in VIDEOS:
            return video_planes(path, container)
    raise Unreadable("is not an NPY, NIfTI, DICOM, TIFF, MP4, MOV, AVI, MKV or WebM file")


def _folder(folder: Path, window: Window | None) -> Planes:
    files = sorted(file for file in folder.iterdir() if not file.name.startswith(".") and file.name not in _BESIDE)
    if not files:
        raise Unreadable("is an empty folder")
    if any(file.is_dir() for file in files):
        raise Unreadable("is a folder of folders; name the one that holds the slices")
    kinds = {kind(file) for file in files}
    if kinds == {"dicom"}:
        return series_planes(files, window)
    if kinds <= {"png", "jpeg"}:
        return picture_planes(folder, [file.name for file in files])
    raise Unreadable("is a folder of something else than DICOM slices, or PNG and JPEG frames")
