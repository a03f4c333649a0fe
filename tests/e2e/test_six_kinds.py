"""Files of every kind, from the command line to the predictions: what a user is promised of them."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from runs import Stop, StopAt
from safetensors import safe_open
from six_kinds import (
    CANARY,
    FILES,
    LIGHT,
    SIZES,
    Recorder,
    file_of,
    having,
    put,
    python,
    same_run,
    table_of,
    write_embedding,
    write_events,
    write_six,
)
from torch.utils.flop_counter import FlopCounterMode

from remind.api import evaluate, fit, load_model
from remind.cohort.cohort import load
from remind.cohort.survey import admit
from remind.config import Recipe, load_recipe
from remind.encoders.sequence import Events
from remind.encoders.text import T5
from remind.engine import feature_store
from remind.engine.feature_store import FeatureStore
from remind.engine.fitted import FittedModel
from remind.errors import RemindError

WORDS = [word for setting in SIZES for word in ("-s", setting)]
FROZEN = "encoders.text.frozen=true"


def inputs_of(shard: Path) -> list[str]:
    """The checksums of the inputs whose features a shard holds."""
    with safe_open(shard, framework="pt") as file:
        return json.loads(file.metadata()["index"])["inputs"]


def recipe(*overrides: str) -> Recipe:
    return load_recipe(None, [*SIZES, *overrides])


def files(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Text, a table, sequences and embeddings; every text twice."""
    place = write_six(tmp_path_factory.mktemp("light") / "light", modalities=LIGHT)
    notes = dict(table_of(place).select("visit", "note").drop_nulls().iter_rows())
    twins = dict(zip(list(notes)[::2], list(notes)[1::2], strict=False))
    return put(place, "note", {other: notes[one] for one, other in twins.items()})


@pytest.fixture
def own(folder, tmp_path) -> Path:
    """A copy that a test may change, its file times included."""
    return Path(shutil.copytree(folder, tmp_path / "light"))


TWO_STAGES = ("method=remind", "model.dropout=0.2", "train.checkpoint_every=2")
ONE_STAGE = ("method=soft-moe", FROZEN)


