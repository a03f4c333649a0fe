"""What every reader asks of a file: is it there, what is it by its first bytes, is the size it claims allowed?"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile

from remind.reading import Unreadable

PIXELS = 2**28  # of an image, or of one plane of a volume
VOXELS = 2**31  # of a volume, as stored
_SIGNATURES = (  # where, what, of which kind; DICOM first, since its first 128 bytes may be another format's
    (128, b"DICM", "dicom"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (0, b"II+\0", "tiff"),
    (0, b"MM\0+", "tiff"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"\x1f\x8b", "gzip"),
    (344, b"n+1\0", "nifti"),
    (4, b"n+2\0\r\n\x1a\n", "nifti"),
    *((4, box, "mov") for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (8, b"AVI ", "avi"),
    (0, b"PAR1", "parquet"),
)
_CHATTY = ("PIL", "pydicom", "nibabel", "av", "libav")


def kind(path: Path) -> str:
    """What a file is by its first bytes: one of the names in ``_SIGNATURES``, else empty.

    Raises:
        Unreadable: if it is not there, is no file, or is empty.
    """
    if path.is_dir():
        raise Unreadable("is a folder, not a file")
    if not path.exists():
        raise Unreadable("is not there")
    if not path.is_file():
        raise Unreadable("is not a regular file")
    with path.open("rb") as file:
        head = file.read(352)
    if not head:
        raise Unreadable("is empty (0 bytes)")
    return next((name for start, mark, name in _SIGNATURES if head[start : start + len(mark)] == mark), "")


def judge_size(height: int, width: int, depth: int = 1) -> None:
    """Refuse a size that is nothing, or too much.

    Raises:
        Unreadable: if it is.
    """
    if min(height, width, depth) < 1:
        raise Unreadable("claims a size of 0 pixels")
    if height * width > PIXELS:
        raise Unreadable(f"claims {width} x {height} pixels; at most 2^28 are read")
    if height * width * depth > VOXELS:
        raise Unreadable(f"claims {width} x {height} x {depth} voxels; at most 2^31 are read")


@contextmanager
def guarded() -> Iterator[None]:
    """Whatever a decoder throws at a bad file is ``Unreadable``; what it quotes or warns of stays unsaid."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Unreadable:
        raise
    except PermissionError:
        raise Unreadable("may not be read (permission denied)") from None
    except MemoryError:
        raise Unreadable("needs more memory than there is") from None
    except Exception as error:
        raise Unreadable(f"cannot be decoded; it may be damaged or truncated ({type(error).__name__})") from None


@contextmanager
def guarded_pictures() -> Iterator[None]:
    """``guarded``, for the libraries that decode pictures: their logs stay unsaid, too.

    Pillow makes up nothing that a truncated file lacks, and has our limit of size, whatever else it was told.
    """
    partial, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, PIXELS
    loggers = {name: logging.getLogger(name) for name in _CHATTY}
    levels = {name: logger.level for name, logger in loggers.items()}
    try:
        for logger in loggers.values():
            logger.setLevel(logging.CRITICAL + 1)
        with guarded():
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = partial, most
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
