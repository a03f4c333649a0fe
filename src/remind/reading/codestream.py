"""Compressed pictures whose decoders would make up what is missing: found out before they are decoded."""

import contextlib
import struct

import av
from av.error import InvalidDataError, PatchWelcomeError

from remind.reading import Unreadable

_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG's and JPEG-LS's
_J2K = b"\xff\x4f\xff\x51"
_END = b"\xff\xd9"
_DENSEST = 8 * 64  # pixels a byte: JPEG spends at least a bit on each block of 8 x 8


def judge_jpeg(stream: bytes) -> None:
    """Refuse a JPEG that ends before its last row, or is damaged on the way, which libjpeg covers up in silence.

    Raises:
        Unreadable: if it does.
    """
    rows, columns = picture_size(stream)
    if rows * columns > _DENSEST * len(stream):
        raise Unreadable(f"claims {columns} x {rows} pixels, more than its bytes can hold")
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    try:
        with contextlib.suppress(PatchWelcomeError):  # a kind of JPEG that libav leaves to others
            for packet in (av.Packet(stream), None):
                decoder.decode(packet)
    except InvalidDataError:
        raise Unreadable("is truncated or damaged") from None


def judge_frame(stream: bytes, rows: int, columns: int) -> None:
    """Refuse a JPEG, JPEG-LS or JPEG 2000 frame of a DICOM file that has no end, or another size than the file says.

    Raises:
        Unreadable: if it is so.
    """
    if not stream.rstrip(b"\0").endswith(_END):
        raise Unreadable("holds a truncated picture")
    if picture_size(stream) != (rows, columns):
        raise Unreadable("holds a picture of another size than its header claims")


def picture_size(stream: bytes) -> tuple[int, int]:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 claims."""
    if not stream.startswith(b"\xff\xd8"):
        start = stream.index(_J2K) + 8
        right, bottom, left, top = struct.unpack(">4I", stream[start : start + 16])
        return bottom - top, right - left
    place = 2
    while stream[place + 1] not in _FRAME_HEADERS:
        place += 2 + int.from_bytes(stream[place + 2 : place + 4]) if stream[place + 1] != 0xFF else 1
    return struct.unpack(">2H", stream[place + 5 : place + 9])
