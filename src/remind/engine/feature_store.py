"""Encode once: what frozen backbones make of inputs, in memory-mapped shards on disk.

A *shelf* holds the features of one backbone with one preprocessing, each under the checksum of its input: the same
image is encoded once, whatever sample, run or cohort it is of. A shard is a safetensors file of ``values [tokens,
width]`` and a JSON file beside it that names the inputs in order, with their lengths and the shard's checksum; what has
no such file, or does not agree with it, is not there.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from remind.cohort.workers import worker_settings
from remind.encoders import Backbone, features, lengths
from remind.engine.bundle import digest, write_text
from remind.engine.device import to_device
from remind.engine.watch import Watch
from remind.errors import RemindError
from remind.modalities import Reader
from remind.types import Ragged

Precision = Literal["float32", "bfloat16"]
FULL = 256 * 2**20  # bytes of a shard
OFTEN = 60.0  # seconds after which a shard is written though it is not full


class Place(NamedTuple):
    """Where the features of one input lie."""

    shard: Path
    start: int
    length: int


class Inputs(NamedTuple):
    """The inputs of one modality: their checksums, and what reads those at some places."""

    digests: Sequence[str]
    read: Reader


@dataclass(frozen=True)
class FeatureReader:
    """Reads features in place of inputs; gives float32."""

    places: Sequence[Place | None]  # None where a sample lacks the modality
    shape: tuple[int, int]  # of an input's features, where all have as many tokens; the most tokens otherwise
    ragged: bool

    def __call__(self, chosen: Sequence[int]) -> Ragged:
        """The features of these samples."""
        rows = []
        for place in (self.places[index] for index in chosen):
            assert place is not None
            rows.append(_values(place.shard)[place.start : place.start + place.length].float())
        if not rows:
            return Ragged(torch.zeros(0, *self.shape))
        if not self.ragged:
            return Ragged(torch.stack(rows))
        return Ragged(pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows]))


@lru_cache(maxsize=4096)
def _values(shard: Path) -> Any:
    """A slice-able view of a shard's values, memory-mapped."""
    return safe_open(shard, framework="pt").get_slice("values")


class FeatureStore:
    """A folder of shelves."""

    def __init__(self, folder: Path, *, precision: Precision, workers: int = 0) -> None:
        self.folder, self.dtype, self.workers = folder, getattr(torch, precision), workers

    def shelf(self, name: str, backbone: Backbone, preprocessing: Mapping[str, Any]) -> "Shelf":
        """The shelf of one modality's backbone as it is now, with the preprocessing of its inputs."""
        facts = {
            "versions": [version("remind"), version("torch")],
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
        self.places: dict[str, Place] = {}
        self.ragged = False

    def fill(self, inputs: Inputs, watch: Watch) -> None:
        """Encode what is not there yet. May be interrupted; then it goes on from the last shard.

        Raises:
            RemindError: if the disk has no room for it; says how much is needed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            damaged = self._open()
            first = {content: place for place, content in reversed(list(enumerate(inputs.digests)))}
            todo = sorted(place for content, place in first.items() if content not in self.places)
            if damaged:
                watch.note(f"{self.folder}: {damaged} damaged shards are encoded again.")
            if todo:
                self._announce(len(todo), watch)
                self._encode(todo, inputs, watch)

    def reader(self, digests: Sequence[str | None]) -> FeatureReader:
        """A reader of features for samples whose inputs have these checksums."""
        places = [None if content is None else self.places[content] for content in digests]
        return FeatureReader(places, (self.backbone.num_tokens, self.backbone.width), self.ragged)

    def _open(self) -> int:
        """Find the shards that are whole, remove the others; how many of them were damaged."""
        self.places, damaged = {}, 0
        for index in sorted(self.folder.glob("*.json")):
            shard = index.with_suffix(".safetensors")
            try:
                held = json.loads(index.read_text(encoding="utf-8"))
                whole = digest(shard) == held["sha256"]
            except (OSError, ValueError, KeyError, TypeError):
                whole, held = False, {}
            if whole:
                self._add(shard, held["inputs"], held["lengths"], held["ragged"])
            else:
                damaged += 1
                index.unlink(missing_ok=True)
        known = {place.shard.name for place in self.places.values()}
        for shard in self.folder.glob("*.safetensors*"):
            if shard.name not in known:
                shard.unlink()
        return damaged

    def _add(self, shard: Path, contents: Sequence[str], sizes: Sequence[int], ragged: bool) -> None:
        start = 0
        for content, size in zip(contents, sizes, strict=True):
            self.places[content] = Place(shard, start, size)
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
            for values, length in zip(found.values, lengths(found).tolist(), strict=True):
                rows.append(values[:length].to("cpu", self.dtype))
                contents.append(inputs.digests[todo[done]])
                done += 1
            watch.encoding(self.name, done, len(todo))
            held = sum(row.nbytes for row in rows)
            if held >= FULL or time.monotonic() - since > OFTEN or done == len(todo):
                self._write(contents, rows)
                contents, rows, since = [], [], time.monotonic()

    def _write(self, contents: list[str], rows: list[Tensor]) -> None:
        """One shard, named by its content; the JSON file, which makes it count, comes last."""
        staging = self.folder / ".shard.safetensors.tmp"
        save_file({"values": torch.cat(rows)}, staging)
        checksum = digest(staging)
        shard = self.folder / f"{checksum[:16]}.safetensors"
        staging.replace(shard)
        sizes = [len(row) for row in rows]
        held = {"sha256": checksum, "ragged": self.ragged, "inputs": contents, "lengths": sizes}
        write_text(shard.with_suffix(".json"), json.dumps(held))
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


def _amount(size: float) -> str:
    """Bytes, as people read them."""
    unit, name = next(
        (unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size >= unit or unit == 1e3
    )
    return f"{size / unit:.1f} {name}"
