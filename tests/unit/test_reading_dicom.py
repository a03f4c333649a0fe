"""DICOM against what the standard says of each value."""

import io

import numpy as np
import pytest
import torch
from filemaking import item, write_dicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders import base
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from remind.reading import Unreadable, Window
from remind.reading.image import read_image
from remind.reading.volume import read_volume

STORED = np.random.default_rng(0).integers(0, 4096, (8, 8), dtype=np.uint16)
BYTES = (STORED // 16).astype(np.uint8)
TWELVE = {"BitsStored": 12, "HighBit": 11}


def reading(path, pixels=STORED, window=None, **tags):
    """One channel of what is read of a file; all three are the same."""
    found = read_image(write_dicom(path / "a.dcm", pixels, **tags), size=8, window=window)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    return found[0].double().numpy()


def refused(path, reason):
    with pytest.raises(Unreadable, match=reason):
        read_image(path, size=8)


def linear(values, center, width):
    """PS3.3 C.11.2.1.2.1, for outputs from 0 to 1."""
    return ((values - (center - 0.5)) / (width - 1) + 0.5).clip(0, 1)


def ends(values):
    return (values - values.min()) / np.ptp(values)


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_bytes_are_divided_by_255(tmp_path):
    close(reading(tmp_path, BYTES), BYTES / 255)
    close(reading(tmp_path, BYTES, RescaleSlope=1, RescaleIntercept=0), BYTES / 255)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_plain_syntaxes(tmp_path, syntax):
    stored = STORED.astype(">u2") if syntax == ExplicitVRBigEndian else STORED
    close(reading(tmp_path, stored, syntax=syntax), ends(STORED.astype(float)))
    close(reading(tmp_path, BYTES[:, :8], syntax=ImplicitVRLittleEndian), BYTES / 255)


def test_more_bits_reach_from_least_to_greatest(tmp_path):
    close(reading(tmp_path, **TWELVE), ends(STORED.astype(float)))
    signed = STORED.astype(np.int16) - 2048
    close(reading(tmp_path, signed), ends(signed.astype(float)))


def test_monochrome1_is_inverted(tmp_path):
    close(reading(tmp_path, BYTES, PhotometricInterpretation="MONOCHROME1"), 1 - BYTES / 255)
    close(reading(tmp_path, PhotometricInterpretation="MONOCHROME1"), 1 - ends(STORED.astype(float)))
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    close(reading(tmp_path, PhotometricInterpretation="MONOCHROME1", **window), 1 - linear(STORED, 2000, 1000))


def test_the_files_first_window_is_used(tmp_path):
    close(reading(tmp_path, WindowCenter=2000, WindowWidth=1000), linear(STORED, 2000, 1000))
    close(reading(tmp_path, WindowCenter=[900, 2000], WindowWidth=[300, 1000]), linear(STORED, 900, 300))


def test_other_windows_than_linear_ones(tmp_path):
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    exact = reading(tmp_path, VOILUTFunction="LINEAR_EXACT", **window)
    close(exact, ((STORED - 2000.0) / 1000 + 0.5).clip(0, 1))
    sigmoid = reading(tmp_path, VOILUTFunction="SIGMOID", **window)
    close(sigmoid, 1 / (1 + np.exp(-4 * (STORED - 2000.0) / 1000)))


def test_a_window_is_in_rescaled_units(tmp_path):
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1024, **TWELVE}
    units = STORED * 2.0 - 1024
    close(reading(tmp_path, WindowCenter=40, WindowWidth=400, **tags), linear(units, 40, 400))
    close(reading(tmp_path, **tags), ends(units))


def test_the_callers_window_overrides_the_files(tmp_path):
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    expected = ((STORED * 2.0 - 1024 - (100 - 250)) / 500).clip(0, 1)
    close(reading(tmp_path, window=Window(100, 500), **tags), expected)
    close(reading(tmp_path, BYTES, window=Window(100, 50)), ((BYTES - 75.0) / 50).clip(0, 1))


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_a_table_of_shades_is_used_where_there_is_no_window(tmp_path, bits, dtype):
    shades = np.random.default_rng(1).integers(0, 2**bits, 1024).astype(np.uint16)
    table = item(LUTDescriptor=[1024, 1000, bits], LUTData=shades.tobytes())
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    expected = shades[(STORED.astype(int) - 1000).clip(0, 1023)] / (2**bits - 1)
    close(reading(tmp_path, VOILUTSequence=[table]), expected)
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    close(reading(tmp_path, VOILUTSequence=[table], **window), linear(STORED, 2000, 1000))


