"""Frozen backbones run once an input, ever; and what a store gives back is what they gave, or nothing."""

import copy
import hashlib
import json
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from runs import Stop
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from six_kinds import Recorder
from torch import Tensor, nn

from remind.encoders import Backbone
from remind.engine import feature_store
from remind.engine.feature_store import FeatureStore, Inputs
from remind.engine.watch import Silence
from remind.errors import RemindError
from remind.types import Ragged

NUMBER, WIDTH, TOKENS = 40, 6, 3
PREPROCESSING = {"transform": {"size": 8}, "settings": {"tokens": 3}}


class Toy(Backbone):
    """As many tokens as all, or as many as the input says; counts the inputs it is shown."""

    def __init__(self, *, ragged: bool = False) -> None:
        super().__init__()
        self.width, self.num_tokens, self.ragged = WIDTH, TOKENS, ragged
        self.project = nn.Linear(4, TOKENS * WIDTH)
        self.register_buffer("seen", torch.tensor(0), persistent=False)
        self.register_buffer("scale", torch.tensor(1.0))

    def forward(self, inputs: Tensor) -> Ragged:
        self.seen += len(inputs)
        values = (self.project(inputs) * self.scale).sin().unflatten(1, (TOKENS, WIDTH))
        if not self.ragged:
            return Ragged(values)
        length = inputs[:, 0].abs().mul(10).long() % TOKENS + 1
        longest = int(length.max())
        return Ragged(values[:, :longest] * (torch.arange(longest) < length[:, None])[..., None], length)


class Case(NamedTuple):
    """Samples: some lack the modality, some share an input."""

    backbone: Toy
    inputs: Tensor
    contents: list[str | None]
    folder: Path

    @property
    def having(self) -> list[int]:
        return [place for place, content in enumerate(self.contents) if content is not None]

    @property
    def distinct(self) -> int:
        return len(set(self.contents) - {None})

    def shelf(self, folder: Path | None = None, precision: Any = "float32", **changes: Any) -> feature_store.Shelf:
        store = FeatureStore(folder or self.folder, precision=precision)
        return store.shelf("scan", changes.get("backbone", self.backbone), changes.get("said", PREPROCESSING))

    def fill(self, shelf: feature_store.Shelf, watch: Any = None) -> int:
        """How many inputs were shown to the backbone."""
        before = int(self.backbone.seen)
        having = self.having

        def read(places: Any) -> Tensor:
            return self.inputs[[having[place] for place in places]]

        shelf.fill(Inputs([str(self.contents[place]) for place in having], read), watch or Silence())
        return int(self.backbone.seen) - before

    def expected(self, place: int) -> Tensor:
        with torch.no_grad():
            seen = self.backbone.seen.clone()
            found = self.backbone(self.inputs[place : place + 1])
            self.backbone.seen.copy_(seen)
        return found.values[0] if found.length is None else found.values[0, : int(found.length[0])]

    def right(self, shelf: feature_store.Shelf) -> bool:
        """Whether what is read of every sample is what the backbone gives of it alone."""
        read = shelf.reader(self.contents)
        for place in self.having:
            found, wanted = read([place]), self.expected(place)
            length = len(found.values[0]) if found.length is None else int(found.length[0])
            if not torch.equal(found.values[0, :length], wanted.to(shelf.dtype).float()):
                return False
        return True


@pytest.fixture(params=[False, True], ids=["even", "ragged"])
def case(request, tmp_path) -> Case:
    torch.manual_seed(0)
    backbone = Toy(ragged=request.param).requires_grad_(False).eval()
    contents: list[str | None] = [f"{place % 31:064x}" if place % 5 else None for place in range(NUMBER)]
    inputs = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(n % 31)) for n in range(NUMBER)])
    return Case(backbone, inputs, contents, tmp_path / "store")


@pytest.fixture
def small(monkeypatch) -> None:
    """Shards of a few inputs."""
    monkeypatch.setattr(feature_store, "FULL", 4 * WIDTH * TOKENS * 4)


