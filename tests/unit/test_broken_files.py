"""A hundred broken files of each kind: refused in words, cheaply and quietly, never read as anything else."""

import gzip
import io
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from filemaking import jpeg_size, moving, write_dicom, write_nifti, write_video
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from remind.reading import Unreadable
from remind.reading.arrays import read_embedding
from remind.reading.events import read_events
from remind.reading.image import read_image
from remind.reading.volume import read_volume

FILES, SECONDS, BYTES = 100, 2, 500 * 2**20
PICTURE = moving(1, 48, 40)[0]
SCAN = np.random.default_rng(0).integers(-1000, 2000, (12, 14, 10), dtype=np.int16)
ROWS = 4321
SIZES = [2**14 + 1, 60_000, 65_535]  # of a side: beyond what is allowed, in 16 bits
HUGE = [*SIZES, 2**20, 2**31 - 1]
FORGET_PEAK = Path("/proc/self/clear_refs")  # Linux
Change = Callable[[bytes, np.random.Generator], bytes]


class Kind(NamedTuple):
    """Ways to make a sound file, to read one, and to have it claim an absurd size."""

    suffix: str
    makers: list[Callable[[Path], Any]]
    read: Callable[[Path], torch.Tensor | pl.DataFrame]
    bombs: list[Change]
    mark: tuple[int, int] = (0, 4)  # where its signature stands, and how long it is
    foreign: tuple[str, ...] = ("parquet", "embedding")  # kinds that its reader does not read


def image(path):
    return read_image(path, size=16)


def volume(path):
    return read_volume(path, frames=4, size=16)


def put(content: bytes, start: int, new: bytes) -> bytes:
    return content[:start] + new + content[start + len(new) :]


def save(values=PICTURE, **options):
    return lambda path: Image.fromarray(values).save(path, **options)


# Sizes that are claimed


def png_bomb(content, rng):
    width, height = rng.choice(HUGE, 2).tolist()
    header = struct.pack(">4s2I", b"IHDR", width, height) + content[24:29]
    return put(content, 12, header + zlib.crc32(header).to_bytes(4))


def png_large(content, rng):
    """As much as is allowed, in a small file."""
    header = struct.pack(">4s2I", b"IHDR", 2**14, 2**14) + content[24:29]
    return put(content, 12, header + zlib.crc32(header).to_bytes(4))


def jpeg_bomb(content, rng):
    return jpeg_size(content, *rng.choice(SIZES, 2).tolist())


def jpeg_large(content, rng):
    return jpeg_size(content, 2**14, 2**14)


def tiff_tag(content, tag, value):
    start = next(at for kind in (3, 4) if (at := content.find(struct.pack("<HHI", tag, kind, 1))) > 0)
    return put(content, start, struct.pack("<HHII", tag, 4, 1, value))


def tiff_bomb(content, rng):
    width, height = rng.choice(HUGE, 2).tolist()
    return tiff_tag(tiff_tag(content, 256, width), 257, height)


def tiff_large(content, rng):
    return tiff_tag(tiff_tag(content, 256, 2**14), 257, 2**14)


def dicom_bomb(content, rng):
    rows, columns = (content.index(tag) + 8 for tag in (b"\x28\x00\x10\x00US", b"\x28\x00\x11\x00US"))
    height, width = rng.choice(SIZES, 2).tolist()
    return put(put(content, rows, struct.pack("<H", height)), columns, struct.pack("<H", width))


def dicom_large(content, rng):
    rows, columns = (content.index(tag) + 8 for tag in (b"\x28\x00\x10\x00US", b"\x28\x00\x11\x00US"))
    return put(put(content, rows, struct.pack("<H", 2**14)), columns, struct.pack("<H", 2**14))


def dicom_length(content, rng):
    """The pixel data, or the element before them, claim nearly 4 GiB."""
    start = content.index(b"\xe0\x7f\x10\x00") + 8
    return put(content, start, struct.pack("<I", int(rng.integers(2**31, 2**32 - 2)) & ~1))


def nifti_bomb(content, rng):
    return put(content, 40, struct.pack("<4h", 3, *rng.choice([2**14 + 1, 2**15 - 1], 3).tolist()))


