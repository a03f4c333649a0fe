"""Pictures: PNG, JPEG, TIFF and DICOM."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor
from torch.nn import functional as F

from remind.reading import Unreadable, Window
from remind.reading.codestream import judge_jpeg
from remind.reading.dicom import dicom_planes
from remind.reading.files import guarded_pictures, judge_size, kind
from remind.reading.planes import Planes, Read, scaler

PICTURES = {"png": PngImageFile, "jpeg": JpegImageFile, "tiff": TiffImageFile}
_DEEP = {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}  # Pillow's grey modes of more than 8 bits
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339  # tags of TIFF


def read_image(path: Path, *, size: int, window: Window | None = None) -> Float[Tensor, "3 size size"]:
    """One picture in [0, 1], resized to a square (bilinear, antialiased); grey fills all three channels.

    8 bits are divided by 255. More bits, and decimals, are shown through ``window``, else from the picture's least to
    its greatest value; a constant picture is zeros. What is transparent is black, and colours of 16 bits are read as
    of 8. A grey DICOM file is shown through ``window``, else through its own.

    Raises:
        Unreadable: if it is not one sound picture.
    """
    with guarded_pictures():
        found = kind(path)
        if found == "dicom":
            planes = dicom_planes(path, window)
        elif found in PICTURES:
            planes = page_planes(path)
        else:
            raise Unreadable("is not a PNG, JPEG, TIFF or DICOM file")
        if planes.depth > 1:
            raise Unreadable(f"holds {planes.depth} pages; an image has one (use kind: volume)")
        (plane,) = planes.read([0])
        shown = scaler(planes, window)(plane)
        small = F.interpolate(shown[None], (size, size), mode="bilinear", align_corners=False, antialias=True)[0]
        return small.clamp(0, 1).expand(3, size, size).contiguous()


def page_planes(path: Path) -> Planes:
    """The pages of one picture file."""
    with _opened(path) as image:
        looks = [_look(image, page) for page in range(getattr(image, "n_frames", 1))]
    return _planes(looks, lambda pages: _read_pages(path, pages))


def picture_planes(folder: Path, names: Sequence[str]) -> Planes:
    """The pictures of a folder, in the order in which people count: ``f2`` before ``f10``."""
    parts = re.compile(r"(\D*)(\d*)")
    ordered = sorted(names, key=lambda name: ([(text, int(n or -1)) for text, n in parts.findall(name)], name))
    looks = []
    for name in ordered:
        with _opened(folder / name) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise Unreadable("holds a picture of several pages")
            looks.append(_look(image, 0))

    def read(indices: Sequence[int]) -> Iterator[np.ndarray]:
        for index in indices:
            yield from _read_pages(folder / ordered[index], [0])

    return _planes(looks, read)


class _Look(NamedTuple):
    """What a header says of a page."""

    width: int
    height: int
    depth: str  # "bytes", or the deep mode
    inverted: bool


def _look(image: ImageFile.ImageFile, page: int) -> _Look:
    image.seek(page)
    deep = image.mode in _DEEP
    low_is_bright = deep and isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0
    look = _Look(*image.size, image.mode if deep else "bytes", low_is_bright)
    judge_size(look.height, look.width)
    return look


def _planes(looks: list[_Look], read: Read) -> Planes:
    if len(set(looks)) > 1:
        raise Unreadable("holds pictures of different sizes or kinds")
    judge_size(looks[0].height, looks[0].width, len(looks))
    return Planes(len(looks), read, (0.0, 255.0) if looks[0].depth == "bytes" else None, looks[0].inverted)


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """A picture whose header has been read."""
    with path.open("rb") as file:
        yield PICTURES[kind(path)](file)


def _read_pages(path: Path, pages: Sequence[int]) -> Iterator[np.ndarray]:
    _judge(path)
    with _opened(path) as image:
        for page in pages:
            image.seek(page)
            yield _pixels(image)


def _judge(path: Path) -> None:
    """What Pillow does not look for: false checksums in a PNG, and a JPEG that ends early."""
    if kind(path) == "png":
        with path.open("rb") as file:
            PngImageFile(file).verify()
    elif kind(path) == "jpeg":
        judge_jpeg(path.read_bytes())


@contextmanager
def _muted() -> Iterator[None]:
    """Discards what C libraries print as errors; libtiff cannot be kept from it otherwise."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _pixels(image: ImageFile.ImageFile) -> np.ndarray:
    """One page, upright, ``[c h w]``."""
    unsigned = isinstance(image, TiffImageFile) and image.tag_v2.get(_SAMPLE_FORMAT, (1,)) == (1,)
    with _muted() if isinstance(image, TiffImageFile) else nullcontext():
        image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in _DEEP:
        values = np.asarray(image)[None]
        return values.view(np.uint32) if unsigned and image.mode == "I" else values
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        colours = Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    elif image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[None]
    else:
        colours = image.convert("RGB")
    return np.moveaxis(np.asarray(colours), -1, 0)