@pytest.fixture(scope="module")
def plain(folder, tmp_path_factory) -> Callable[..., Path]:
    """Runs without a store: whatever a store does, its run must be this one, to the bit."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*overrides: str) -> Path:
        if overrides not in made:
            made[overrides] = tmp_path_factory.mktemp("plain") / "run"
            fit(folder, recipe=recipe(*overrides, "data.features=none"), out=made[overrides])
            assert not list((made[overrides].parent / "features").glob("*/"))
        return made[overrides]

    return run


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    """How many inputs each backbone is shown while it does not learn."""
    seen: Counter[str] = Counter()
    for kind in (T5, Events):
        forward = kind.forward

        def counting(self: Any, inputs: Any, *, forward: Any = forward, name: str = kind.__name__) -> Any:
            if not torch.is_grad_enabled():
                seen[name] += len(inputs[0])
            return forward(self, inputs)

        monkeypatch.setattr(kind, "forward", counting)
    return seen


# A store changes nothing but the time


@pytest.mark.parametrize("overrides", [TWO_STAGES, ONE_STAGE], ids=["two-stages", "frozen-text"])
def test_a_store_changes_no_bit_of_a_run(folder, plain, tmp_path, overrides):
    fit(folder, recipe=recipe(*overrides), out=tmp_path / "run")
    assert same_run(tmp_path / "run", plain(*overrides))
    shelves = sorted(path.name.split("-")[0] for path in (tmp_path / "features").iterdir() if path.is_dir())
    assert {"note"} <= set(shelves) <= {"note", "vitals"}


@pytest.mark.slow
def test_worker_processes_change_no_bit_of_a_run(folder, plain, tmp_path):
    """They read inputs in the first stage, fill the store, and read features in the second.

    In a process of its own: where it hangs, it is ended.
    """
    code = (
        "import json, sys; from remind.api import fit; from remind.config import load_recipe\n"
        "from remind.cohort import workers; workers.WORTH_IT = 1  # else a cohort this small has none\n"
        "fit(sys.argv[1], recipe=load_recipe(None, json.loads(sys.argv[3])), out=sys.argv[2])"
    )
    overrides = [*SIZES, *TWO_STAGES, "data.workers=2"]
    done = python(code, folder, tmp_path / "run", json.dumps(overrides), timeout=120)
    assert done.returncode == 0, done.stderr
    assert same_run(tmp_path / "run", plain(*TWO_STAGES))


def test_bfloat16_features_give_a_run_that_is_close(folder, plain, tmp_path):
    fit(folder, recipe=recipe(*ONE_STAGE, "data.features=bfloat16"), out=tmp_path / "run")
    one, other = (
        pl.read_parquet(run / "predictions.parquet").select("p_none", "p_mild").to_numpy()
        for run in (tmp_path / "run", plain(*ONE_STAGE))
    )
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, atol=0.03)


def test_a_frozen_backbone_sees_each_distinct_text_exactly_once(folder, tmp_path, calls):
    notes = table_of(folder)["note"].drop_nulls()
    assert notes.n_unique() < len(notes)
    fit(folder, recipe=recipe(*ONE_STAGE), out=tmp_path / "run")
    assert calls["T5"] == notes.n_unique()  # over epochs, validation, and the predictions in the end
    fit(folder, recipe=recipe(*ONE_STAGE, "model.dim=24", "train.epochs=3"), out=tmp_path / "another")
    evaluate(tmp_path / "another", folder, split=None)
    assert calls["T5"] == notes.n_unique()  # the same seed and sizes: the same frozen weights


def test_in_the_second_stage_every_backbone_runs_once_an_input(folder, tmp_path, calls):
    seen = []

    class Stages(Recorder):
        def epoch(self, row: Any, groups: Any) -> None:
            seen.append((row["stage"], dict(calls)))

    fit(folder, recipe=recipe(*TWO_STAGES, "train.epochs=4"), out=tmp_path / "run", watch=Stages())
    assert [stage for stage, _ in seen] == ["shared"] * 2 + ["specialised"] * 2
    cohort = load(folder)
    rows = np.concatenate([cohort.rows("train"), cohort.rows("validation")])
    for name, kind in (("note", "T5"), ("vitals", "Events")):
        having = {content for row, content in enumerate(admit(cohort).content(name)) if content and row in rows}
        assert seen[2][1][kind] - seen[1][1][kind] == len(having)
        assert seen[3][1][kind] == seen[2][1][kind]


def test_what_is_stored_is_announced_before_it_is_written(folder, tmp_path):
    there = []

    class Watching(Recorder):
        def note(self, sentence: str) -> None:
            name = sentence.partition(":")[0]
            shelf = [path for path in (tmp_path / "features").glob(f"{name}-*/*") if path.suffix == ".safetensors"]
            there.append((sentence, shelf))

    fit(folder, recipe=recipe(*ONE_STAGE), out=tmp_path / "run", watch=Watching())
    announced = [(sentence, shelf) for sentence, shelf in there if "encoded once" in sentence]
    assert announced
    assert all(" kB, " in sentence or " MB, " in sentence for sentence, _ in announced)
    assert announced[0][1] == []


# Interrupted while encoding


def test_a_run_stopped_while_it_encodes_goes_on_and_encodes_only_what_is_missing(folder, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "OFTEN", -1.0)  # a shard every few inputs
    moments = Recorder()
    fit(folder, recipe=recipe(*TWO_STAGES), out=tmp_path / "whole" / "run", watch=moments)
    assert len(moments.encoded) > 3
    for count in range(1, len(moments.encoded) + 1, 2):
        seen = []

        def at(*said: Any, seen: list = seen, count: int = count) -> None:
            seen.append(said)
            if len(seen) == count:
                raise Stop

        place = tmp_path / str(count) / "run"
        with pytest.raises(Stop):
            fit(folder, recipe=recipe(*TWO_STAGES), out=place, watch=Recorder(at))
        stored = sum(len(inputs_of(shard)) for shard in (place.parent / "features").glob("*/*.safetensors"))
        again = Recorder()
        fit(folder, recipe=recipe(*TWO_STAGES), out=place, watch=again)
        total = {name: done for name, done, _ in moments.encoded}  # the last count of each
        left = {name: done for name, done, _ in again.encoded}
        assert sum(left.values()) == sum(total.values()) - stored, count
        assert same_run(place, plain(*TWO_STAGES))


def test_too_little_room_stops_with_a_sentence_and_the_same_call_goes_on(folder, plain, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        usage = shutil.disk_usage("/")._replace(free=10)
        patched.setattr(feature_store.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(RemindError, match=r"are free.*[Mm]ake room"):
            fit(folder, recipe=recipe(*ONE_STAGE), out=tmp_path / "run")
    fit(folder, recipe=recipe(*ONE_STAGE), out=tmp_path / "run")
    assert same_run(tmp_path / "run", plain(*ONE_STAGE))


def test_a_damaged_store_costs_time_and_no_bit(folder, plain, tmp_path):
    fit(folder, recipe=recipe(*ONE_STAGE), out=tmp_path / "first" / "run")
    shutil.copytree(tmp_path / "first" / "features", tmp_path / "features")
    for number, shard in enumerate(sorted((tmp_path / "features").glob("*/*.safetensors"))):
        content = bytearray(shard.read_bytes())
        content[-5 - number] ^= 4
        shard.write_bytes(content)
    (tmp_path / "features" / "survey.cache").write_bytes(b"PAR1 damaged PAR1")
    watch = Recorder()
    fit(folder, recipe=recipe(*ONE_STAGE), out=tmp_path / "run", watch=watch)
    assert watch.encoded
    assert any("damaged files are made again" in sentence for sentence in watch.notes)
    assert same_run(tmp_path / "run", plain(*ONE_STAGE))


def test_a_store_that_cannot_be_written_is_one_line_and_code_2(folder, tmp_path, remind):
    (tmp_path / "features").write_text("a file")
    done = remind("train", folder, "--out", tmp_path / "run", *WORDS, "-s", FROZEN, "-m", "soft-moe")
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert str(tmp_path / "features") in done.err


@pytest.mark.slow
def test_two_processes_may_train_into_one_store_at_once(folder, plain, tmp_path):
    code = (
        "import json, os, sys; from remind.api import fit; from remind.config import load_recipe\n"
        "recipe = load_recipe(None, json.loads(sys.argv[3]))\n"
        "pid = os.fork()\n"
        "fit(sys.argv[1], recipe=recipe, out=sys.argv[2] + ('/one' if pid else '/other'))\n"
        "if not pid: os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    done = python(code, folder, tmp_path, json.dumps([*SIZES, *ONE_STAGE]), timeout=60)
    assert done.returncode == 0, done.stderr
    for name in ("one", "other"):
        assert same_run(tmp_path / name, plain(*ONE_STAGE))
    (shelf,) = (tmp_path / "features").glob("note-*")
    indices = [inputs_of(shard) for shard in shelf.glob("*.safetensors")]
    assert sum(map(len, indices)) == len({content for index in indices for content in index})


# What a shelf's name must hold


def features_of(folder: Path, store: Path, *overrides: str) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Features of all the samples that have the modality, and how many were encoded for it."""
    cohort = admit(load(folder))
    torch.manual_seed(0)
    fitted = FittedModel.create(cohort, recipe("encoders.image.frozen=true", "method=soft-moe", *overrides))
    fitted.model.requires_grad_(False).eval()
    dataset, watch = fitted.dataset(cohort, np.arange(len(cohort))), Recorder()
    fitted.encode_once(cohort, [dataset], FeatureStore(store, precision="float32"), watch)
    found = {}
    for place, name in enumerate(cohort.modalities):
        if name in ("scan", "vitals", "note"):
            found[name] = dataset.readers[name](np.flatnonzero(cohort.available[:, place]).tolist()).values
    return found, {name: done for name, done, _ in watch.encoded}