def nifti_large(content, rng):
    return put(content, 40, struct.pack("<4h", 3, 2**10, 2**10, 2**11))


def nifti_start(content, rng):
    return put(content, 108, struct.pack("<f", rng.choice([1e6, 1e9, 1e30, -1e9, np.nan])))


def zipped(change: Change) -> Change:
    return lambda content, rng: gzip.compress(change(gzip.decompress(content), rng), 1)


def inflating(content, rng):
    """A sound start that goes on for two gibibytes of zeros."""
    return content + gzip.compress(bytes(2**20)) * 2**11


def npy(header: str, body: bytes = b"", length: int | None = None) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + (len(text) if length is None else length).to_bytes(4, "little") + text + body


def npy_bomb(content, rng):
    shape = tuple(rng.choice([2**16, 2**31, 2**40, 2**62], rng.integers(1, 4)).tolist())
    return npy(repr({"descr": "|u1", "fortran_order": bool(rng.integers(2)), "shape": shape}), bytes(100))


def npy_header(content, rng):
    return npy("{" + "[" * int(rng.integers(1, 10**5)), length=int(rng.choice([10**5, 2**31, 2**32 - 1])))


class Payload:
    """Touches a file if it is ever unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("unpickled"),)


def npy_pickle(content, rng):
    stream = io.BytesIO()
    np.save(stream, np.array([Payload()] * int(rng.integers(1, 4)), dtype=object), allow_pickle=True)
    return stream.getvalue()


def mp4_bomb(content, rng):
    """More pictures than a film can have, in an index that is small; or none where they are said to lie."""
    box, offset = (b"stsz", 12) if rng.integers(2) else (b"stco", 12)
    return put(content, content.index(box) + offset, struct.pack(">I", int(rng.integers(2**30, 2**32))))


def video_size(content, rng):
    """The picture header of FFV1 is in the container."""
    start = content.index(b"\xb0\x82\x00") if b"\xb0\x82\x00" in content else content.index(b"\xb0\x81")
    return put(content, start, b"\xb0\x84" + bytes(rng.integers(64, 255, 2).tolist()))


def avi_bomb(content, rng):
    return put(content, content.index(b"strh") + 40, struct.pack("<I", int(rng.integers(100, 2**31))))


def varint(number: int) -> bytes:
    """A count as Parquet's footer holds it."""
    number, out = 2 * number, bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def parquet_bomb(content, rng):
    length = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - length : -8].replace(varint(ROWS), varint(int(rng.integers(2**25, 2**62))))
    return content[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def parquet_footer(content, rng):
    return put(content, len(content) - 8, int(rng.integers(len(content), 2**32)).to_bytes(4, "little"))


# Kinds of files


def dicom(path, syntax=ExplicitVRLittleEndian, form="", **options):
    grey = PICTURE[..., 0]
    if form:
        stream = io.BytesIO()
        Image.fromarray(grey).save(stream, form, **options)
        write_dicom(path, grey, syntax=syntax, PixelData=encapsulate([stream.getvalue()]))
    else:
        write_dicom(path, grey)


def events(**options):
    def make(path):
        rng = np.random.default_rng(0)
        columns = {"time": rng.random(ROWS), "variable": rng.choice(["canary", "b"], ROWS), "value": rng.random(ROWS)}
        pl.DataFrame(columns).write_parquet(path, **options)

    return make


def films():
    frames = moving(10, 32, 48)
    return [
        lambda path: write_video(path, frames, "libx264", "yuv420p"),
        lambda path: write_video(path, frames, "libx264", "yuv420p", movflags="faststart"),
        lambda path: write_video(path, frames, "mpeg4", "yuv420p"),
    ]


KINDS = {
    "png": Kind(".png", [save(), save(PICTURE[..., 0].astype(np.uint16) * 257)], image, [png_bomb, png_large], (0, 8)),
    "jpeg": Kind(".jpg", [save(), save(progressive=True), save(quality=95)], image, [jpeg_bomb, jpeg_large], (0, 3)),
    "tiff": Kind(
        ".tiff",
        [save(), save(compression="tiff_lzw"), save(compression="tiff_deflate")],
        image,
        [tiff_bomb, tiff_large],
    ),
    "dicom": Kind(
        ".dcm",
        [
            dicom,
            lambda path: dicom(path, JPEGBaseline8Bit, "JPEG"),
            lambda path: dicom(path, JPEG2000Lossless, "JPEG2000", no_jp2=True),
        ],
        image,
        [dicom_bomb, dicom_large, dicom_length],
        (128, 4),
    ),
    "nifti": Kind(
        ".nii",
        [lambda path: write_nifti(path, SCAN)],
        volume,
        [nifti_bomb, nifti_large, nifti_start],
        (344, 4),
        ("png",),
    ),
    "nifti.gz": Kind(
        ".nii.gz",
        [lambda path: write_nifti(path, SCAN)],
        volume,
        [zipped(nifti_bomb), zipped(nifti_large), zipped(nifti_start), inflating],
        (0, 2),
        ("png", "parquet"),
    ),
    "npy": Kind(
        ".npy",
        [lambda path: np.save(path, SCAN)],
        volume,
        [npy_bomb, npy_header, npy_pickle],
        (0, 6),
        ("jpeg", "parquet"),
    ),
    "mp4": Kind(".mp4", films(), volume, [mp4_bomb], (4, 4), ("png", "embedding")),
    "mkv": Kind(".mkv", [lambda path: write_video(path, moving(10, 32, 48))], volume, [video_size], (0, 4), ("jpeg",)),
    "avi": Kind(
        ".avi", [lambda path: write_video(path, moving(10, 32, 48), "mjpeg", "yuvj420p")], volume, [avi_bomb], (8, 4)
    ),
    "embedding": Kind(
        ".npy",
        [lambda path: np.save(path, np.ones((5, 70), np.float32)), lambda path: np.save(path, SCAN[0].astype(float))],
        read_embedding,
        [npy_bomb, npy_header, npy_pickle],
        (0, 6),
        ("png", "parquet", "nifti", "mp4"),
    ),
    "parquet": Kind(
        ".parquet",
        [events(), events(compression="uncompressed"), events(use_pyarrow=False, row_group_size=1000)],
        read_events,
        [parquet_bomb, parquet_footer],
        (0, 4),
        ("png", "dicom", "npy", "nifti.gz"),
    ),
}


# Ways to break them


class Broken(NamedTuple):
    """A file and what was done to it; only one that was cut may still be read, and only as the whole."""

    content: bytes
    how: str


def broken(kind: Kind, sound: bytes, others: list[bytes], rng: np.random.Generator) -> Broken:
    """One of the ways, drawn."""
    start, length = kind.mark
    ways: dict[str, tuple[float, Callable[[], bytes]]] = {
        "cut": (10, lambda: sound[: rng.integers(1, len(sound))]),
        "cut near its end": (3, lambda: sound[: -int(rng.integers(1, 40))]),
        "no signature": (2, lambda: put(sound, start, bytes(byte ^ 0xFF for byte in sound[start : start + length]))),
        "empty": (1, lambda: b""),
        "zeros": (1, lambda: bytes(len(sound))),
        "garbage": (2, lambda: rng.bytes(int(rng.integers(1, 5000)))),
        "garbage with a signature": (3, lambda: sound[: start + length] + rng.bytes(int(rng.integers(0, 5000)))),
        "foreign": (2, lambda: others[rng.integers(len(others))]),
        **{f"bomb {n}": (2, lambda bomb_=bomb_: bomb_(sound, rng)) for n, bomb_ in enumerate(kind.bombs)},
    }
    weights = np.array([weight for weight, _ in ways.values()])
    how = rng.choice(list(ways), p=weights / weights.sum())
    return Broken(ways[how][1](), how)


def equal(one, other) -> bool:
    return one.equals(other) if isinstance(one, pl.DataFrame) else torch.equal(one, other)


def memory(field: str) -> int:
    """A figure of this process's memory, where there is one."""
    if not FORGET_PEAK.exists():
        return 0
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, list[bytes]]:
    """The sound files of each kind."""
    folder, made = tmp_path_factory.mktemp("sound"), {}
    for name, kind in KINDS.items():
        made[name] = []
        for maker in kind.makers:
            maker(folder / f"sound{kind.suffix}")
            made[name].append((folder / f"sound{kind.suffix}").read_bytes())
    return made