def shards(shelf: feature_store.Shelf) -> list[Path]:
    return sorted(shelf.folder.glob("*.safetensors"))


def listed(shard: Path) -> dict[str, Any]:
    """What the header of a shard says, as it stands there."""
    with safe_open(shard, framework="pt") as file:
        return json.loads(file.metadata()["index"])


def stored(shelf: feature_store.Shelf) -> set[str]:
    return {content for shard in shards(shelf) for content in listed(shard)["inputs"]}


# Once, and right


def test_each_distinct_input_is_encoded_exactly_once(case):
    shelf = case.shelf()
    assert case.distinct < len(case.having) < NUMBER
    assert case.fill(shelf) == case.distinct
    assert case.right(shelf)
    assert case.fill(shelf) == 0
    again = case.shelf()
    assert case.fill(again) == 0
    assert case.right(again)


def test_a_batch_of_features_is_padded_to_its_longest(case):
    shelf = case.shelf()
    case.fill(shelf)
    read, chosen = shelf.reader(case.contents), case.having[:9]
    found, rows = read(chosen), [case.expected(place) for place in chosen]
    longest = max(len(row) for row in rows)
    wanted = torch.stack([nn.functional.pad(row, (0, 0, 0, longest - len(row))) for row in rows])
    assert torch.equal(found.values, wanted)
    if case.backbone.ragged:
        assert found.length is not None
        assert found.length.tolist() == [len(row) for row in rows]
        assert len(set(found.length.tolist())) > 1
    else:
        assert found.length is None
    nothing = read([])
    assert nothing.values.shape[0] == 0
    assert nothing.values.shape[2] == WIDTH


def test_bfloat16_takes_half_the_room_and_is_close(case):
    exact, half = case.shelf(), case.shelf(precision="bfloat16")
    case.fill(exact)
    assert case.fill(half) == case.distinct
    assert half.folder != exact.folder
    assert case.right(half)  # what bfloat16 makes of it, to the bit
    one, other = exact.reader(case.contents)(case.having), half.reader(case.contents)(case.having)
    assert other.values.dtype == torch.float32
    torch.testing.assert_close(one.values, other.values, rtol=2**-8, atol=0)
    assert not torch.equal(one.values, other.values)
    sizes = [sum(load_file(shard)["values"].nbytes for shard in shards(shelf)) for shelf in (exact, half)]
    assert sizes[1] == sizes[0] / 2


def test_only_new_content_is_encoded(case):
    case.fill(case.shelf())
    case.contents[case.having[0]] = "f" * 64
    case.inputs[case.having[0]] += 1
    shelf = case.shelf()
    assert case.fill(shelf) == 1
    assert case.right(shelf)


def other_weight(case: Case) -> dict[str, Any]:
    changed = copy.deepcopy(case.backbone)
    with torch.no_grad():
        changed.project.weight[0, 0] = torch.nextafter(changed.project.weight[0, 0], torch.tensor(9.0))
    return {"backbone": changed}


def other_buffer(case: Case) -> dict[str, Any]:
    changed = copy.deepcopy(case.backbone)
    changed.scale += 1e-6
    return {"backbone": changed}


OTHERS = {
    "a weight's last bit": other_weight,
    "a buffer": other_buffer,
    "a transform": lambda case: {"said": {**PREPROCESSING, "transform": {"size": 9}}},
    "a setting": lambda case: {"said": {**PREPROCESSING, "settings": {"tokens": 4}}},
    "the precision": lambda case: {"precision": "bfloat16"},
}


@pytest.mark.parametrize("what", OTHERS)
def test_features_of_another_are_never_read(case, what):
    """Another shelf, of another name, that knows nothing of the first."""
    first = case.shelf()
    case.fill(first)
    other = case.shelf(**OTHERS[what](case))
    assert other.folder != first.folder
    other.fill(Inputs([], lambda places: case.inputs[places]), Silence())
    assert not other.places
    assert case.fill(first) == 0


