"""Compressed frames inside DICOM: whole, and of the size that the header around them says."""

import struct

from remind.reading import Unreadable

_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG's and JPEG-LS's
_J2K = b"\xff\x4f\xff\x51"
_END = b"\xff\xd9"


def judge_codestream(stream: bytes, rows: int, columns: int) -> None:
    """Refuse a JPEG, JPEG-LS or JPEG 2000 stream that has no end or another size: some decoders would not.

    Raises:
        Unreadable: if it is so.
    """
    if not stream.rstrip(b"\0").endswith(_END):
        raise Unreadable("holds a truncated picture")
    if _size(stream) != (rows, columns):
        raise Unreadable("holds a picture of another size than its header claims")


def _size(stream: bytes) -> tuple[int, int] | None:
    if not stream.startswith(b"\xff\xd8"):
        start = stream.index(_J2K) + 8
        right, bottom, left, top = struct.unpack(">4I", stream[start : start + 16])
        return bottom - top, right - left
    place = 2
    while stream[place + 1] not in _FRAME_HEADERS:
        place += 2 + int.from_bytes(stream[place + 2 : place + 4])
    return struct.unpack(">2H", stream[place + 5 : place + 9])
