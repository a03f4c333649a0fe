"""DICOM: single images, files of many frames, and series of slices."""

import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.encaps import get_frame
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_windowing
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from remind.errors import install
from remind.reading import Unreadable, Window
from remind.reading.codestream import judge_frame, judge_jpeg
from remind.reading.files import judge_size
from remind.reading.planes import Planes

_GREY = {"MONOCHROME1", "MONOCHROME2"}
_COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}  # pydicom makes all of them RGB
_PALETTE = "PALETTE COLOR"
_INTERPRETATION = "PhotometricInterpretation"
_NEEDED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel", "PixelRepresentation")
_UNITS = ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence")
_NO_LENGTH = 0xFFFFFFFF
_VIEW = ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence")


def dicom_planes(path: Path, window: Window | None) -> Planes:
    """The frames of one file."""
    data = _open(path)
    count = int(data.get("NumberOfFrames") or 1)
    judge_size(data.Rows, data.Columns, count)
    return _planes(data, [_look(data, index) for index in range(count)], window, lambda index: (data, index))


def series_planes(paths: Sequence[Path], window: Window | None) -> Planes:
    """The slices of one series, a file each, in their order along the normal of the slices.

    Without positions, in the order of their instance numbers.
    """
    headers = [_open(path, pixels=False) for path in paths]
    if len({header.get("SeriesInstanceUID") for header in headers}) > 1:
        raise Unreadable("holds slices of several series; a volume is one")
    if any(int(header.get("NumberOfFrames") or 1) > 1 for header in headers):
        raise Unreadable("holds several files, one of them of many frames; name that file instead")
    if len({tuple(header[keyword].value for keyword in (*_NEEDED, _INTERPRETATION)) for header in headers}) > 1:
        raise Unreadable("holds slices of different sizes or kinds")
    judge_size(headers[0].Rows, headers[0].Columns, len(headers))
    ordered = [paths[index] for index in _order(headers)]
    looks = [_look(header, 0) for header in headers]
    return _planes(headers[0], looks, window, lambda index: (_open(ordered[index]), 0))


def _open(path: Path, *, pixels: bool = True) -> Dataset:
    """A data set whose pixels pydicom can decode; mapped, so that no length it claims asks for memory."""
    syntax = read_file_meta_info(path).get("TransferSyntaxUID", UID(""))
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is None or syntax == DeflatedExplicitVRLittleEndian:  # which can inflate to any size
        raise Unreadable(f"is of a transfer syntax that is not read ({_name(syntax)})")
    if not decoder.is_available:
        raise Unreadable(f"is of a transfer syntax that needs a decoder ({_name(syntax)}); {install('dicom')}")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        data = dcmread(cast(BinaryIO, content), stop_before_pixels=not pixels)
    if any(data.get(keyword) is None for keyword in _NEEDED):
        raise Unreadable("holds no image")
    if data.get(_INTERPRETATION) not in {*_GREY, *_COLOUR, _PALETTE}:
        raise Unreadable("is of a photometric interpretation that is not read")
    if pixels:
        _judge_length(data.get_item("PixelData"), encapsulated=syntax.is_encapsulated)
    return data


def _judge_length(stored: object, *, encapsulated: bool) -> None:
    """Pixels must be as long as they claim; compressed ones, which name no length, have their end."""
    if not isinstance(stored, RawDataElement) or stored.value is None:
        raise Unreadable("holds no pixel data, or is truncated before it")
    if stored.length != (_NO_LENGTH if encapsulated else len(stored.value)):
        raise Unreadable("is truncated")


def _name(syntax: UID) -> str:
    return syntax.name if syntax.is_transfer_syntax else "an unknown one"


def _order(headers: Sequence[Dataset]) -> list[int]:
    if all(header.get("ImagePositionPatient") and header.get("ImageOrientationPatient") for header in headers):
        axes = np.array([header.ImageOrientationPatient for header in headers], dtype=float)
        if not np.allclose(axes, axes[0], atol=1e-3):
            raise Unreadable("holds slices of different orientations")
        normal = np.cross(axes[0, :3], axes[0, 3:])
        place = np.array([header.ImagePositionPatient for header in headers], dtype=float) @ normal
    elif all(header.get("InstanceNumber") is not None for header in headers):
        place = np.array([header.InstanceNumber for header in headers], dtype=float)
    else:
        raise Unreadable("holds slices that name neither their position nor their number")
    if len(np.unique(place.round(3))) < len(place):
        raise Unreadable("holds several slices of one place")
    return np.argsort(place).tolist()


