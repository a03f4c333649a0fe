"""Videos in MP4, MOV, AVI, MKV and WebM, a frame at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from remind.reading import Unreadable
from remind.reading.files import PIXELS, judge_size
from remind.reading.planes import Planes

VIDEOS = ("mov", "matroska", "avi")  # libav's names of the containers that tell how long they are
_STRICT = {"err_detect": "explode", "max_pixels": str(PIXELS)}  # fail, where libav would make up what is damaged


def video_planes(path: Path, container: str) -> Planes:
    """The frames of a video. All are decoded once to count them, and once more up to the last that is wanted."""
    with path.open("rb") as file:
        if not _whole(file, path.stat().st_size, container):
            raise Unreadable("is truncated")
    count = sum(1 for _ in _frames(path, container))
    if not count:
        raise Unreadable("holds no pictures")

    def read(indices: Sequence[int]) -> Iterator[np.ndarray]:
        wanted = set(indices)
        for index, frame in enumerate(_frames(path, container)):
            if index in wanted:
                upright = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                yield np.moveaxis(upright, -1, 0)
            if index == max(wanted):
                return

    return Planes(count, read, (0.0, 255.0))


def _frames(path: Path, container: str) -> Iterator[av.VideoFrame]:
    """All frames of the first picture stream. libav is handed an open file, so that nothing can name it another."""
    with path.open("rb") as file, av.open(file, "r", format=container, options=_STRICT) as video:
        if not video.streams.video:
            raise Unreadable("holds no pictures")
        stream = video.streams.video[0]
        judge_size(stream.height, stream.width)
        stream.codec_context.options = _STRICT
        promised = len(stream.index_entries) if container == "mov" else stream.frames
        packets, sizes = 0, set()
        for packet in video.demux(stream):
            packets += packet.size > 0
            for frame in packet.decode():
                sizes.add((frame.width, frame.height))
                if len(sizes) > 1:
                    raise Unreadable("changes its size on the way")
                yield frame
        if packets < promised:
            raise Unreadable("is truncated")


def _whole(file: BinaryIO, length: int, container: str) -> bool:
    """Whether the outermost parts of a container lie inside its file, by the sizes that they claim."""
    place = 0
    while place + 8 <= length:
        file.seek(place)
        size = _SIZES[container](file.read(20))
        if size is None:
            return True
        place += size
    return place <= length


def _box(head: bytes) -> int | None:
    """Size of a part of an MP4 or MOV; none if it lasts to the end."""
    size = int.from_bytes(head[:4])
    return max(int.from_bytes(head[8:16]) if size == 1 else size, 8) if size else None


def _chunk(head: bytes) -> int:
    """Size of a part of an AVI, which is even."""
    size = int.from_bytes(head[4:8], "little")
    return 8 + size + size % 2


def _element(head: bytes) -> int | None:
    """Size of a part of an MKV or WebM; none if it was written live.

    Its name and its size are numbers that begin with a zero bit for each byte after the first.
    """
    name = 9 - head[0].bit_length()
    digits = 9 - head[name].bit_length()
    most = (1 << 7 * digits) - 1
    size = int.from_bytes(head[name : name + digits]) & most
    return None if size == most else name + digits + size


_SIZES = {"mov": _box, "avi": _chunk, "matroska": _element}