def test_the_same_weights_of_another_run_use_what_is_there(case):
    case.fill(case.shelf())
    twin = copy.deepcopy(case.backbone).train()
    shelf = case.shelf(backbone=twin, said=dict(reversed(PREPROCESSING.items())))
    assert case.fill(shelf) == 0
    assert int(twin.seen) == int(case.backbone.seen)
    assert case.right(shelf)


# What it costs is said before


def test_the_size_is_announced_before_anything_is_written(case):
    shelf, there = case.shelf(), []
    watch = Recorder()
    watch.note = lambda sentence: there.append((sentence, shards(shelf), int(case.backbone.seen)))
    case.fill(shelf, watch)
    ((sentence, files, seen),) = there
    assert files == []
    assert seen == 0
    most = case.distinct * TOKENS * WIDTH * 4
    assert sentence.startswith(f"scan: {case.distinct} inputs are encoded once, at most {most / 1e3:.1f} kB, into ")
    values = sum(len(case.expected(place)) for place in {case.contents[p]: p for p in case.having}.values())
    assert values * WIDTH * 4 <= most
    header = 1000 * len(shards(shelf)) + 100 * case.distinct
    assert sum(shard.stat().st_size for shard in shards(shelf)) < most + header
    case.fill(shelf, watch)
    assert len(there) == 1


