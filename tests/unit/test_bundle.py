import ast
import hashlib
import os
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch

import remind
from remind.engine import bundle
from remind.engine.bundle import newest_bundle, read_bundle, remove_bundle, write_bundle, write_text
from remind.errors import RemindError

FILES = ("tensors.safetensors", "document.json", "SHA256SUMS")


def contents(number):
    """Tensors of every kind a run has, and a document that names which they are."""
    tensors = {
        "weights": torch.full((3, 4), 0.1 * number),
        "mask": torch.tensor([True, False]),
        "steps": torch.tensor(number),
        "rng": torch.get_rng_state()[:9],
        "nothing": torch.zeros(0, 2),
        "weights of groups": torch.tensor([0.1, 0.9], dtype=torch.float64),
    }
    return tensors, {"number": number, "float": 0.1 + 0.2, "none": None, "ö": ["ü"]}


def same(found, number):
    tensors, document = contents(number)
    assert found[1] == document
    assert found[0].keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert found[0][key].dtype == tensor.dtype
        assert torch.equal(found[0][key], tensor)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "last"


def write(folder, number):
    write_bundle(folder, *contents(number))


def sums(folder):
    """Make the checksums hold for whatever is there."""
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES[:2]]
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_what_is_written_is_read_to_the_bit(folder):
    write(folder, 1)
    same(read_bundle(folder), 1)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    write(folder, 2)
    same(read_bundle(folder), 2)


def test_views_and_parameters_are_written_as_what_they_show(folder):
    big = torch.arange(12.0).view(3, 4)
    write_bundle(folder, {"t": big.T, "row": big.clone()[1], "p": torch.nn.Parameter(big.clone())}, {})
    tensors, _ = read_bundle(folder)
    assert torch.equal(tensors["t"], big.T)
    assert torch.equal(tensors["row"], big[1])
    assert torch.equal(tensors["p"], big)


def test_there_is_no_newest_bundle_where_there_has_never_been_one(folder):
    assert newest_bundle(folder) is None


# Killed while writing


class Killed(BaseException):
    """What no one catches: the process is gone."""


class Executioner:
    """Kills at the n-th step of writing: before it is done, half-way through it where it has halves, or just after."""

    STEPS = ((bundle.os, "replace"), (bundle.os, "fsync"), (bundle.shutil, "rmtree"), (bundle, "save_file"))

    def __init__(self, monkeypatch, at=None, when="before"):
        self.at, self.when, self.count = at, when, 0
        for module, name in self.STEPS:
            monkeypatch.setattr(module, name, self._watched(name, getattr(module, name)))
        monkeypatch.setattr(Path, "write_text", self._watched("write_text", Path.write_text))

    def _watched(self, name, function):
        def watched(*args, **kwargs):
            self.count += 1
            if self.count != self.at:
                return function(*args, **kwargs)
            if self.when == "half-way":
                if name == "rmtree":  # some files are gone
                    for path in sorted(Path(args[0]).glob("*"))[:1]:
                        path.unlink()
                elif name in ("save_file", "write_text"):  # half of the file is there
                    function(*args, **kwargs)
                    path = Path(args[1] if name == "save_file" else args[0])
                    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            if self.when == "after":
                function(*args, **kwargs)
            raise Killed

        return watched


def steps_of(monkeypatch, folder, number):
    with monkeypatch.context() as patched:
        executioner = Executioner(patched)
        write(folder, number)
    return executioner.count


@pytest.mark.parametrize("when", ["before", "half-way", "after"])
@pytest.mark.parametrize("written_before", [1, 2])
def test_killed_anywhere_the_previous_or_the_new_bundle_is_whole(tmp_path, monkeypatch, written_before, when):
    def prepared(name):
        folder = tmp_path / name / "last"
        for number in range(written_before):
            write(folder, number)
        return folder

    steps = steps_of(monkeypatch, prepared("rehearsal"), written_before)
    assert steps >= 8
    for at in range(1, steps + 1):
        folder = prepared(str(at))
        with monkeypatch.context() as patched:
            Executioner(patched, at, when)
            with pytest.raises(Killed):
                write(folder, written_before)
        found = newest_bundle(folder)
        assert found is not None, at
        same(found, found[1]["number"])
        assert found[1]["number"] in (written_before - 1, written_before), at
        write(folder, 9)
        same(newest_bundle(folder), 9)
        assert {path.name for path in folder.parent.iterdir()} <= {"last", "last.previous"}


@pytest.mark.parametrize("when", ["before", "half-way", "after"])
def test_killed_while_replacing_a_damaged_bundle_the_whole_one_is_not_lost(tmp_path, monkeypatch, when):
    """The newest was damaged, so the one before it is all there is until the new one is in place."""

    def prepared(name):
        folder = tmp_path / name / "last"
        write(folder, 0)
        write(folder, 1)
        (folder / "document.json").write_bytes(b"damaged")
        same(newest_bundle(folder), 0)
        return folder

    for at in range(1, steps_of(monkeypatch, prepared("rehearsal"), 2) + 1):
        folder = prepared(str(at))
        with monkeypatch.context() as patched:
            Executioner(patched, at, when)
            with pytest.raises(Killed):
                write(folder, 2)
        found = newest_bundle(folder)
        assert found is not None
        assert found[1]["number"] in (0, 2)


