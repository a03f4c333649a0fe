"""Pictures against the values that were put into them."""

import struct

import numpy as np
import pytest
import torch
from filemaking import jpeg_size, write_dicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageFile

from remind.reading import Unreadable, Window
from remind.reading.image import read_image

ANY_PATH = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
ORIENTATION = 274
UPRIGHT = {  # what EXIF's orientations ask of the stored picture
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


def grey(size=8, dtype=np.uint8, seed=0):
    limit = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, limit, (size, size), endpoint=True, dtype=dtype)


def save(path, values, **options):
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(path, **options)
    return path


def retag(path, tag, value):
    """Change a tag of a TIFF that holds one short number."""
    content = path.read_bytes()
    start = content.index(struct.pack("<HHI", tag, 3, 1)) + 8
    path.write_bytes(content[:start] + struct.pack("<H", value) + content[start + 2 :])
    return path


def same(found, expected, **tolerance):
    """``expected``: grey ``[h w]`` or colours ``[h w 3]``."""
    expected = torch.from_numpy(np.array(expected, dtype=np.float32))
    expected = expected.expand(3, *expected.shape) if expected.ndim == 2 else expected.movedim(-1, 0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, **tolerance)


def refused(path, reason, **options):
    with pytest.raises(Unreadable, match=reason):
        read_image(path, size=8, **options)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_bytes_are_divided_by_255(tmp_path, suffix):
    values = grey()
    same(read_image(save(tmp_path / f"a.{suffix}", values), size=8), values / 255)
    same(read_image(tmp_path / f"a.{suffix}", size=8, window=Window(3, 2)), values / 255)


def test_colours_stay_in_their_order(tmp_path):
    values = np.stack([grey(seed=seed) for seed in range(3)], axis=-1)
    same(read_image(save(tmp_path / "a.png", values), size=8), values / 255)


def test_the_suffix_says_nothing(tmp_path):
    save(tmp_path / "a.png", grey()).rename(tmp_path / "a.dcm")
    same(read_image(tmp_path / "a.dcm", size=8), grey() / 255)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_is_read(tmp_path, mode):
    bright = np.kron(np.eye(2, dtype=np.uint8), np.full((4, 4), 255, dtype=np.uint8))
    image = Image.fromarray(bright).convert("RGB").convert(mode)
    suffix = "tiff" if mode in ("CMYK", "YCbCr") else "png"
    same(read_image(save(tmp_path / f"a.{suffix}", image), size=8), bright / 255)


def test_a_jpeg_is_read_as_pillow_decodes_it(tmp_path):
    smooth = np.indices((8, 8)).sum(0).astype(np.uint8) * 16
    path = save(tmp_path / "a.jpg", smooth, quality=100)
    same(read_image(path, size=8), np.asarray(Image.open(path)) / 255)
    same(read_image(path, size=8), smooth / 255, atol=0.01, rtol=0)


def test_the_transparent_is_black(tmp_path):
    values = np.full((8, 8, 4), 200, dtype=np.uint8)
    values[..., 3] = np.linspace(0, 255, 8).round()
    expected = np.repeat(values[..., :1] * (values[..., 3:] / 255) / 255, 3, axis=-1)
    same(read_image(save(tmp_path / "a.png", values), size=8), expected, atol=1 / 255, rtol=0)


