"""The command line, from a cohort to its scores, and everything it refuses."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from remind.api import evaluate, fit, load_model
from remind.cohort.cohort import load
from remind.cohort.combination import Combination
from remind.config import load_recipe
from remind.methods import METHODS
from remind.report.live import LiveTable

FILES = {
    *(
        "calibration.json",
        "config.yaml",
        "environment.json",
        "history.parquet",
        "metrics.json",
        "predictions.parquet",
        "selection.json",
    ),
    "SHA256SUMS",
    *(f"checkpoint/model/{name}" for name in ("tensors.safetensors", "document.json", "SHA256SUMS")),
}
CANARIES = ("canary", "8642")


def files(folder):
    """Every file of a folder, but for the lock."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {".lock"}


def untouched(folder):
    """What every file of a folder is, and when it was written."""
    return {name: ((folder / name).stat().st_mtime_ns, (folder / name).read_bytes()) for name in files(folder)}


def refused(done, *said):
    """Exit code 2, one line that begins with ``error:`` and says so, and nothing of a patient."""
    assert done.code == 2
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    assert all(str(word) in lines[0] for word in said), lines[0]
    assert not any(canary in done.err for canary in CANARIES)


@pytest.fixture(scope="module")
def runs(remind, folder, tiny_words, tmp_path_factory):
    """A run of every method on the simulated cohort, and what its command printed."""
    place = tmp_path_factory.mktemp("runs")
    done = {}
    for method in METHODS:
        words = ("train", folder, "-m", method, "--out", place / method, "--json", *tiny_words)
        done[method] = (place / method, words, remind(*words))
    return done


@pytest.fixture
def run(runs, tmp_path):
    """A copy of a finished run, to be damaged."""
    return shutil.copytree(runs["remind"][0], tmp_path / "run")


# The way through


def test_a_simulated_cohort_is_made_checked_and_described(remind, tmp_path):
    made = remind("cohort", "make", "synthetic", tmp_path / "c", "--samples", "120", "--modalities", "3", "--seed", "5")
    assert (made.code, made.err) == (0, "")
    assert files(tmp_path / "c") == {"cohort.yaml", "samples.parquet", "truth.json", "truth.parquet"}
    assert json.loads((tmp_path / "c" / "truth.json").read_text())["law"]["seed"] == 5
    checked = remind("cohort", "check", tmp_path / "c")
    assert (checked.code, checked.err) == (0, "")
    assert "nothing is wrong" in " ".join(checked.out.split())
    assert json.loads(remind("cohort", "check", tmp_path / "c", "--json").out)["problems"] == []
    described = json.loads(remind("cohort", "describe", tmp_path / "c", "--json").out)
    cohort = load(tmp_path / "c")
    assert (described["samples"], described["subjects"]) == (120, 120)
    assert list(described["modalities"].values()) == pytest.approx(cohort.available.mean(axis=0).tolist())
    assert sum(line["n"] for line in described["combinations"]) == 120
    assert {name: part["samples"] for name, part in described["splits"].items()} == {
        name: len(cohort.rows(name)) for name in ("train", "validation", "test")
    }
    shown = remind("cohort", "describe", tmp_path / "c")
    assert shown.code == 0
    assert "m1 available" in shown.out


@pytest.mark.parametrize("method", METHODS)
def test_a_run_folder_holds_what_the_documentation_says(runs, method, cohort):
    place, _, done = runs[method]
    assert (done.code, done.err) == (0, "")
    assert files(place) == FILES
    config = yaml.safe_load((place / "config.yaml").read_text())
    assert (config["recipe"]["method"], config["recipe"]["seed"]) == (method, 0)
    assert (config["cohort"], config["fingerprint"]) == ("synthetic", cohort.fingerprint)
    environment = json.loads((place / "environment.json").read_text())
    assert {"python", "platform", "threads", "gpu", "remind", "torch", "numpy"} <= environment.keys()
    history = pl.read_parquet(place / "history.parquet")
    assert history["stage"].to_list() == (
        ["joint"] * 2 if len(METHODS[method].stages) == 1 else ["shared", "specialised"]
    )
    assert history["step"].to_list() == [4, 8]
    assert history.select("train_loss", "validation_loss", "lr").to_numpy().min() > 0
    weights = history["group_weights"].to_list()
    if METHODS[method].objective in ("group_dro", "reweigh", "fair_batch"):
        assert all(sum(row) == pytest.approx(1) and len(row) == len(cohort.groups) for row in weights)
    else:
        assert weights == [None, None]
    selection = json.loads((place / "selection.json").read_text())
    last = history.filter(stage=history["stage"][-1]).sort("validation_loss").row(0, named=True)
    assert (selection["stage"], selection["epoch"], selection["step"]) == (last["stage"], last["epoch"], last["step"])
    assert selection["score"] == -last["validation_loss"]