@pytest.mark.parametrize("error", [OSError("No space left on device"), Killed()])
def test_text_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, error):
    def fail(*args):
        raise error

    path = tmp_path / "config.yaml"
    write_text(path, "old ö")
    with monkeypatch.context() as patched:
        patched.setattr(bundle.os, "replace", fail)
        with pytest.raises(type(error)):
            write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old ö"
    write_text(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]
    assert path.read_text() == "new"


# Damage


def test_a_flipped_bit_is_found_in_every_file(folder):
    write(folder, 1)
    rng = random.Random(0)
    for n in range(100):
        path = folder / FILES[n % 3]
        whole = path.read_bytes()
        bit = rng.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(RemindError, match=str(folder)):
            read_bundle(folder)
        path.write_bytes(whole)
    same(read_bundle(folder), 1)


def test_no_flipped_bit_of_the_checksums_lets_anything_else_through(folder):
    write(folder, 1)
    path = folder / "SHA256SUMS"
    whole = path.read_bytes()
    passed = 0
    ends = [place for place, byte in enumerate(whole) if byte in b"\n "]
    for bit in [8 * place + bit for place in [*ends, *range(0, len(whole), 9)] for bit in range(8)]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            same(read_bundle(folder), 1)  # a line end that became another line end: the files are what they were
            passed += 1
        except RemindError:
            pass
    assert passed <= 2


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found_at_every_length(folder, name):
    write(folder, 1)
    whole = (folder / name).read_bytes()
    for length in range(0, len(whole), 1 + len(whole) // 100):
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(RemindError, match=str(folder)):
            read_bundle(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    write(folder, 1)
    (folder / name).unlink()
    with pytest.raises(RemindError, match=name):
        read_bundle(folder)


def test_files_of_two_bundles_do_not_mix(tmp_path):
    write(tmp_path / "a", 1)
    write(tmp_path / "b", 2)
    for name in FILES:
        shutil.copytree(tmp_path / "a", tmp_path / name)
        shutil.copy(tmp_path / "b" / name, tmp_path / name / name)
        with pytest.raises(RemindError, match="damaged"):
            read_bundle(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
def test_the_bundle_before_stands_in_for_a_damaged_one(folder, name):
    write(folder, 1)
    write(folder, 2)
    same(newest_bundle(folder), 2)
    (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    same(newest_bundle(folder), 1)
    shutil.rmtree(folder)
    same(newest_bundle(folder), 1)


def test_two_damaged_bundles_are_an_error_that_names_the_newer(folder):
    write(folder, 1)
    write(folder, 2)
    (folder / "document.json").write_bytes(b"{}")
    (folder.with_name("last.previous") / "tensors.safetensors").write_bytes(b"")
    with pytest.raises(RemindError, match=r"last/document\.json: is damaged"):
        newest_bundle(folder)


def test_a_removed_bundle_leaves_nothing(folder):
    write(folder, 1)
    write(folder, 2)
    remove_bundle(folder)
    assert list(folder.parent.iterdir()) == []


# Hostile files


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("payload", ["pickle", "torch"])
def test_nothing_is_ever_unpickled(folder, tmp_path, monkeypatch, name, payload):
    monkeypatch.chdir(tmp_path)
    write(folder, 1)
    if payload == "pickle":
        (folder / name).write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save(Bomb(), folder / name)
    sums(folder)
    with pytest.raises(RemindError, match="not what a checkpoint holds"):
        read_bundle(folder)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(Bomb()))  # noqa: S301 (the bomb is live)
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,  # a header of 2^64 bytes
        (2**40).to_bytes(8, "little") + b"{}",
        (8).to_bytes(8, "little") + b"not json",
        (2).to_bytes(8, "little") + b"[]",
        (70).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1000000]}}   ',
    ],
)
def test_hostile_tensors_are_refused(folder, content):
    write(folder, 1)
    (folder / "tensors.safetensors").write_bytes(content)
    sums(folder)
    with pytest.raises(RemindError, match="not what a checkpoint holds"):
        read_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_hostile_documents_are_refused(folder, content):
    write(folder, 1)
    (folder / "document.json").write_bytes(content)
    sums(folder)
    with pytest.raises(RemindError):
        read_bundle(folder)


def test_the_package_has_no_call_that_could_run_what_it_reads():
    forbidden = {"eval", "exec", "pickle", "dill", "joblib", "shelve", "marshal", "extractall"}
    unsafe = {("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load")}
    safe_if = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}
    for path in Path(remind.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name):
                assert node.id not in forbidden, path
            if isinstance(node, ast.Attribute):
                assert node.attr not in forbidden - {"eval"}, path  # model.eval() is another thing
                if isinstance(node.value, ast.Name):
                    assert (node.value.id, node.attr) not in unsafe, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = (getattr(node.func.value, "id", ""), node.func.attr)
                given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
                key, value = safe_if.get(name, (None, None))
                assert key is None or given.get(key) is value, path
            if isinstance(node, ast.Import | ast.ImportFrom):
                imported = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not forbidden & {part for name in imported for part in name.split(".")}, path