def test_another_window_never_reads_the_features_of_the_first(tmp_path):
    """Same files, same weights: only what the spec says of the shades differs."""
    folder = write_six(tmp_path / "six", samples=12, modalities=["scan", "labs"])
    for key in having(folder, "scan"):
        path = file_of(folder, "scan", key)
        shades = np.random.default_rng(int(key[1:])).integers(0, 60_000, (6, 6)).astype(np.uint16)
        Image.fromarray(shades).save(path)
    first, _ = features_of(folder, tmp_path / "store")
    spec = (folder / "cohort.yaml").read_text()
    window = "kind: image\n    window: {center: 30000, width: 9000}"
    (folder / "cohort.yaml").write_text(spec.replace("kind: image", window))
    second, encoded = features_of(folder, tmp_path / "store")
    alone, _ = features_of(folder, tmp_path / "another")
    assert not torch.equal(first["scan"], alone["scan"])
    assert torch.equal(second["scan"], alone["scan"])
    assert encoded["scan"] == len(having(folder, "scan"))


@pytest.mark.parametrize(
    ("modality", "change"),
    [
        ("note", "encoders.text.limit=5"),
        ("note", "encoders.text.tokens=2"),
        ("vitals", "encoders.sequence.limit=2"),
        ("vitals", "encoders.sequence.heads=2"),
        ("vitals", "encoders.sequence.tokens=3"),
    ],
)
def test_another_setting_never_reads_the_features_of_the_first(folder, tmp_path, modality, change):
    features_of(folder, tmp_path / "store")
    found, encoded = features_of(folder, tmp_path / "store", change)
    alone, _ = features_of(folder, tmp_path / "another", change)
    assert modality in encoded
    assert torch.equal(found[modality], alone[modality])


