"""Encode once: what frozen backbones make of inputs, in memory-mapped shards on disk.

A *shelf* holds the features of one backbone with one preprocessing, each under the checksum of its input: the same
image is encoded once, whatever sample, run or cohort it is of. A shard is a safetensors file of ``values [tokens,
width]`` whose header lists the inputs in order, with their lengths; its name is its checksum. What does not agree with
its name is not there.
"""

import hashlib
import json
import shutil
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from remind.cohort.workers import worker_settings
from remind.documents import digest
from remind.encoders import Backbone, features
from remind.engine.device import to_device
from remind.engine.watch import Watch
from remind.errors import RemindError
from remind.modalities import Reader
from remind.nn.tokens import lengths_of
from remind.types import Ragged

Precision = Literal["float32", "bfloat16"]
FULL = 32 * 2**20  # bytes of a shard; twice that is held while it is written
SHARD = ".safetensors"
VERSIONS = (
    *("remind", "torch", "torchvision", "transformers", "tokenizers"),
    *("numpy", "pillow", "pydicom", "nibabel", "av"),
)  # of all that can change a feature
OFTEN = 60.0  # seconds after which a shard is written though it is not full


class Inputs(NamedTuple):
    """The inputs of one modality: their checksums, and what reads those at some places."""

    digests: Sequence[str]
    read: Reader


@dataclass(frozen=True)
class FeatureReader:
    """Reads features in place of inputs; gives float32."""

    shards: Sequence[Path]
    places: np.ndarray  # int64 [n, 3] of each sample: number of its shard, first row and how many; -1 where it has none
    shape: tuple[int, int]  # of an input's features, where all have as many tokens; the most tokens otherwise
    ragged: bool

    def __call__(self, chosen: Sequence[int]) -> Ragged:
        """The features of these samples."""
        rows = []
        for shard, start, length in self.places[np.asarray(chosen, dtype=np.int64)].tolist():
            assert shard >= 0
            rows.append(_values(self.shards[shard])[start : start + length].float())
        if not rows:
            return Ragged(torch.zeros(0, *self.shape))
        if not self.ragged:
            return Ragged(torch.stack(rows))
        return Ragged(pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows]))


@lru_cache(maxsize=2**15)  # a terabyte of full shards
def _values(shard: Path) -> Any:
    """A slice-able view of a shard's values, memory-mapped."""
    return safe_open(shard, framework="pt").get_slice("values")


def _listed(shard: Path) -> dict[str, Any] | None:
    """What a shard's header says of it: inputs, lengths, ragged; None if it is not what its name promises."""
    try:
        if digest(shard) != shard.stem:
            return None
        with safe_open(shard, framework="pt") as file:
            listed, tokens = json.loads(file.metadata()["index"]), file.get_slice("values").get_shape()[0]
        fits = len(listed["inputs"]) == len(listed["lengths"]) and sum(listed["lengths"]) == tokens
        return listed if fits and isinstance(listed["ragged"], bool) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        return None