def test_too_little_room_is_one_sentence_and_nothing_is_encoded(case, monkeypatch):
    shelf, usage = case.shelf(), shutil.disk_usage("/")._replace(free=100)
    with monkeypatch.context() as patched:
        patched.setattr(feature_store.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(RemindError, match=r"features of .*'scan' need up to 1\.9 kB.*0\.1 kB are free"):
            case.fill(shelf)
    assert int(case.backbone.seen) == 0
    assert shards(shelf) == []
    assert case.fill(shelf) == case.distinct


def full(tensors: Any, path: Path, metadata: Any) -> None:
    """As safetensors does on a disk that is full (tried with RLIMIT_FSIZE): no OSError."""
    path.with_name(".tmpAbCdEf").write_bytes(b"half of it")
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_disk_that_fills_up_meanwhile_is_one_sentence(case, monkeypatch):
    shelf = case.shelf()
    with monkeypatch.context() as patched:
        patched.setattr(feature_store, "save_file", full)
        with pytest.raises((RemindError, OSError), match=r"No space left|room"):
            case.fill(shelf)
    assert case.fill(shelf) == case.distinct
    assert case.right(shelf)


def test_what_a_killed_process_left_unfinished_is_removed(case, monkeypatch):
    shelf = case.shelf()
    with monkeypatch.context() as patched:
        patched.setattr(feature_store, "save_file", full)
        with pytest.raises(BaseException):  # noqa: B017, PT011 (the test above says which)
            case.fill(shelf)
    (shelf.folder / ".shard.tmp").write_bytes(b"x" * 99)
    (shelf.folder / ("0" * 64 + ".safetensors")).write_bytes(b"x" * 99)  # not what its name promises
    case.fill(shelf)
    assert {path.suffix for path in shelf.folder.iterdir() if path.name != ".lock"} == {".safetensors"}
    assert not [path for path in shelf.folder.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    assert case.right(shelf)


@pytest.mark.parametrize("what", ["a file", "below a file"])
def test_a_store_that_cannot_be_made_is_one_sentence(case, what):
    case.folder.write_text("a file")
    shelf = case.shelf(case.folder if what == "a file" else case.folder / "deeper")
    with pytest.raises(RemindError, match=str(case.folder)):
        case.fill(shelf)


# Interrupted


@pytest.mark.usefixtures("small")
def test_interrupted_at_any_input_it_goes_on_from_the_last_shard(case):
    watch = Recorder()
    case.fill(case.shelf(case.folder / "whole"), watch)
    assert len(watch.encoded) > 3

    def stop_at(count: int) -> Recorder:
        def at(modality: str, done: int, total: int) -> None:
            if done == count:
                raise Stop

        return Recorder(at)

    for _, done, _ in watch.encoded:
        shelf = case.shelf(case.folder / str(done))
        with pytest.raises(Stop):
            case.fill(shelf, stop_at(done))
        kept = len(stored(shelf))
        assert kept >= min(0, done - 8)
        again = case.shelf(case.folder / str(done))
        assert case.fill(again) == case.distinct - kept
        assert case.right(again)
    assert kept > 0  # the last of them had something to go on from


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("when", ["before", "half of it", "all of it, but not its name"])
@pytest.mark.parametrize("count", [1, 2])
def test_killed_while_a_shard_is_written_nothing_of_it_counts(case, monkeypatch, when, count):
    shelf, save, seen = case.shelf(), feature_store.save_file, []

    def saving(tensors: Any, path: Path, metadata: Any) -> None:
        seen.append(path)
        if when == "before" and len(seen) == count:
            raise Stop
        save(tensors, path, metadata)
        if when == "half of it" and len(seen) == count:
            os.truncate(path, path.stat().st_size // 2)
        if len(seen) == count:
            raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(feature_store, "save_file", saving)
        with pytest.raises(Stop):
            case.fill(shelf)
    again = case.shelf()
    encoded = case.fill(again)
    assert 0 < encoded <= case.distinct
    assert (encoded < case.distinct) == (count == 2)
    assert case.right(again)


def test_a_shard_is_written_when_it_is_time(case, monkeypatch):
    monkeypatch.setattr(feature_store, "OFTEN", -1.0)
    shelf = case.shelf()
    case.fill(shelf)
    assert len(shards(shelf)) == -(-case.distinct // 8)
    assert case.right(shelf)


# Damaged


@pytest.fixture
def filled(case, small) -> Case:
    case.fill(case.shelf())
    return case


def damaged_copy(case: Case, place: Path) -> feature_store.Shelf:
    """The store in another place, where no process has it open."""
    shutil.copytree(case.folder, place)
    return case.shelf(place)


def survives(case: Case, shelf: feature_store.Shelf, *, lost: int | None = None) -> None:
    """Whatever was done to it, it is filled again and right, here and by who comes next."""
    watch = Recorder()
    encoded = case.fill(shelf, watch)
    assert case.right(shelf)
    assert lost is None or encoded == lost
    assert watch.encoded or not encoded
    later = case.shelf(shelf.folder.parent)
    assert case.fill(later) == 0
    assert case.right(later)


def test_a_flipped_bit_of_a_shard_is_found_wherever_it_is(filled, tmp_path):
    rng = random.Random(0)
    for number in range(40):
        shelf = damaged_copy(filled, tmp_path / str(number))
        shard = rng.choice(shards(shelf))
        inputs = listed(shard)["inputs"]
        content = bytearray(shard.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        shard.write_bytes(content)
        survives(filled, shelf, lost=len(inputs))


def test_a_truncated_shard_is_found_at_every_length(filled, tmp_path):
    length = shards(filled.shelf())[0].stat().st_size
    for size in range(0, length, 1 + length // 12):
        shelf = damaged_copy(filled, tmp_path / str(size))
        os.truncate(shards(shelf)[0], size)
        survives(filled, shelf)


def swapped(shelf: feature_store.Shelf) -> None:
    one, other = shards(shelf)[:2]
    one.rename(shelf.folder / "x")
    other.rename(one)
    (shelf.folder / "x").rename(other)


def rewritten(change: Callable[[dict[str, Any]], Any], *, renamed: bool) -> Callable[[feature_store.Shelf], None]:
    """A header that says something else; ``renamed``, the shard's name agrees with it."""

    def damage(shelf: feature_store.Shelf) -> None:
        shard = shards(shelf)[0]
        index, values = change(listed(shard)), load_file(shard)["values"]
        save_file({"values": values}, shard, metadata={} if index is None else {"index": json.dumps(index)})
        if renamed:
            shard.rename(shard.with_name(f"{hashlib.sha256(shard.read_bytes()).hexdigest()}.safetensors"))

    return damage


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no index": lambda held: None,
    "a list": lambda held: [],
    "a number": lambda held: 7,
    "no inputs": lambda held: {key: held[key] for key in ("lengths", "ragged")},
    "no lengths": lambda held: {key: held[key] for key in ("inputs", "ragged")},
    "no ragged": lambda held: {key: held[key] for key in ("inputs", "lengths")},
    "inputs of another kind": lambda held: held | {"inputs": 7},
    "too few lengths": lambda held: held | {"lengths": held["lengths"][1:]},
    "lengths as text": lambda held: held | {"lengths": ["3"] * len(held["lengths"])},
    "one length too large": lambda held: held | {"lengths": [held["lengths"][0] + 1, *held["lengths"][1:]]},
}
DAMAGE: dict[str, Callable[[feature_store.Shelf], Any]] = {
    "no shard": lambda shelf: shards(shelf)[0].unlink(),
    "swapped shards": swapped,
    "a folder for a shard": lambda shelf: (
        shards(shelf)[0].unlink(),
        (shelf.folder / f"{'0' * 64}.safetensors").mkdir(),
    ),
    "inputs swapped": rewritten(lambda held: held | {"inputs": held["inputs"][::-1]}, renamed=False),
    **{name: rewritten(change, renamed=False) for name, change in CHANGES.items()},
    **{f"{name}, and a name that agrees": rewritten(change, renamed=True) for name, change in CHANGES.items()},
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_encoded_again_and_never_used(filled, tmp_path, what):
    shelf = damaged_copy(filled, tmp_path / "copy")
    assert len(shards(shelf)) > 2
    DAMAGE[what](shelf)
    survives(filled, shelf)


def test_it_is_said_how_many_shards_were_damaged(filled, tmp_path):
    shelf = damaged_copy(filled, tmp_path / "copy")
    os.truncate(shards(shelf)[0], 10)
    watch = Recorder()
    filled.fill(shelf, watch)
    assert watch.notes[0] == f"{shelf.folder}: 1 damaged files are made again."
    assert "inputs are encoded once" in watch.notes[1]


def test_a_shard_damaged_while_this_process_has_it_open_is_not_used_again(filled):
    """The rebuilt shard has the name of the damaged one, which is still mapped."""
    shelf = filled.shelf()
    filled.fill(shelf)
    assert filled.right(shelf)
    for shard in shards(shelf):
        content = bytearray(shard.read_bytes())
        content[-40:] = bytes(40)
        with shard.open("r+b") as file:  # in place, as a failing disk would
            file.write(content)
    again = filled.shelf()
    assert filled.fill(again) == filled.distinct
    assert filled.right(again)


# Two at once


@pytest.mark.usefixtures("small")
def test_two_that_fill_one_store_at_once_encode_each_input_once_between_them(case):
    """Each opens the lock's file for itself, as two processes do."""
    other = Case(copy.deepcopy(case.backbone), case.inputs, case.contents, case.folder)
    start, counts, failed = threading.Barrier(2), [], []

    def run(one: Case) -> None:
        try:
            shelf = one.shelf()
            start.wait()
            counts.append(one.fill(shelf))
            assert one.right(shelf)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in (case, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed
    assert sorted(counts) == [0, case.distinct]


@pytest.mark.usefixtures("small")
def test_who_reads_is_not_disturbed_by_who_fills(case):
    """One has filled and will read when the other adds what it lacks."""
    first = case.shelf()
    case.fill(first)
    more = Case(
        case.backbone, torch.cat([case.inputs, case.inputs + 1]), [*case.contents, *["e" * 64] * NUMBER], case.folder
    )
    more.inputs[NUMBER:] = case.inputs[0] + 1
    second = more.shelf()
    assert more.fill(second) == 1
    assert case.right(first)
    assert more.right(second)


def test_a_store_read_in_pieces_gives_what_it_gives_at_once(filled):
    shelf = filled.shelf()
    filled.fill(shelf)
    read = shelf.reader(filled.contents)
    order = random.Random(1).sample(filled.having, len(filled.having))
    whole = read(order)
    for row, place in enumerate(order):
        part = read([place]).values[0]
        assert torch.equal(whole.values[row, : len(part)], part)