def test_a_changed_text_and_a_changed_file_are_encoded_and_nothing_else(own, tmp_path):
    features_of(own, tmp_path / "store")
    key = having(own, "note")[0]
    put(own, "note", {key: "another text"})
    path = file_of(own, "vitals", having(own, "vitals")[0])
    frame = pl.read_parquet(path)
    frame.with_columns(pl.col("time") * 1).write_parquet(path, compression="uncompressed")  # same events, other bytes
    found, encoded = features_of(own, tmp_path / "store")
    alone, _ = features_of(own, tmp_path / "another")
    assert encoded == {"note": 1, "vitals": 1}
    assert all(torch.equal(found[name], alone[name]) for name in found)


def test_what_training_samples_taught_is_part_of_the_preprocessing(own, tmp_path):
    """Another mean makes other inputs of files that are what they were, for weights that are what they were."""
    features_of(own, tmp_path / "store")
    cohort = load(own)
    training = [cohort.ids[row] for row in cohort.rows("train")]
    path = file_of(own, "vitals", next(key for key in having(own, "vitals") if key in training))
    frame = pl.read_parquet(path)
    frame.with_columns(pl.col("value") + 1000).write_parquet(path)
    found, encoded = features_of(own, tmp_path / "store")
    alone, _ = features_of(own, tmp_path / "another")
    assert encoded == {"vitals": len(having(own, "vitals"))}
    assert torch.equal(found["vitals"], alone["vitals"])


# Unreadable files


def broken(folder: Path, name: str = "vitals") -> tuple[str, bytes]:
    key = having(folder, name)[0]
    path = file_of(folder, name, key)
    content = path.read_bytes()
    path.write_bytes(b"PAR1 broken")
    return key, content