@pytest.mark.parametrize("method", METHODS)
def test_predictions_are_of_every_validation_and_test_sample_once(runs, method, cohort):
    table = pl.read_parquet(runs[method][0] / "predictions.parquet")
    rows = [*cohort.rows("validation"), *cohort.rows("test")]
    assert sorted(table["id"]) == sorted(cohort.ids[row] for row in rows)
    assert table.select("p_c0", "p_c1", "p_c2").sum_horizontal().to_list() == pytest.approx([1.0] * len(rows))
    place = {identity: row for row, identity in enumerate(cohort.ids)}
    for line in table.iter_rows(named=True):
        row = place[line["id"]]
        assert line["split"] == ("train", "validation", "test")[cohort.split[row]]
        assert line["combination"] == Combination.of(cohort.available[row]).label(cohort.modalities)
        assert line["group"] == cohort.groups.index(cohort.available[[row]])[0]
        assert line["target"] == cohort.target[row]


@pytest.mark.parametrize("method", METHODS)
def test_metrics_are_those_scikit_learn_finds_in_the_predictions(runs, method, cohort):
    place, _, done = runs[method]
    metrics = json.loads((place / "metrics.json").read_text())
    table = pl.read_parquet(place / "predictions.parquet").filter(split="test")
    names = [Combination.of(mask).label(cohort.modalities) for mask in cohort.available[cohort.rows("train")]]
    share = {name: names.count(name) / len(names) for name in set(names)}

    def scores(rows):
        target, probability = rows["target"].to_numpy(), rows.select("p_c0", "p_c1", "p_c2").to_numpy()
        curves = [
            roc_auc_score(target == c, probability[:, c]) for c in range(3) if 0 < (target == c).sum() < len(target)
        ]
        return {
            "n": len(rows),
            "accuracy": pytest.approx(accuracy_score(target, probability.argmax(1))) if len(rows) else None,
            "macro_f1": pytest.approx(f1_score(target, probability.argmax(1), average="macro")) if len(rows) else None,
            "macro_auroc": pytest.approx(np.mean(curves)) if curves else None,
        }

    kinds = {
        name: "unseen" if name not in share else "tail" if share[name] < 0.15 else "head"
        for name in table["combination"]
    }
    for kind in ("head", "tail", "unseen"):
        rows = table.filter(pl.col("combination").is_in([name for name in kinds if kinds[name] == kind]))
        assert {key: metrics[kind][key] for key in ("n", "accuracy", "macro_f1", "macro_auroc")} == scores(rows)
    assert scores(table).items() <= metrics["overall"].items()
    assert {line["combination"]: line["kind"] for line in metrics["combinations"]} == kinds
    for line in metrics["combinations"]:
        expected = scores(table.filter(combination=line["combination"]))
        assert {key: line[key] for key in expected} == expected
        assert line["share"] == pytest.approx(share.get(line["combination"], 0))
    assert metrics["gate_open"] == pytest.approx(table["opened"].mean())
    assert (metrics["method"], metrics["seed"], metrics["cohort"]) == (method, 0, "synthetic")
    assert metrics["selected"] == json.loads((place / "selection.json").read_text())
    printed = json.loads(done.out)
    assert {key: printed[key] for key in printed if key != "run"} == {
        key: metrics[key] for key in printed if key != "run"
    }