def test_a_transparent_colour_of_a_palette_is_black(tmp_path):
    image = Image.fromarray((np.indices((8, 8))[1] % 2).astype(np.uint8), "L").convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    path = save(tmp_path / "a.png", image, transparency=0)
    assert read_image(path, size=8)[:, 0, :2].T.tolist() == [[0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@given(values=arrays.arrays(np.uint16, (4, 4)))
@ANY_PATH
def test_16_bits_reach_from_least_to_greatest(tmp_path, suffix, values):
    low, high = int(values.min()), int(values.max())
    expected = (values.astype(float) - low) / (high - low) if high > low else np.zeros((4, 4))
    same(read_image(save(tmp_path / f"a.{suffix}", values), size=4), expected)


@given(center=st.floats(-1e4, 1e5), width=st.floats(1e-2, 1e5))
@ANY_PATH
def test_a_window_is_linear_between_its_ends(tmp_path, center, width):
    values = grey(dtype=np.uint16)
    found = read_image(save(tmp_path / "a.png", values), size=8, window=Window(center, width))
    same(found, np.interp(values, [center - width / 2, center + width / 2], [0, 1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[-300, 5], [40, 32767]], dtype=np.int16),
        np.array([[-70000, 5], [40, 2**30]], dtype=np.int32),
        np.array([[-1.5, 0.25], [1e-3, 7]], dtype=np.float32),
    ],
)
def test_deep_tiffs(tmp_path, values):
    values = np.kron(values, np.ones((4, 4), dtype=values.dtype))
    written = values.astype(np.int32) if values.dtype == np.int16 else values
    path = save(tmp_path / "a.tiff", written)
    same(read_image(path, size=8), (values - values.min().astype(float)) / np.ptp(values.astype(float)))


def test_a_tiff_of_unsigned_32_bits_stays_unsigned(tmp_path):
    values = np.array([[0, 2**31], [2**32 - 1, 2**30]], dtype=np.uint32)
    path = retag(save(tmp_path / "a.tiff", values.view(np.int32)), 339, 1)
    same(read_image(path, size=2), values / (2**32 - 1))


def test_a_deep_tiff_whose_zero_is_white_is_inverted(tmp_path):
    values = np.array([[0, 65535], [13107, 52428]], dtype=np.uint16)
    path = retag(save(tmp_path / "a.tiff", values), 262, 0)
    same(read_image(path, size=2), 1 - values / 65535)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_unreadable(tmp_path, value):
    values = np.ones((8, 8), dtype=np.float32)
    values[3, 4] = value
    refused(save(tmp_path / "a.tiff", values), "not finite")
    refused(tmp_path / "a.tiff", "not finite", window=Window(0, 1))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg"])
def test_pictures_stand_upright(tmp_path, suffix, orientation):
    values = np.indices((8, 8)).sum(0).astype(np.uint8) * 5 + np.arange(8, dtype=np.uint8) * 9
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(tmp_path / f"a.{suffix}", values, exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    same(read_image(path, size=8), UPRIGHT[orientation](values) / 255, atol=0.01 if suffix == "jpg" else 1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(37, 21), (5, 64), (1, 1)])
def test_resizing_is_bilinear_with_antialias(tmp_path, shape):
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    values.flat[0], values.flat[-1] = 0, 1
    expected = Image.fromarray(values).resize((16, 16), Image.Resampling.BILINEAR)
    expected = np.zeros((16, 16)) if shape == (1, 1) else np.asarray(expected).clip(0, 1)
    same(read_image(save(tmp_path / "a.tiff", values), size=16), expected, atol=1e-5, rtol=0)


def test_a_file_of_several_pages_is_no_image(tmp_path):
    pages = [Image.fromarray(grey()) for _ in range(12)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    refused(tmp_path / "a.tiff", "^holds 12 pages; an image has one")
    write_dicom(tmp_path / "a.dcm", np.zeros((3, 8, 8), dtype=np.uint8), NumberOfFrames=3)
    refused(tmp_path / "a.dcm", "^holds 3 pages; an image has one")


def test_what_is_no_picture_says_so(tmp_path):
    refused(tmp_path / "a.png", "^is not there$")
    refused(tmp_path, "^is a folder, not a file$")
    (tmp_path / "a.png").touch()
    refused(tmp_path / "a.png", r"^is empty \(0 bytes\)$")
    (tmp_path / "a.png").write_bytes(b"canary" * 100)
    refused(tmp_path / "a.png", "^is not a PNG, JPEG, TIFF or DICOM file$")


def test_neither_pillows_limit_nor_its_leniency_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    for suffix in ("png", "tiff"):
        same(read_image(save(tmp_path / f"a.{suffix}", grey()), size=8), grey() / 255)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = save(tmp_path / "a.jpg", grey(64))
    path.write_bytes(path.read_bytes()[:-600])
    refused(path, "truncated")
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_flipped_bit_in_a_png_is_found(tmp_path):
    path = save(tmp_path / "a.png", grey())
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    path.write_bytes(content)
    refused(path, "damaged")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_ends_early_is_found_though_it_has_an_end(tmp_path, progressive):
    path = save(tmp_path / "a.jpg", grey(64), progressive=progressive)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    assert Image.open(path).convert("L").getpixel((0, 0)) is not None  # as Pillow sees it, a picture
    refused(path, "truncated or damaged")
    path.write_bytes(jpeg_size(content, 128, 64))
    refused(path, "truncated or damaged")
    path.write_bytes(jpeg_size(content, 10_000, 10_000))
    refused(path, "^claims 10000 x 10000 pixels, more than its bytes can hold$")


def test_a_jpeg_may_carry_notes_thumbnails_and_further_pictures(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION], exif[271] = 1, "canary" * 50
    path = save(tmp_path / "a.jpg", grey(64), exif=exif, icc_profile=bytes(100_000), comment=b"canary", quality=90)
    expected = np.asarray(Image.open(path).resize((64, 64))) / 255
    same(read_image(path, size=64), expected)
    second = save(tmp_path / "b.jpg", grey(64, seed=1)).read_bytes()
    path.write_bytes(path.read_bytes() + second + bytes(9))
    same(read_image(path, size=64), expected)


def test_two_readings_are_the_same_and_leave_the_file_alone(tmp_path):
    path = save(tmp_path / "a.png", grey(dtype=np.uint16))
    before = path.read_bytes()
    assert torch.equal(read_image(path, size=5), read_image(path, size=5))
    assert path.read_bytes() == before