def test_a_modality_table_is_used(tmp_path):
    units = np.random.default_rng(1).integers(0, 2**16, 4096).astype(np.uint16)
    table = item(LUTDescriptor=[4096, 0, 16], LUTData=units.tobytes(), ModalityLUTType="US")
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    close(reading(tmp_path, ModalityLUTSequence=[table], **TWELVE), ends(units[STORED].astype(float)))


def test_colours_of_a_palette(tmp_path):
    palette = np.random.default_rng(1).integers(0, 2**16, (3, 256)).astype(np.uint16)
    tags = {}
    for colour, entries in zip(("Red", "Green", "Blue"), palette, strict=True):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    path = write_dicom(tmp_path / "a.dcm", BYTES, PhotometricInterpretation="PALETTE COLOR", **tags)
    close(read_image(path, size=8).numpy(), palette[:, BYTES] / 65535)


def test_rgb_and_planes_of_rgb(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    expected = np.moveaxis(colours, -1, 0) / 255
    close(read_image(write_dicom(tmp_path / "a.dcm", colours), size=8).numpy(), expected)
    planes = np.ascontiguousarray(np.moveaxis(colours, -1, 0)).tobytes()
    path = write_dicom(tmp_path / "b.dcm", colours, PixelData=planes, PlanarConfiguration=1)
    close(read_image(path, size=8).numpy(), expected)


def test_ybr_becomes_rgb(tmp_path):
    colours = np.random.default_rng(1).integers(60, 200, (8, 8, 3), dtype=np.uint8)
    luma, blue, red = np.moveaxis(colours.astype(float), -1, 0)
    expected = np.stack(  # PS3.3 C.7.6.3.1.2, turned round
        [
            luma + 1.402 * (red - 128),
            luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
            luma + 1.772 * (blue - 128),
        ]
    )
    path = write_dicom(tmp_path / "a.dcm", colours, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(read_image(path, size=8).numpy(), expected.clip(0, 255) / 255, atol=1 / 255)


def jpeg(values, form="JPEG", **options):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, form, **options)
    return stream.getvalue()


def compressed(path, stream, syntax, pixels=BYTES, **tags):
    return write_dicom(path, pixels, syntax=syntax, PixelData=encapsulate([stream]), **tags)


def test_jpeg_inside(tmp_path):
    smooth = (np.indices((8, 8)).sum(0) * 16).astype(np.uint8)
    stream = jpeg(smooth, quality=95)
    path = compressed(tmp_path / "a.dcm", stream, JPEGBaseline8Bit, smooth)
    close(read_image(path, size=8)[0].numpy(), np.asarray(Image.open(io.BytesIO(stream))) / 255)
    colours = np.stack([smooth, smooth // 2, 255 - smooth], axis=-1)
    stream = jpeg(colours, quality=95, subsampling=0)
    path = compressed(tmp_path / "b.dcm", stream, JPEGBaseline8Bit, colours, PhotometricInterpretation="YBR_FULL_422")
    expected = np.moveaxis(np.asarray(Image.open(io.BytesIO(stream))), -1, 0) / 255
    np.testing.assert_allclose(read_image(path, size=8).numpy(), expected, atol=4 / 255)


def test_jpeg_2000_and_run_lengths_inside(tmp_path):
    path = compressed(tmp_path / "a.dcm", jpeg(BYTES, "JPEG2000", no_jp2=True), JPEG2000Lossless)
    close(read_image(path, size=8)[0].numpy(), BYTES / 255)
    literal = b"".join(bytes([7]) + row.tobytes() for row in BYTES)
    header = np.array([1, 64, *[0] * 14], dtype="<u4").tobytes()
    path = compressed(tmp_path / "b.dcm", header + literal, RLELossless)
    close(read_image(path, size=8)[0].numpy(), BYTES / 255)


@pytest.mark.parametrize("form", ["JPEG", "JPEG2000"])
def test_a_stream_that_is_cut_or_of_another_size_is_refused(tmp_path, form):
    syntax = JPEGBaseline8Bit if form == "JPEG" else JPEG2000Lossless
    options = {} if form == "JPEG" else {"no_jp2": True}
    stream = jpeg(np.kron(BYTES, np.ones((8, 8), dtype=np.uint8)), form, **options)
    tags = {"Rows": 64, "Columns": 64}
    assert read_image(compressed(tmp_path / "a.dcm", stream, syntax, **tags), size=8).max() > 0
    refused(compressed(tmp_path / "b.dcm", stream[: len(stream) * 2 // 3], syntax, **tags), "truncated")
    refused(compressed(tmp_path / "c.dcm", stream, syntax, Rows=64, Columns=65), "another size")


def test_a_syntax_without_a_decoder_is_named_with_its_mend(tmp_path, monkeypatch):
    path = compressed(tmp_path / "a.dcm", jpeg(BYTES), JPEGLosslessSV1)
    monkeypatch.setattr(base.Decoder, "is_available", False)
    refused(path, r"JPEG Lossless.*pip install -e .\.\[dicom\].")


@pytest.mark.parametrize("syntax", [MPEG2MPML, DeflatedExplicitVRLittleEndian, "1.2.3.4.5"])
def test_other_syntaxes_are_refused(tmp_path, syntax):
    path = write_dicom(tmp_path / "a.dcm", BYTES)
    content = path.read_bytes()
    old, new = b"1.2.840.10008.1.2.1\0", str(syntax).encode().ljust(20, b"\0")
    assert old in content
    start = content.index(old)
    grown = content[: start - 2] + len(new).to_bytes(2, "little") + new + content[start + len(old) :]
    path.write_bytes(grown)
    refused(path, "transfer syntax that is not read")


def test_a_file_without_an_image_or_its_mark_is_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", BYTES)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"DICM", b"DICN"))
    refused(path, "^is not a PNG, JPEG, TIFF or DICOM file$")
    path.write_bytes(content[132:])
    refused(path, "^is not a PNG, JPEG, TIFF or DICOM file$")
    path.write_bytes(content[: content.index(b"\x28\x00\x10\x00")])
    refused(path, "^holds no image$")
    refused(write_dicom(tmp_path / "b.dcm", BYTES, PhotometricInterpretation="CANARY"), "photometric")
    refused(write_dicom(tmp_path / "b.dcm", BYTES, WindowCenter=1, WindowWidth=0), "window that DICOM does not allow")


def test_frames_have_their_own_units_and_windows(tmp_path):
    frames = np.random.default_rng(2).integers(0, 1000, (4, 8, 8), dtype=np.uint16)
    shared = item(PixelValueTransformationSequence=[item(RescaleSlope=3, RescaleIntercept=-100, RescaleType="US")])
    windows = [(500 + 100 * frame, 800) for frame in range(4)]
    own = [item(FrameVOILUTSequence=[item(WindowCenter=center, WindowWidth=width)]) for center, width in windows]
    tags = {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": own}
    path = write_dicom(tmp_path / "a.dcm", frames, NumberOfFrames=4, **tags)
    expected = [linear(frame * 3.0 - 100, *window) for frame, window in zip(frames, windows, strict=True)]
    close(read_volume(path, frames=4, size=8)[0].numpy(), expected)
    close(
        read_volume(path, frames=4, size=8, window=Window(0, 400))[2].numpy(), ((frames * 3.0 + 100) / 400).clip(0, 1)
    )


def test_frames_without_windows_share_their_range(tmp_path):
    frames = np.random.default_rng(2).integers(0, 1000, (4, 8, 8), dtype=np.uint16)
    path = write_dicom(tmp_path / "a.dcm", frames, NumberOfFrames=4)
    close(read_volume(path, frames=4, size=8)[0].numpy(), ends(frames.astype(float)))
    path = write_dicom(tmp_path / "b.dcm", frames.astype(np.uint8), NumberOfFrames=4)
    close(read_volume(path, frames=4, size=8)[0].numpy(), frames.astype(np.uint8) / 255)


# A folder of slices

SLICES = np.random.default_rng(3).integers(0, 3000, (6, 8, 8), dtype=np.uint16)
TILTED = [0.8, 0.6, 0, 0, 0, 1]  # its normal is (0.6, -0.8, 0)


def write_series(folder, order, **changes):
    """Slices whose file names are in another order than they lie in."""
    folder.mkdir()
    for place, slice_ in enumerate(order):
        position = [100 + 0.6 * 2.5 * slice_, 40 - 0.8 * 2.5 * slice_, -7]
        tags = {"SeriesInstanceUID": "1.2.3", "ImageOrientationPatient": TILTED, "ImagePositionPatient": position}
        tags |= {key: value(slice_) for key, value in changes.items()}
        write_dicom(folder / f"{place}.dcm", SLICES[slice_], **{k: v for k, v in tags.items() if v is not None})
    (folder / "DICOMDIR").write_bytes(b"canary")
    (folder / ".hidden").write_bytes(b"canary")
    return folder


def volume(folder, **options):
    return read_volume(folder, **{"frames": 6, "size": 8, **options})


def test_slices_lie_along_their_normal(tmp_path):
    folder = write_series(tmp_path / "a", [3, 0, 5, 1, 4, 2], InstanceNumber=lambda slice_: 10 - slice_)
    close(volume(folder)[1].numpy(), ends(SLICES.astype(float)))


def test_without_positions_they_lie_by_number(tmp_path):
    numbers = {"ImagePositionPatient": lambda _: None, "InstanceNumber": lambda slice_: 5 + slice_}
    close(volume(write_series(tmp_path / "a", [3, 0, 5, 1, 4, 2], **numbers))[1].numpy(), ends(SLICES.astype(float)))


def test_each_slice_is_in_its_own_units(tmp_path):
    folder = write_series(
        tmp_path / "a", [3, 0, 5, 1, 4, 2], RescaleSlope=lambda s: 1 + s, RescaleIntercept=lambda s: s
    )
    units = np.stack([SLICES[s] * (1.0 + s) + s for s in range(6)])
    close(volume(folder)[0].numpy(), ends(units))
    close(volume(folder, window=Window(3000, 2000))[0].numpy(), ((units - 2000) / 2000).clip(0, 1))


def test_the_files_windows_are_used_only_if_all_have_one(tmp_path):
    tags = {"WindowCenter": lambda s: 1000 + s, "WindowWidth": lambda s: 500}
    expected = np.stack([linear(SLICES[s], 1000 + s, 500) for s in range(6)])
    close(volume(write_series(tmp_path / "a", range(6), **tags))[0].numpy(), expected)
    tags["WindowWidth"] = lambda s: 500 if s else None
    close(volume(write_series(tmp_path / "b", range(6), **tags))[0].numpy(), ends(SLICES.astype(float)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SeriesInstanceUID": lambda s: f"1.2.{s // 3}"}, "several series"),
        ({"ImageOrientationPatient": lambda s: TILTED if s else [1, 0, 0, 0, 1, 0]}, "different orientations"),
        ({"ImagePositionPatient": lambda s: [0, 0, 0]}, "several slices of one place"),
        ({"ImagePositionPatient": lambda s: None}, "neither their position nor their number"),
        ({"PhotometricInterpretation": lambda s: f"MONOCHROME{1 + s % 2}"}, "different sizes or kinds"),
    ],
)
def test_slices_that_make_no_volume_are_refused(tmp_path, changes, reason):
    with pytest.raises(Unreadable, match=reason):
        volume(write_series(tmp_path / "a", range(6), **changes))


def test_a_truncated_slice_is_found(tmp_path):
    folder = write_series(tmp_path / "a", range(6))
    slice_ = folder / "3.dcm"
    slice_.write_bytes(slice_.read_bytes()[:-9])
    with pytest.raises(Unreadable):
        volume(folder)