@pytest.mark.parametrize("method", METHODS)
def test_evaluate_gives_the_metrics_of_the_run_and_of_the_cohort_alike(remind, runs, folder, method):
    place = runs[method][0]
    metrics = json.loads((place / "metrics.json").read_text())
    stored = json.loads(remind("evaluate", place, "--json").out)
    assert stored == {key: metrics[key] for key in stored}
    anew = json.loads(remind("evaluate", place, folder, "--json").out)
    assert anew == stored
    everything = json.loads(remind("evaluate", place, folder, "--split", "all", "--json").out)
    assert everything["overall"]["n"] == 300
    validation = json.loads(remind("evaluate", place, "--split", "validation", "--json").out)
    assert validation["overall"]["n"] + stored["overall"]["n"] < 100
    table = remind("evaluate", place)
    assert table.code == 0
    assert "overall" in table.out


def test_the_gate_stays_shut_where_there_is_none(runs):
    for method in ("soft-moe", "group-dro"):
        assert not pl.read_parquet(runs[method][0] / "predictions.parquet")["opened"].any()


def test_the_same_command_leaves_a_finished_run_untouched(remind, runs):
    place, words, first = runs["remind"]
    before = untouched(place)
    again = remind(*words)
    assert (again.code, again.out) == (0, first.out)
    assert untouched(place) == before


def test_training_in_another_process_gives_the_same_bits_and_prints_json_alone(
    runs, remind_process, folder, tiny_words, tmp_path
):
    place, _, done = runs["remind"]
    other = remind_process("train", folder, "-m", "remind", "--out", tmp_path / "run", "--json", *tiny_words)
    assert (other.code, other.err) == (0, "")
    assert json.loads(other.out) == {**json.loads(done.out), "run": str(tmp_path / "run")}
    for name in FILES - {"environment.json"}:
        assert (tmp_path / "run" / name).read_bytes() == (place / name).read_bytes(), name


def test_training_tells_of_every_epoch_and_ends_in_a_table(remind, folder, tiny_words, tmp_path):
    done = remind("train", folder, "-m", "remind", "--out", tmp_path / "run", *tiny_words)
    assert (done.code, done.err) == (0, "")
    assert "shared epoch 1" in done.out
    assert "specialised epoch 1" in done.out
    assert "overall" in done.out


def test_the_run_goes_under_runs_by_the_names_of_cohort_and_method(remind, folder, tiny_words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert remind("train", folder, "-m", "soft-moe", "--seed", 3, *tiny_words, "--json").code == 0
    assert files(tmp_path / "runs" / "synthetic" / "soft-moe-seed3") == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize("name", ["../../outside", "{}/outside", ".."])
def test_the_name_of_a_cohort_leads_nowhere_else(remind, clinic, tiny_words, tmp_path, monkeypatch, name):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    done = remind("train", clinic(name=name.format(tmp_path)), *tiny_words, "--json")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "clinic"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"b"}
    if done.code:
        refused(done, "cohort.yaml", "name")
    else:
        assert [path.parent.parent.name for path in Path("runs").rglob("remind-seed0")] == ["runs"]


@pytest.mark.parametrize("how", ["-s", "-r"])
def test_the_method_of_a_recipe_or_an_override_is_the_one_that_is_trained(remind, folder, tiny_words, tmp_path, how):
    (tmp_path / "r.yaml").write_text("method: soft-moe\n")
    chosen = {"-s": "method=soft-moe", "-r": tmp_path / "r.yaml"}[how]
    assert remind("train", folder, "--out", tmp_path / "run", "--json", *tiny_words, how, chosen).code == 0
    assert load_model(tmp_path / "run").recipe.method == "soft-moe"


@pytest.mark.parametrize("epochs", [2, 3, 5, 7])
def test_every_method_trains_for_as_many_epochs(cohort, tiny, tmp_path, epochs):
    for method in METHODS:
        recipe = load_recipe(None, [*tiny, f"train.epochs={epochs}", "train.batch_size=300"], method=method)
        fit(cohort, recipe=recipe, out=tmp_path / method)
        assert pl.read_parquet(tmp_path / method / "history.parquet").height == epochs


# Other commands


def test_the_command_line_loads_without_torch():
    code = "import remind.cli, sys; assert not {'torch', 'polars', 'matplotlib', 'lightning_fabric'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0


def test_methods_lists_every_method(remind):
    assert list(json.loads(remind("methods", "--json").out)) == list(METHODS)
    assert len(METHODS) == 10
    text = remind("methods").out
    assert all(name in text for name in METHODS)