def test_an_unreadable_file_stops_the_run_is_listed_and_once_mended_the_same_command_works(
    own, plain, tmp_path, remind
):
    key, content = broken(own)
    out = tmp_path / "run"
    command = ("train", own, "--out", out, *WORDS, "-m", "soft-moe", "-s", FROZEN)
    done = remind(*command)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert key in done.err
    assert list(files(out)) == ["quarantine.csv"]
    listed = pl.read_csv(out / "quarantine.csv")
    assert listed.columns == ["id", "modality", "file", "reason"]
    assert listed.rows()[0][:3] == (key, "vitals", str(file_of(own, "vitals", key).relative_to(own)))
    assert remind(*command).code == 2  # and again
    file_of(own, "vitals", key).write_bytes(content)
    done = remind(*command)
    assert done.code == 0, done.err
    assert same_run(out, plain(*ONE_STAGE))
    assert not (out / "quarantine.csv").exists()  # it would say that a file was left out


def test_with_permission_it_counts_as_missing_within_the_budget_only(own, tmp_path, remind):
    key, _ = broken(own)
    out, words = tmp_path / "run", [*WORDS, "-m", "soft-moe", "-s", FROZEN]
    done = remind("train", own, "--out", out, *words, "--unreadable", "missing")
    assert done.code == 2
    assert "above the budget of 1.0%" in done.err
    assert list(files(out)) == ["quarantine.csv"]
    done = remind("train", own, "--out", out, *words, "--unreadable", "missing", "-s", "data.budget=0.2")
    assert done.code == 0, done.err
    assert pl.read_csv(out / "quarantine.csv")["id"].to_list() == [key]
    nulled = put(own, "vitals", {key: None})
    fit(nulled, recipe=recipe(*ONE_STAGE, "data.budget=0.2", "data.unreadable=missing"), out=tmp_path / "nulled")
    assert same_run(out, tmp_path / "nulled")
    assert remind("train", own, "--unreadable", "perhaps").code == 2


def test_a_quarantine_half_written_does_not_block_the_folder(own, tmp_path):
    """A process killed between writing the list and putting it in place."""
    out = tmp_path / "run"
    out.mkdir()
    (out / ".quarantine.csv.tmp").write_text("id,modality")
    fit(own, recipe=recipe(*ONE_STAGE, "train.epochs=1"), out=out)