class FeatureStore:
    """A folder of shelves."""

    def __init__(self, folder: Path, *, precision: Precision, workers: int = 0) -> None:
        self.folder, self.dtype, self.workers = folder, getattr(torch, precision), workers

    def shelf(self, name: str, backbone: Backbone, preprocessing: Mapping[str, Any]) -> "Shelf":
        """The shelf of one modality's backbone as it is now, with the preprocessing of its inputs."""
        facts = {
            "versions": [version(name) for name in VERSIONS],
            "device": next(backbone.parameters()).device.type,
            "backbone": [type(backbone).__name__, backbone.num_tokens, backbone.width, fingerprint(backbone)],
            "preprocessing": preprocessing,
            "dtype": str(self.dtype),
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return Shelf(self.folder / f"{name}-{key[:16]}", name, backbone, self.dtype, self.workers)


class Shelf:
    """The features of one modality by one backbone."""

    def __init__(self, folder: Path, name: str, backbone: Backbone, dtype: torch.dtype, workers: int) -> None:
        self.folder, self.name, self.backbone, self.dtype, self.workers = folder, name, backbone, dtype, workers
        self._forget()

    def _forget(self) -> None:
        """Nothing is known to be there."""
        self.shards: list[Path] = []
        self.places: dict[str, int] = {}  # of each input, where it stands in the array
        self.array = array("q")  # shard, first row and number of rows of each
        self.ragged = False

    def fill(self, inputs: Inputs, watch: Watch) -> None:
        """Encode what is not there yet. May be interrupted; then it goes on from the last shard.

        Raises:
            RemindError: if the disk has no room for it, or cannot be written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                if damaged := self._open():
                    watch.note(f"{self.folder}: {damaged} damaged files are made again.")
                first = {content: place for place, content in reversed(list(enumerate(inputs.digests)))}
                if todo := sorted(place for content, place in first.items() if content not in self.places):
                    self._announce(len(todo), watch)
                    self._encode(todo, inputs, watch)
        except (OSError, SafetensorError) as error:
            raise RemindError(
                f"{self.folder}: features of {self.name!r} cannot be written there ({error}); make room, name another "
                "folder with --store, or set data.features to none."
            ) from None

    def reader(self, digests: Sequence[str | None]) -> FeatureReader:
        """A reader of features for samples whose inputs have these checksums."""
        at = np.array([-1 if content is None else self.places[content] for content in digests], dtype=np.int64)
        known = np.array(self.array, dtype=np.int64).reshape(-1, 3)
        places = np.where(at[:, None] < 0, -1, known[at] if len(known) else -1)
        return FeatureReader(tuple(self.shards), places, (self.backbone.num_tokens, self.backbone.width), self.ragged)

    def _open(self) -> int:
        """Find the shards that are whole, remove everything else; how many were damaged."""
        self._forget()
        damaged = 0
        _values.cache_clear()  # of shards that may be others now, under the same names
        for file in sorted(self.folder.iterdir()):
            if file.name == ".lock":
                continue
            if file.suffix == SHARD and (listed := _listed(file)) is not None:
                self._add(file, listed["inputs"], listed["lengths"], listed["ragged"])
                continue
            damaged += file.suffix == SHARD
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        return damaged

    def _add(self, shard: Path, contents: Sequence[str], sizes: Sequence[int], ragged: bool) -> None:
        start, number = 0, len(self.shards)
        self.shards.append(shard)
        for content, size in zip(contents, sizes, strict=True):
            self.places[content] = len(self.array) // 3
            self.array.extend((number, start, size))
            start += size
        self.ragged = ragged

    def _announce(self, count: int, watch: Watch) -> None:
        size = count * self.backbone.num_tokens * self.backbone.width * self.dtype.itemsize
        watch.note(f"{self.name}: {count} inputs are encoded once, at most {_amount(size)}, into {self.folder}")
        if (free := shutil.disk_usage(self.folder).free) < size:
            raise RemindError(
                f"{self.folder}: the features of {self.name!r} need up to {_amount(size)}; {_amount(free)} are free. "
                "Make room, pool to fewer tokens, or set data.features to bfloat16 or none."
            )

    def _encode(self, todo: Sequence[int], inputs: Inputs, watch: Watch) -> None:
        device = next(self.backbone.parameters()).device
        contents: list[str] = []
        rows: list[Tensor] = []
        since, done = time.monotonic(), 0
        own = torch.Generator()  # else reading would advance the one that dropout uses
        reading = _Batches(todo, inputs.read)
        for batch in DataLoader(reading, batch_size=None, generator=own, **worker_settings(self.workers, len(todo))):
            found = features(self.backbone, to_device(batch, device))
            self.ragged = found.length is not None
            for values, length in zip(found.values, lengths_of(found).tolist(), strict=True):
                rows.append(values[:length].to("cpu", self.dtype))
                contents.append(inputs.digests[todo[done]])
                done += 1
            watch.encoding(self.name, done, len(todo))
            held = sum(row.nbytes for row in rows)
            if held >= FULL or time.monotonic() - since > OFTEN or done == len(todo):
                self._write(contents, rows)
                contents, rows, since = [], [], time.monotonic()

    def _write(self, contents: list[str], rows: list[Tensor]) -> None:
        """One shard, whole or not at all."""
        staging, sizes = self.folder / ".shard.tmp", [len(row) for row in rows]
        index = json.dumps({"inputs": contents, "lengths": sizes, "ragged": self.ragged})
        save_file({"values": torch.cat(rows)}, staging, metadata={"index": index})
        shard = self.folder / f"{digest(staging)}{SHARD}"
        staging.replace(shard)
        self._add(shard, contents, sizes, self.ragged)


@dataclass(frozen=True)
class _Batches(torch.utils.data.Dataset):
    """A few inputs at a time, for worker processes to read ahead."""

    todo: Sequence[int]
    read: Reader
    size: int = 8

    def __len__(self) -> int:
        return -(-len(self.todo) // self.size)

    def __getitem__(self, index: int) -> Any:
        return self.read(self.todo[index * self.size : (index + 1) * self.size])


def fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 of a module's weights and buffers, by name."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def _amount(size: int | float) -> str:
    """Bytes, as people read them."""
    unit, name = next(
        (unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size >= unit or unit == 1e3
    )
    return f"{size / unit:.1f} {name}"