@pytest.mark.parametrize(
    "words", [["--help"], ["cohort", "--help"], *([c, "--help"] for c in ("train", "evaluate", "compare", "demo"))]
)
def test_every_command_has_help(remind, words):
    done = remind(*words)
    assert done.code == 0
    assert "Usage" in done.out


@pytest.mark.parametrize("words", [["nosuch"], ["train"], ["train", "x", "--nosuch"], ["train", "x", "--seed", "one"]])
def test_a_command_that_cannot_be_parsed_has_exit_code_2(remind, words):
    done = remind(*words)
    assert done.code == 2
    assert "Traceback" not in done.said


# What is refused


def test_every_mistake_in_a_cohort_is_refused_by_training_and_leaves_nothing(mistake, remind, tiny_words, tmp_path):
    done = remind("train", mistake.write(tmp_path / "clinic"), "--out", tmp_path / "run", *tiny_words)
    refused(done, *mistake.said)
    assert not (tmp_path / "run").exists()


def test_every_mistake_in_a_cohort_is_listed_by_check(mistake, remind, tmp_path):
    folder = mistake.write(tmp_path / "clinic")
    done = remind("cohort", "check", folder)
    assert (done.code, done.out) == (2, "")
    assert all(word in done.err for word in mistake.said)
    assert not any(canary in done.said for canary in CANARIES)
    assert remind("cohort", "check", folder, "--json").code == 2


def test_check_lists_every_problem_on_a_line_of_its_own_and_in_json(remind, clinic, at):
    def table(samples):
        return at(12, pulse=float("inf"))(at(7, grade="canary")(at(5, visit="00003")(samples)))

    folder = clinic(table=table)
    lines = remind("cohort", "check", folder).err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{folder}/samples.parquet: row") for line in lines)
    document = json.loads(remind("cohort", "check", folder, "--json").out)
    assert document == {"cohort": str(folder), "problems": lines, "warnings": [], "quarantine": None}


def test_a_mistake_in_a_process_of_its_own_is_one_line_and_exit_code_2(remind_process, clinic, at):
    refused(remind_process("cohort", "describe", clinic(table=at(4, grade="canary"))), "row 4", "'grade'")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "remnd"], ("unknown method 'remnd'", "Did you mean 'remind'?", "soft-moe")),
        (["-r", "dem"], ("dem", "no such recipe", "demo")),
        (["-s", "train"], ("'train'", "key=value")),
        (["-s", "train.lr=["], ("'train.lr=['", "YAML")),
        (["-s", "train.epoch=3"], ("train.epoch",)),
        (["-s", "train.lr=fast"], ("train.lr", "number")),
        (["-s", "fusions.remind.expert=3"], ("'expert'", "'experts'")),
        (["-s", "model.heads=3"], ("dim (16)", "heads (3)")),
        (["-s", "encoders.tabular.tokens=0"], ("tokens",)),
        (["-s", "fusions.remind.threshold=high"], ("'high'", "quantile:q")),
        (["-s", "train.device=cuda"], ("cuda",)),
        (["--seed", "-1"], ("seed",)),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_every_mistake_in_the_settings_is_refused_and_leaves_nothing(remind, folder, tiny_words, tmp_path, words, said):
    import torch

    if "train.device=cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    refused(remind("train", folder, "--out", tmp_path / "run", *tiny_words, *words), *said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--seed", "1"], "recipe.seed: 0 there, 1 asked"),
        (["-s", "train.lr=0.5"], "recipe.train.lr: 0.001 there, 0.5 asked"),
        (["-m", "soft-moe"], "recipe.method: remind there, soft-moe asked"),
        (["-s", "objectives.group_dro.cap=3"], "recipe.objectives.group_dro: None there"),
    ],
)
def test_another_configuration_is_refused_by_a_run_folder_with_the_difference(remind, runs, change, said):
    place, words, _ = runs["remind"]
    before = untouched(place)
    refused(remind(*words, *change), place, "holds another run", said, "name another folder")
    assert untouched(place) == before


def test_another_cohort_is_refused_by_a_run_folder(remind, runs, clinic):
    place, words, _ = runs["remind"]
    refused(remind("train", clinic(), *words[2:]), place, "cohort: synthetic there, clinic asked", "fingerprint")