def test_another_cohorts_broken_files_are_not_listed_in_a_finished_run(own, plain, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(plain(*ONE_STAGE), out)
    before = files(out)
    broken(own)
    with pytest.raises(RemindError):
        fit(own, recipe=recipe("method=remind"), out=out)
    assert files(out) == before


def test_an_embedding_of_another_width_is_refused_before_anything_is_trained(own, tmp_path):
    cohort = load(own)
    places = [row for row in cohort.rows("validation") if cohort.available[row, cohort.modalities.index("emb")]]
    np.save(file_of(own, "emb", cohort.ids[places[0]]), np.ones((1, 5), np.float32))
    watch = Recorder()
    steps: list[int] = []
    watch.step = steps.append
    with pytest.raises(RemindError, match=cohort.ids[places[0]]):
        fit(own, recipe=recipe(*ONE_STAGE), out=tmp_path / "run", watch=watch)
    assert steps == []


# Another look at a run


def test_resuming_is_refused_when_one_byte_of_a_file_has_changed(own, tmp_path):
    wanted = recipe(*TWO_STAGES)
    with pytest.raises(Stop):
        fit(own, recipe=wanted, out=tmp_path / "run", watch=StopAt(3))
    path = file_of(own, "emb", having(own, "emb")[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RemindError, match=r"holds another run \(files"):
        fit(own, recipe=wanted, out=tmp_path / "run")
    path.write_bytes(whole)
    table_of(own).sample(fraction=1, shuffle=True, seed=2).write_parquet(own / "samples.parquet")
    for name in FILES:
        for file in (own / name).glob("*"):
            os.utime(file, (7, 7))
    fit(own, recipe=wanted, out=tmp_path / "run")


def test_evaluating_a_run_on_its_cohort_uses_the_store_beside_it_and_needs_none(folder, tmp_path, calls, remind):
    place = tmp_path / "runs" / "one"
    fit(folder, recipe=recipe(*ONE_STAGE), out=place)
    calls.clear()
    with_store = remind("evaluate", place, folder, "--json")
    assert with_store.code == 0, with_store.err
    assert calls["T5"] == 0
    shutil.rmtree(tmp_path / "runs" / "features")
    without = remind("evaluate", place, folder, "--json")
    assert calls["T5"] > 0
    assert json.loads(without.out) == json.loads(with_store.out) == json.loads(remind("evaluate", place, "--json").out)


def test_empty_files_do_not_move_samples_between_splits_when_a_run_is_evaluated(own, tmp_path):
    """The split is drawn by combination; what is empty belongs to no combination, now as in training."""
    rng = np.random.default_rng(0)
    for key in having(own, "vitals")[::2]:
        write_events(file_of(own, "vitals", key), rng, count=0)
    for key in having(own, "emb")[::2]:
        write_embedding(file_of(own, "emb", key), rng, count=0)
    frame = table_of(own)
    lone = frame.filter(pl.all_horizontal(pl.col("note", "hba1c").is_null()))["visit"].to_list()
    put(own, "hba1c", dict.fromkeys(lone, 5.0))  # no sample is left with nothing
    place = tmp_path / "run"
    fit(own, recipe=recipe(*ONE_STAGE), out=place)
    kept = pl.read_parquet(place / "predictions.parquet").filter(pl.col("split") == "test")
    assert admit(load(own)).split.tolist() == load(own).split.tolist()
    assert admit(load(own)).available.tolist() != load(own).available.tolist()  # else the test would prove nothing
    assert evaluate(place, own) == evaluate(place)
    assert evaluate(place)["overall"]["n"] == kept.height


def test_a_model_predicts_a_table_as_it_predicted_its_cohort(folder, plain):
    run = plain(*TWO_STAGES)
    model, cohort = load_model(run), load(folder)
    kept = pl.read_parquet(run / "predictions.parquet")
    found = dict(zip(cohort.ids, model.predict_proba(table_of(folder).sort("visit"), root=folder), strict=True))
    for key, *probabilities in kept.select("id", "p_none", "p_mild").iter_rows():
        np.testing.assert_allclose(found[key], probabilities, rtol=0, atol=1e-6)


# All six


@pytest.fixture(scope="module")
def six(tmp_path_factory) -> Path:
    return write_six(tmp_path_factory.mktemp("six") / "six", samples=24)


@pytest.mark.slow
def test_six_kinds_train_check_and_evaluate_and_no_output_shows_a_value(six, tmp_path, remind):
    """The whole way of a user; two stages with a store, on a cohort with an empty and an unreadable file."""
    own = Path(shutil.copytree(six, tmp_path / "six"))
    frame = table_of(own)
    key = frame.filter(pl.col("note").is_not_null(), pl.col("vitals").is_not_null())["visit"][0]
    write_events(file_of(own, "vitals", key), np.random.default_rng(0), count=0)
    other = frame.filter(pl.col("note").is_not_null(), pl.col("scan").is_not_null())["visit"][1]
    file_of(own, "scan", other).write_bytes(f"{CANARY} is no picture".encode())
    out = tmp_path / "run"
    words = ["train", own, "--out", out, *WORDS, "-m", "remind", "-s", "data.budget=0.5"]
    said = [
        remind("cohort", "check", own, "--quarantine", tmp_path / "checked.csv"),
        remind("cohort", "describe", own),
        remind(*words),
        remind(*words, "--unreadable", "missing"),
        remind("evaluate", out),
        remind("evaluate", out, own, "--split", "all", "--json"),
    ]
    assert [done.code for done in said] == [2, 0, 2, 0, 0, 0]
    assert (tmp_path / "checked.csv").read_text() == (out / "quarantine.csv").read_text()
    told = " ".join(done.said for done in said) + (out / "quarantine.csv").read_text()
    texts = ("calibration.json", "config.yaml", "environment.json", "metrics.json", "selection.json")
    told += " ".join((out / name).read_text() for name in texts)
    assert CANARY not in told
    assert "fine well" not in told
    kept = pl.read_parquet(out / "predictions.parquet")
    assert not {"note", "hba1c", *FILES} & set(kept.columns)
    combination = dict(kept.select("id", "combination").iter_rows())
    assert all("vitals" not in named for found, named in combination.items() if found == key)


@pytest.mark.slow
def test_a_store_changes_no_bit_of_six_kinds(six, tmp_path):
    small = ("method=soft-moe", "train.epochs=1", "encoders.image.frozen=true", "encoders.volume.frozen=true", FROZEN)
    fit(six, recipe=recipe(*small), out=tmp_path / "a" / "run")
    fit(six, recipe=recipe(*small, "data.features=none"), out=tmp_path / "b" / "run")
    assert same_run(tmp_path / "a" / "run", tmp_path / "b" / "run")
    shelves = {path.name.split("-")[0] for path in (tmp_path / "a" / "features").iterdir() if path.is_dir()}
    assert {"scan", "clip", "note"} <= shelves


# Encoders run on who has the modality, and on no one else


def counted(model: torch.nn.Module, name: str, batch: Any) -> int:
    place = model.modalities.index(name)
    with FlopCounterMode(display=False) as counter:
        model.encoders[place](batch.packed[name].inputs)
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def level(tmp_path_factory) -> tuple[Any, Any, Any]:
    """A model for a cohort of all kinds, in which all inputs of one kind have one size."""

    def alike(table: pl.DataFrame) -> pl.DataFrame:
        return table.with_columns(note=pl.when(pl.col("note").is_not_null()).then(pl.lit("twelve bytes")))

    folder = write_six(tmp_path_factory.mktemp("level") / "six", samples=24, table=alike)
    rng = np.random.default_rng(0)
    for path in (folder / "vitals").iterdir():
        write_events(path, rng, count=5)
    for path in (folder / "emb").iterdir():
        write_embedding(path, rng, count=2)
    cohort = admit(load(folder))
    torch.manual_seed(0)
    fitted = FittedModel.create(cohort, recipe("method=soft-moe", "encoders.tabular.tokens=1"))
    fitted.model.train()
    return cohort, fitted.model, fitted.dataset(cohort, np.arange(len(cohort)))


@pytest.mark.parametrize("name", ["scan", "clip", "note", "labs", "vitals", "emb"])
def test_an_encoders_flops_are_proportional_to_who_has_its_modality(level, name):
    """Counted over an epoch in batches of four; one sample's flops are counted alone."""
    cohort, model, dataset = level
    place = cohort.modalities.index(name)
    there = cohort.available[:, place]
    assert 0 < there.sum() < len(there)
    pair = np.flatnonzero(there)[:2].tolist()  # two: batch norm learns nothing of one
    one = counted(model, name, dataset.__getitems__(pair)) / 2
    assert one > 0
    chunks = [list(range(start, min(start + 4, len(cohort)))) for start in range(0, len(cohort), 4)]
    chunks = [chunk for chunk in chunks if there[chunk].sum() != 1 or name not in ("scan", "clip")]
    total = sum(counted(model, name, dataset.__getitems__(chunk)) for chunk in chunks)
    assert total == one * int(sum(there[chunk].sum() for chunk in chunks))


@pytest.mark.parametrize("name", ["scan", "clip", "note", "labs", "vitals", "emb"])
def test_an_encoder_whose_modality_no_one_in_a_batch_has_costs_nothing(level, name):
    cohort, model, dataset = level
    rows = np.flatnonzero(~cohort.available[:, cohort.modalities.index(name)]).tolist()
    batch = dataset.__getitems__(rows)
    assert counted(model, name, batch) == 0
    assert counted(model, name, dataset.__getitems__(list(range(len(cohort))))) > 0
    model(batch)  # and the rest goes on without it