def _look(data: Dataset, index: int) -> Dataset:
    """What makes units and shades of one frame's values: named by the file, by all of its frames, or by that frame."""
    groups = [data]
    for sequence, place in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", index)):
        for group in data.get(sequence, [])[place : place + 1]:
            for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                groups += group.get(macro, [])[:1]
    look = Dataset()
    look.file_meta = data.file_meta
    for group in groups:
        for keyword in (*_UNITS, *_VIEW):
            if group.get(keyword) not in (None, "", []):
                look[keyword] = group[keyword]
    if (look.get("RescaleSlope"), look.get("RescaleIntercept")) == (1, 0):
        del look.RescaleSlope, look.RescaleIntercept
    return look


def _planes(
    data: Dataset, looks: Sequence[Dataset], window: Window | None, find: Callable[[int], tuple[Dataset, int]]
) -> Planes:
    """``find`` gives the file in which a plane lies, and its number there."""
    photometric, bits = data.PhotometricInterpretation, data.BitsStored
    viewed = window is None and all(map(_has_view, looks))
    if photometric == _PALETTE:
        span = (0.0, 2.0 ** data.RedPaletteColorLookupTableDescriptor[2] - 1)
    elif photometric in _COLOUR:
        span = (0.0, 2.0**bits - 1)
    elif viewed:
        span = (0.0, 1.0)
    else:
        converted = any(keyword in look for look in looks for keyword in _UNITS)
        plain = bits == 8 and not data.PixelRepresentation and not converted and window is None
        span = (0.0, 255.0) if plain else None

    def read(indices: Sequence[int]) -> Iterator[np.ndarray]:
        for index in indices:
            yield _plane(*find(index), viewed=viewed)

    return Planes(len(looks), read, span, inverted=photometric == "MONOCHROME1")


def _has_view(look: Dataset) -> bool:
    return ("WindowCenter" in look and "WindowWidth" in look) or "VOILUTSequence" in look


def _plane(data: Dataset, index: int, *, viewed: bool) -> np.ndarray:
    """One frame ``[c h w]``: colours, or grey values in their units, or as ``viewed``, which is in [0, 1]."""
    syntax = data.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and syntax != RLELossless:
        count = int(data.get("NumberOfFrames") or 1)
        stream = get_frame(data.PixelData, index, number_of_frames=count)
        judge_frame(stream, data.Rows, data.Columns)
        if syntax == JPEGBaseline8Bit:
            judge_jpeg(stream)
    try:
        frame = pixel_array(data, index=index)
    except RuntimeError:  # no plugin that is installed could
        hint = "" if "pylibjpeg" in get_decoder(syntax).available_plugins else f"; {install('dicom')}"
        raise Unreadable(f"cannot be decoded as {_name(syntax)}{hint}") from None
    if data.PhotometricInterpretation == _PALETTE:
        frame = apply_color_lut(frame, data)[..., :3]
    if frame.ndim == 3:
        return np.moveaxis(frame, -1, 0)
    look = _look(data, index)
    values = apply_modality_lut(frame, look)
    return (_view(values, look) if viewed else values)[None]


def _view(values: np.ndarray, look: Dataset) -> np.ndarray:
    """Grey values through the first window of the file, or its first table where it has no window, to [0, 1]."""
    if "WindowCenter" not in look or "WindowWidth" not in look:
        table = look.VOILUTSequence[0]
        count, first, bits = table.LUTDescriptor
        entries = np.frombuffer(table.LUTData, "<u2") if table["LUTData"].VR == "OW" else np.asarray(table.LUTData)
        if len(entries) != (count or 2**16):
            raise Unreadable("holds a table of shades that is too short or too long")
        return entries[(values - float(first)).clip(0, len(entries) - 1).astype(int)] / (2.0**bits - 1)
    window = Dataset()
    for keyword in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
        if keyword in look:
            window[keyword] = look[keyword]
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 1, 0  # 0 to 1
    try:
        return apply_windowing(values, window)
    except ValueError:
        raise Unreadable("names a window that DICOM does not allow; give the modality one") from None