def test_one_changed_cell_makes_another_cohort(remind, runs, folder, tmp_path):
    _, words, _ = runs["remind"]
    other = shutil.copytree(folder, tmp_path / "other")
    table = pl.read_parquet(other / "samples.parquet")
    table.with_columns(
        pl.when(pl.int_range(300) == 5).then(9.0).otherwise("m1_1").cast(pl.Float32).alias("m1_1")
    ).write_parquet(other / "samples.parquet")
    refused(remind("train", other, *words[2:]), "holds another run (fingerprint: ")


def test_a_place_that_is_no_run_folder_is_refused_and_left_alone(remind, folder, tiny_words, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    before = untouched(tmp_path)
    for place, said in (("file", "is a file"), ("full", "is not empty"), ("file/run", "file/run")):
        refused(remind("train", folder, "--out", tmp_path / place, *tiny_words), tmp_path / place, said)
    assert untouched(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["synthetc", "new"], ("unknown source 'synthetc'", "Did you mean 'synthetic'?")),
        (["synthetic", "new", "--sample", "3"], ("'sample'", "Did you mean 'samples'?")),
        (["synthetic", "new", "--samples", "many"], ("'samples'", "integer")),
        (["synthetic", "new", "--samples"], ("'--samples'", "--name value")),
        (["synthetic", "new", "samples", "3"], ("'samples'", "--name value")),
        (["synthetic", "new", "--samples", "["], ("samples",)),
        (["synthetic", "new", "--samples", "0"], ("samples is 0", "at least 1")),
        (["synthetic", "there"], ("there", "another folder")),
        (["synthetic", "file/new"], ("file",)),
        (["nhanes", "new", "--task", "diabets"], ("'diabets'", "Did you mean 'diabetes'?")),
    ],
    ids=lambda value: "-".join(value).replace("/", "-") if isinstance(value, list) else "",
)
def test_a_cohort_that_cannot_be_made_is_refused_and_leaves_nothing(remind, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "there").mkdir()
    refused(remind("cohort", "make", *words), *said)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "there"}


def test_a_made_cohort_says_where_it_is_whatever_its_name(remind, tmp_path):
    for name in ("[/b]", "[red]", "with space"):
        place = tmp_path / name.replace("/", "") / "c"
        done = remind("cohort", "make", "synthetic", place, "--samples", "30")
        assert done.code == 0
        assert str(place) in done.out.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch"], ("nosuch", "not a finished run")),
        (["."], ("not a finished run", "train it")),
        (["run", "--split", "tests"], ("unknown split 'tests'", "Did you mean 'test'?")),
        (["run", "--split", "train"], ("name the cohort",)),
        (["run", "--split", "all"], ("name the cohort",)),
        (["run", "nosuch"], ("nosuch/cohort.yaml", "no such file")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_evaluated_is_refused(remind, run, monkeypatch, words, said):
    monkeypatch.chdir(run.parent)
    refused(remind("evaluate", *words), *said)


@pytest.mark.parametrize(
    "name",
    sorted(
        FILES
        - {"config.yaml", "environment.json", "history.parquet", "selection.json", "SHA256SUMS"}
        - {"metrics.json", "calibration.json"}  # made from the predictions
    ),
)
def test_a_damaged_file_of_a_run_is_named(remind, run, name):
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run / name).write_bytes(content)
    damaged = "tensors.safetensors" if name.endswith("SHA256SUMS") else name  # or the other: its line is what broke
    refused(remind("evaluate", run), damaged, "damaged")
    refused(remind("evaluate", run, "--json"), damaged)


@pytest.mark.parametrize("name", ["predictions.parquet", "checkpoint/model/tensors.safetensors"])
def test_half_a_file_of_a_run_is_named(remind, run, name):
    (run / name).write_bytes((run / name).read_bytes()[:1000])
    refused(remind("evaluate", run), name, "damaged")


