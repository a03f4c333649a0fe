"""Small cohorts of every kind of modality, written as users would have them; and what tests of them share."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from PIL import Image
from runs import weights

from remind.engine.watch import Silence

CANARY = "zebrafish"  # stands in every text and names a variable; no output may show it
CLASSES = ["none", "mild"]
MODALITIES: dict[str, dict[str, Any]] = {
    "scan": {"kind": "image", "column": "scan"},
    "clip": {"kind": "volume", "column": "clip"},
    "note": {"kind": "text", "column": "note"},
    "labs": {"kind": "tabular", "columns": ["hba1c"]},
    "vitals": {"kind": "sequence", "column": "vitals"},
    "emb": {"kind": "embedding", "column": "emb"},
}
FILES = {"scan": "png", "clip": "npy", "vitals": "parquet", "emb": "npy"}
SIZES = (  # of the smallest model there is of these kinds
    *("model.dim=16", "model.experts=2", "model.heads=2", "encoders.tabular.tokens=2"),
    *("encoders.image.backbone=resnet50", "encoders.image.weights=random", "encoders.image.size=33"),
    *("encoders.volume.weights=random", "encoders.volume.size=17", "encoders.volume.frames=2"),
    *("encoders.text.weights=random", "encoders.text.limit=24"),
    *("encoders.sequence.width=16", "encoders.sequence.layers=1", "encoders.sequence.tokens=2"),
    *("train.epochs=2", "train.batch_size=8", "train.threads=1", "train.device=cpu"),
)
LIGHT = ("note", "labs", "vitals", "emb")  # the kinds whose models are small


def write_image(path: Path, rng: np.random.Generator, level: int = 100) -> None:
    Image.fromarray(rng.integers(level, level + 100, (6, 6)).astype(np.uint8)).save(path)


def write_volume(path: Path, rng: np.random.Generator, level: int = 100) -> None:
    np.save(path, rng.integers(level, level + 100, (4, 6, 6)).astype(np.uint8))


def write_events(path: Path, rng: np.random.Generator, level: float = 60, count: int | None = None) -> None:
    count = int(rng.integers(1, 9)) if count is None else count
    columns = {
        "time": np.sort(rng.random(count) * 48),
        "variable": rng.choice([CANARY, "bp"], count),
        "value": rng.normal(level, 5, count),
    }
    frame = pl.DataFrame(columns, schema={"time": pl.Float64, "variable": pl.String, "value": pl.Float64})
    frame.write_parquet(path)


def write_embedding(path: Path, rng: np.random.Generator, level: float = 0, count: int | None = None) -> None:
    count = int(rng.integers(1, 4)) if count is None else count
    np.save(path, rng.normal(level, 1, (count, 8)).astype(np.float32))


WRITERS = {"scan": write_image, "clip": write_volume, "vitals": write_events, "emb": write_embedding}


def write_six(
    place: Path,
    *,
    samples: int = 40,
    modalities: Iterable[str] = tuple(MODALITIES),
    table: Callable[[pl.DataFrame], pl.DataFrame] = lambda table: table,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    **spec: Any,
) -> Path:
    """A sound cohort: two visits a patient, each with about 60 % of the modalities, never none.

    ``table`` changes the samples before they are written, ``changes`` what the spec says of a modality.
    """
    rng, chosen = np.random.default_rng(0), list(modalities)
    place.mkdir(parents=True)
    for name in chosen:
        if name in FILES:
            (place / name).mkdir()
    rows = []
    for number in range(samples):
        kind = number // 2 % 2
        has = rng.random(len(chosen)) < 0.6
        has[number % len(chosen)] |= not has.any()
        row: dict[str, Any] = {"visit": f"v{number:04d}", "patient": f"p{number // 2:04d}", "grade": CLASSES[kind]}
        row |= {"note": None, "hba1c": None, **dict.fromkeys(FILES)}
        for name, there in zip(chosen, has, strict=True):
            if not there:
                continue
            if name == "note":
                words = rng.choice([["fine", "well"], ["pain", "fever"]][kind], rng.integers(1, 4))
                row["note"] = f"{number} {' '.join(words)} {CANARY}"
            elif name == "labs":
                row["hba1c"] = float(rng.normal(5 + kind, 1))
            else:
                row[name] = f"{name}/{number}.{FILES[name]}"
                WRITERS[name](place / row[name], rng, 100 * kind if name in ("scan", "clip") else 60 * kind)
        rows.append(row)
    types = {"hba1c": pl.Float64, **dict.fromkeys(("note", *FILES), pl.String)}
    table(pl.DataFrame(rows, schema_overrides=types)).write_parquet(place / "samples.parquet")
    said = {name: {**MODALITIES[name], **(changes or {}).get(name, {})} for name in chosen}
    label = {"column": "grade", "classes": CLASSES}
    document = {"name": "six", "id": "visit", "subject": "patient", "label": label, "modalities": said, **spec}
    (place / "cohort.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return place


def table_of(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "samples.parquet")


def put(folder: Path, column: str, values: Mapping[str, Any]) -> Path:
    """Write other values into a column of the samples with these ids."""
    frame = table_of(folder)
    new = [values.get(key, old) for key, old in zip(frame["visit"], frame[column], strict=True)]
    dtype = frame[column].dtype
    frame.with_columns(pl.Series(column, new, dtype=dtype)).write_parquet(folder / "samples.parquet")
    return folder


def having(folder: Path, column: str) -> list[str]:
    """The ids of the samples that have something in a column."""
    return table_of(folder).drop_nulls(column)["visit"].to_list()


def file_of(folder: Path, column: str, sample: str) -> Path:
    return folder / table_of(folder).filter(pl.col("visit") == sample)[column].item()


def same_run(one: Path, other: Path) -> bool:
    """Weights, history and predictions of two runs, to the last bit."""
    first, second = (weights(run) for run in (one, other))
    assert first.keys() == second.keys()
    equal = all(tensor.numpy().tobytes() == second[name].numpy().tobytes() for name, tensor in first.items())
    tables = [
        pl.read_parquet(one / f"{name}.parquet").equals(pl.read_parquet(other / f"{name}.parquet"))
        for name in ("history", "predictions")
    ]
    return equal and all(tables)


class Recorder(Silence):
    """Keeps what it is told; ``at`` is asked at each encoding, and may raise."""

    def __init__(self, at: Callable[[str, int, int], None] = lambda modality, done, total: None) -> None:
        self.at = at
        self.notes: list[str] = []
        self.opened: list[tuple[int, int]] = []
        self.encoded: list[tuple[str, int, int]] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def opening(self, done: int, total: int) -> None:
        self.opened.append((done, total))

    def encoding(self, modality: str, done: int, total: int) -> None:
        self.encoded.append((modality, done, total))
        self.at(modality, done, total)


def python(code: str, *words: Any, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Code in a process of its own, which is ended with all its children where it hangs."""
    command = [sys.executable, "-c", code, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            out, err = "", f"hangs for {timeout} seconds"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