@pytest.mark.parametrize("name", KINDS)
def test_broken_files_are_refused(name, sound, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    kind = KINDS[name]
    path = tmp_path / f"canary{kind.suffix}"
    whole = []
    for content in sound[name]:
        path.write_bytes(content)
        whole.append(kind.read(path))
    others = [content for other in kind.foreign for content in sound[other]]
    failures = []
    for seed in range(FILES):
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        which = int(rng.integers(len(whole)))
        content, how = broken(kind, sound[name][which], others, rng)
        path.write_bytes(content)
        if FORGET_PEAK.exists():
            FORGET_PEAK.write_text("5")
        before, start = memory("VmRSS"), time.perf_counter()
        try:
            found = kind.read(path)
        except Unreadable as error:
            if not str(error) or "canary" in str(error) or str(tmp_path) in str(error):
                failures.append(f"{seed}, {how}: said {error}")
        except BaseException as error:
            failures.append(f"{seed}, {how}: {error!r}")
        else:
            if not (how.startswith("cut") and equal(found, whole[which])):
                failures.append(f"{seed}, {how}: read")
        if (seconds := time.perf_counter() - start) > SECONDS:
            failures.append(f"{seed}, {how}: {seconds:.1f} s")
        if (grown := memory("VmHWM") - before) > BYTES:
            failures.append(f"{seed}, {how}: {grown / 2**20:.0f} MiB")
    assert not failures
    assert {file.name for file in tmp_path.iterdir()} == {path.name}  # nothing was unpickled
    assert capfd.readouterr() == ("", "")


READERS = {image: "image", volume: "volume", read_embedding: "embedding", read_events: "sequence"}


@pytest.mark.slow
def test_a_cohort_of_broken_files_is_checked_and_every_one_is_listed(sound, tmp_path, remind):
    """One row a file, a modality a kind; a table beside them, so that every sample has something."""
    rows, wanted = [], set()
    for name, kind in KINDS.items():
        column = name.replace(".", "-")
        (tmp_path / column).mkdir()
        others = [content for other in kind.foreign for content in sound[other]]
        for seed in range(FILES):
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            which = int(rng.integers(len(sound[name])))
            content, how = broken(kind, sound[name][which], others, rng)
            file = tmp_path / column / f"{seed}{kind.suffix}"
            file.write_bytes(content)
            row = {"visit": f"{column}-{seed:03d}", "grade": ("none", "mild")[seed % 2], "age": float(seed)}
            rows.append(row | {column: f"{column}/{seed}{kind.suffix}"})
            if (
                not how.startswith("cut") or len(content) < len(sound[name][which]) - 40
            ):  # what is cut at its end may be whole
                wanted.add((row["visit"], column))
    kinds = {name.replace(".", "-"): READERS[kind.read] for name, kind in KINDS.items()}
    spec = {
        "name": "broken",
        "id": "visit",
        "label": {"column": "grade", "classes": ["none", "mild"]},
        "modalities": {
            "age": {"kind": "tabular", "columns": ["age"]},
            **{column: {"kind": kind, "column": column} for column, kind in kinds.items()},
        },
    }
    schema = dict.fromkeys(("visit", "grade"), pl.String) | {"age": pl.Float64} | dict.fromkeys(kinds, pl.String)
    pl.DataFrame(rows, schema=schema).write_parquet(tmp_path / "samples.parquet")
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    done = remind("cohort", "check", tmp_path)
    assert done.code == 2
    listed = pl.read_csv(tmp_path / "quarantine.csv")
    assert wanted <= set(listed.select("id", "modality").iter_rows())
    assert listed["reason"].null_count() == 0
    assert listed.height >= 0.95 * FILES * len(KINDS)
    refused = remind("train", tmp_path, "--out", tmp_path / "run", "--unreadable", "missing")
    assert refused.code == 2
    assert "above the budget" in refused.err
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"quarantine.csv"}