def test_a_cohort_of_other_modalities_is_refused(remind, run, folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    spec = yaml.safe_load((other / "cohort.yaml").read_text())
    spec["modalities"]["scan"] = spec["modalities"].pop("m1")
    (other / "cohort.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    refused(remind("evaluate", run, other), "m2, m3, m4, scan", "m1, m2, m3, m4", "name them alike")


@pytest.fixture
def clinic_run(remind, clinic, tiny_words, tmp_path):
    place = tmp_path / "clinic-run"
    assert remind("train", clinic("trained"), "-m", "remind", "--out", place, "--json", *tiny_words).code == 0
    return place


@pytest.mark.parametrize("classes", [["mild", "none"], ["none", "mild", "severe"]], ids="-".join)
def test_a_cohort_of_other_classes_is_refused(remind, clinic_run, clinic, classes):
    """Scored by the place of a class in the list, every number would be wrong, and nobody would know."""
    folder = clinic(label={"column": "grade", "classes": classes})
    refused(remind("evaluate", clinic_run, folder, "--split", "all"), "classes", "none, mild")


@pytest.mark.parametrize("words", [["--split", "all"], ["--split", "test"]])
def test_a_cohort_of_other_columns_is_refused(remind, clinic_run, clinic, words):
    modalities = {
        "labs": {"kind": "tabular", "columns": ["hba1c"]},
        "vitals": {"kind": "tabular", "columns": ["comment"]},
    }
    refused(remind("evaluate", clinic_run, clinic(modalities=modalities), *words), "columns")


def test_text_where_the_model_wants_numbers_is_refused_and_not_shown(remind, clinic_run, clinic):
    folder = clinic(table=lambda t: t.with_columns(pulse=pl.lit("canary")))
    refused(remind("evaluate", clinic_run, folder, "--split", "all"), "'pulse'")


def test_a_cohort_of_unseen_combinations_is_scored_as_such(remind, clinic_run, clinic):
    table = clinic("unseen", table=lambda t: t.with_columns(hba1c=pl.lit(5.0)))
    unseen = pl.read_parquet(table / "samples.parquet").filter(pl.col("pulse").is_null()).height
    found = json.loads(remind("evaluate", clinic_run, table, "--split", "all", "--json").out)
    assert found["overall"]["n"] == 40
    assert found["overall"]["n"] == found["head"]["n"] + found["tail"]["n"] + found["unseen"]["n"]
    assert unseen == 7


def test_a_loss_that_is_not_finite_stops_training_and_shows_no_cells(remind, clinic, tiny_words, tmp_path):
    done = remind(
        "train", clinic(), "--out", tmp_path / "run", *tiny_words, "-s", "train.lr=1e30", "-s", "train.batch_size=4"
    )
    lines = [line for line in done.err.splitlines() if line]
    assert (done.code, len(lines)) == (2, 1)
    assert lines[0].startswith("error: ")
    assert "not finite" in lines[0]
    assert not any(canary in done.said for canary in CANARIES)


def test_numbers_too_large_for_the_model_are_named_by_their_row_before_training(
    remind, clinic, at, tiny_words, tmp_path
):
    def table(samples):
        parts = ["train"] * 24 + ["validation"] * 8 + ["test"] * 8
        return at(35, pulse=1e300)(samples.with_columns(part=pl.Series(parts)))

    folder = clinic(table=table, split={"column": "part"})
    refused(remind("train", folder, "--out", tmp_path / "run", *tiny_words), "row 35", "vitals")
    assert not (tmp_path / "run").exists()


# Odd cohorts that are sound


def constant(table):
    return table.with_columns(hba1c=pl.lit(5.0), comment=pl.lit("a"), pulse=pl.lit(None, pl.Float64))


def fitting(table):
    """Seven of ten of one class, all of one class, in training."""
    return table.with_columns(part=pl.Series(["train"] * 24 + ["validation"] * 8 + ["test"] * 8))


ONE = {"labs": {"kind": "tabular", "columns": ["hba1c", "pulse"]}}
ODD = {
    "one modality": {"modalities": ONE},
    "constant columns": {"table": constant},
    "empty columns": {"table": lambda t: t.with_columns(pulse=pl.lit(None), comment=pl.lit(None), hba1c=pl.lit(1.0))},
    "one class": {"table": lambda t: t.with_columns(grade=pl.lit("none"))},
    "one class in training": {
        "table": lambda t: fitting(t).with_columns(
            grade=pl.when(pl.col("part") == "train").then(pl.lit("none")).otherwise("grade")
        ),
        "split": {"column": "part"},
    },
    "names of our own": {
        "modalities": {
            "training": {"kind": "tabular", "columns": ["hba1c"]},
            "keys": {"kind": "tabular", "columns": ["comment"]},
            "forward": {"kind": "tabular", "columns": ["pulse"]},
        },
    },
    "names of other alphabets": {
        "table": lambda t: t.rename({"hba1c": "größe µ", "pulse": "脈拍"}),
        "modalities": {
            "Лаб": {"kind": "tabular", "columns": ["größe µ", "comment"]},
            "生体": {"kind": "tabular", "columns": ["脈拍"]},
        },
    },
    "a column of two modalities": {
        "modalities": {
            "a": {"kind": "tabular", "columns": ["hba1c"]},
            "b": {"kind": "tabular", "columns": ["hba1c", "pulse"]},
        }
    },
    "booleans and narrow numbers": {
        "table": lambda t: t.with_columns(
            pulse=pl.Series([n % 2 == 0 for n in range(40)]), hba1c=pl.Series(range(40), dtype=pl.UInt8)
        )
    },
    "numbers that are codes": {
        "modalities": {"labs": {"kind": "tabular", "columns": ["hba1c", "pulse"], "categorical": ["pulse"]}}
    },
    "a class nobody has": {"label": {"column": "grade", "classes": ["none", "mild", "severe"]}},
    "seventy modalities": {
        "table": lambda t: t.with_columns(pl.col("hba1c").fill_null(0).alias(f"c{n}") for n in range(70)),
        "modalities": {f"m{n}": {"kind": "tabular", "columns": [f"c{n}"]} for n in range(70)},
    },
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("method", ["remind", "soft-moe"])
def test_an_odd_cohort_is_trained_and_scored(remind, clinic, tiny_words, tmp_path, method, odd):
    folder = clinic(**ODD[odd])
    done = remind("train", folder, "-m", method, "--out", tmp_path / "run", "--json", *tiny_words)
    assert (done.code, done.err) == (0, "")
    metrics = json.loads(done.out)
    assert 0 <= metrics["overall"]["accuracy"] <= 1
    assert remind("evaluate", tmp_path / "run").code == 0
    probabilities = load_model(tmp_path / "run").predict_proba(load(folder))
    assert np.isfinite(probabilities).all()
    assert len(probabilities) == 40


@pytest.mark.parametrize(
    "override", ["train.batch_size=1", "train.batch_size=100000", "train.pool=1000", "train.epochs=1"]
)
def test_batches_of_any_size_train(remind, clinic, tiny_words, tmp_path, override):
    done = remind("train", clinic(), "--out", tmp_path / "run", "--json", *tiny_words, "-s", override)
    assert (done.code, done.err) == (0, "")


def test_a_group_of_one_is_trained_and_scored(remind, clinic, at, tiny_words, tmp_path):
    def table(samples):
        return at(1, hba1c=None, comment=None)(fitting(samples).with_columns(hba1c=pl.lit(5.0)))

    folder = clinic(table=table, split={"column": "part"})
    assert 1 in load(folder).groups.counts
    assert remind("train", folder, "-m", "remind", "--out", tmp_path / "run", "--json", *tiny_words).code == 0


def test_selection_by_auroc_without_two_classes_to_rank_is_refused(remind, clinic, tiny_words, tmp_path):
    folder = clinic(table=lambda t: t.with_columns(grade=pl.lit("none")))
    done = remind("train", folder, "--out", tmp_path / "run", "--json", *tiny_words, "-s", "train.select=macro_auroc")
    refused(done, "validation", "two classes", "train.select=loss")


def test_predictions_follow_the_ids_whatever_the_order_of_the_rows(clinic, clinic_run):
    model = load_model(clinic_run)
    straight, reverse = load(clinic("a")), load(clinic("b", table=lambda table: table.reverse()))
    assert reverse.ids == straight.ids
    np.testing.assert_array_equal(model.predict_proba(reverse), model.predict_proba(straight))
    assert evaluate(model, reverse) == evaluate(model, straight)


def test_an_error_in_training_leaves_the_terminal_as_it_was(clinic, tiny, tmp_path):
    """A hidden cursor that stays hidden is what people remember."""
    terminal = io.StringIO()
    watch = LiveTable(Console(file=terminal, force_terminal=True, width=100))
    with pytest.raises(Exception, match="not finite"):
        fit(clinic(), recipe=load_recipe(None, [*tiny, "train.lr=1e30", "train.batch_size=4"]), watch=watch)
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert terminal.getvalue().count(hide) == terminal.getvalue().count(show) == 1
