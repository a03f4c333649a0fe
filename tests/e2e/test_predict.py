"""``remind predict`` and ``remind.predict``: probabilities, sets, and when to abstain."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from remind import fit, load_model, predict
from remind.cohort.cohort import load
from remind.cohort.missingness import mask
from remind.config import load_recipe
from remind.errors import RemindError

HELD = ("m1", "m2+m3")  # combinations that training never sees


@pytest.fixture(scope="module")
def run(cohort, tiny, tmp_path_factory):
    place = tmp_path_factory.mktemp("predict")
    mask(cohort, place / "cohort", "hold-out", combinations=list(HELD))
    fit(place / "cohort", recipe=load_recipe(None, tiny, method="remind", seed=0), out=place / "run")
    return place / "run"


def test_a_line_says_what_is_known_of_its_combination(run, cohort, folder):
    table = predict(run, folder)
    assert table["id"].to_list() == cohort.samples[cohort.spec.id].cast(pl.String).to_list()
    trained = load_model(run).groups
    tested = pl.read_parquet(run / "predictions.parquet").filter(split="test")
    for line in table.iter_rows(named=True):
        place = trained.labels().index(line["combination"]) if line["combination"] in trained.labels() else None
        assert line["trained_on"] == (0 if place is None else trained.counts[place])
        seen = tested.filter(combination=line["combination"])["subject"].n_unique()
        assert line["tested_on"] == seen
        expected = "never seen in training" if place is None else "too few to judge" if seen < 10 else None
        assert line["reason"] == expected
        assert line["abstain"] == (expected is not None)
    assert set(table.filter(reason="never seen in training")["combination"]) == set(HELD)
    assert {True, False} == set(table["abstain"])


def test_the_prediction_is_the_most_probable_class_and_is_in_the_set(run, cohort, folder):
    table = predict(run, folder)
    probability = table.select(f"p_{name}" for name in cohort.classes).to_numpy()
    assert probability.sum(axis=1) == pytest.approx(1)
    assert [cohort.classes[place] for place in probability.argmax(axis=1)] == table["prediction"].to_list()
    assert all(line["prediction"] in line["set"] for line in table.iter_rows(named=True))
    temperatures = json.loads((run / "calibration.json").read_text())["temperature"]
    raw = load_model(run).predict_proba(load(folder))
    if not temperatures["groups"]:
        scaled = raw ** (1 / temperatures["pooled"])
        assert probability == pytest.approx(scaled / scaled.sum(axis=1, keepdims=True))


def test_more_coverage_takes_larger_sets(run, folder):
    sizes = [predict(run, folder, coverage=coverage)["set"].list.len().sum() for coverage in (0.5, 0.9, 0.99)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]


def test_labels_are_neither_needed_nor_read(run, cohort, folder, tmp_path):
    whole = predict(run, folder)
    bare = cohort.samples.drop(cohort.spec.label.column)
    wrong = cohort.samples.with_columns(pl.lit("no class").alias(cohort.spec.label.column))
    bare.write_parquet(tmp_path / "new.parquet")
    for given in (bare, wrong, tmp_path / "new.parquet"):
        assert predict(run, given).equals(whole)


def test_the_order_is_that_of_the_table_and_ids_are_row_numbers_without_ids(run, cohort):
    shuffled = cohort.samples.sample(fraction=1, shuffle=True, seed=1)
    table = predict(run, shuffled)
    assert table["id"].to_list() == shuffled[cohort.spec.id].cast(pl.String).to_list()
    assert_frame_equal(table.sort("id"), predict(run, cohort.samples).sort("id"))
    nameless = predict(run, shuffled.drop(cohort.spec.id))
    assert nameless["id"].to_list() == [f"{row:03d}" for row in range(1, len(shuffled) + 1)]
    assert_frame_equal(nameless.drop("id"), table.drop("id"))


def test_a_cohort_in_memory_is_predicted_too(run, cohort, folder):
    assert predict(run, cohort).drop("id").equals(predict(run, folder).drop("id"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_command_writes_the_table(remind, run, folder, tmp_path, kind):
    out = tmp_path / f"said.{kind}"
    done = remind("predict", run, folder, "--out", out)
    assert done.code == 0, done.err
    table = predict(run, folder)
    written = pl.read_parquet(out) if kind == "parquet" else pl.read_csv(out, schema_overrides={"id": pl.String})
    if kind == "csv":
        written = written.with_columns(pl.Series("set", [json.loads(one) for one in written["set"]]))
    assert written["set"].to_list() == table["set"].to_list()
    assert written["p_c0"].to_numpy() == pytest.approx(table["p_c0"].to_numpy())
    assert "never seen in training" in done.out
    assert list(tmp_path.iterdir()) == [out]


def test_the_summary_is_counts_alone(remind, run, folder, tmp_path):
    done = remind("predict", run, folder, "--out", tmp_path / "said.csv", "--json")
    found, table = json.loads(done.out), predict(run, folder)
    assert found["samples"] == 300
    assert sum(found["abstained"].values()) == table["abstain"].sum()
    assert sum(line["n"] for line in found["combinations"]) == 300
    assert found["mean_set_size"] == pytest.approx(np.mean(table["set"].list.len().to_numpy()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing.csv",), ("nothing.csv", "no such file")),
        ((".", "--out", "said.txt"), ("said.txt", ".csv or .parquet")),
        ((".", "--out", "no/said.csv"), ("there is no folder", "no")),
        ((".", "--unreadable", "skip"), ("unknown rule 'skip'", "missing, stop")),
        ((".", "--coverage", "1.5"), ("coverage 1.5", "between 0 and 1")),
    ],
)
def test_mistakes_get_a_sentence(remind, run, folder, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place, *rest = words
    done = remind("predict", run, folder if place == "." else place, *rest)
    assert done.code == 2
    assert all(part in done.err for part in said)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def clinic(tmp_path_factory, tiny):
    """A run on a table with codes, words that read as numbers, and files under a root of their own."""
    place, rng = tmp_path_factory.mktemp("clinic") / "cohort", np.random.default_rng(0)
    (place / "files").mkdir(parents=True)
    grade = np.arange(120) % 2
    for n in range(120):
        np.save(place / "files" / f"{n}.npy", rng.normal(grade[n], 1, (1, 4)).astype(np.float32))
    table = {
        "visit": [f"{n:03d}" for n in range(120)],
        "grade": np.where(grade, "ill", "well"),
        "sex": [None if n % 4 == 0 else n % 3 for n in range(120)],
        "zip": [None if n % 4 == 0 else f"0{n % 5}" for n in range(120)],
        "ecg": [None if n % 4 == 1 else f"{n}.npy" for n in range(120)],
    }
    pl.DataFrame(table).write_parquet(place / "samples.parquet")
    spec = {
        "name": "clinic",
        "id": "visit",
        "label": {"column": "grade", "classes": ["well", "ill"]},
        "modalities": {
            "codes": {"kind": "tabular", "columns": ["sex", "zip"], "categorical": ["sex"]},
            "ecg": {"kind": "embedding", "column": "ecg"},
        },
        "root": "files",
    }
    (place / "cohort.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    settings = [*tiny, "data.unreadable=missing", "data.budget=0.5"]
    fit(place, recipe=load_recipe(None, settings, method="soft-moe", seed=0), out=place.parent / "run")
    return place


def test_categories_are_the_same_in_whatever_type_a_table_holds_them(clinic):
    run, table = clinic.parent / "run", pl.read_parquet(clinic / "samples.parquet")
    whole = predict(run, clinic)
    table.write_csv(clinic / "as.csv")
    other = [
        clinic / "as.csv",
        table.with_columns(pl.col("sex").cast(pl.Float64)),
        table.with_columns(pl.col("sex").cast(pl.String)),
        table.to_pandas(),
    ]
    for given in other:
        assert_frame_equal(predict(run, given, root=clinic / "files"), whole)


def test_paths_of_a_file_start_where_its_spec_says(clinic):
    run = clinic.parent / "run"
    assert_frame_equal(predict(run, clinic / "samples.parquet"), predict(run, clinic))


def test_files_that_count_as_missing_are_told_and_listed(remind, clinic, tmp_path):
    shutil.copytree(clinic, tmp_path / "cohort")
    (tmp_path / "cohort" / "files" / "6.npy").write_bytes(b"broken")
    done = remind("predict", clinic.parent / "run", tmp_path / "cohort", "--out", tmp_path / "said.csv")
    assert done.code == 0, done.err
    assert "modality 'ecg': 1 of 90 files cannot be read" in done.err
    assert pl.read_csv(tmp_path / "said-quarantine.csv")["file"].to_list() == ["6.npy"]
    line = pl.read_csv(tmp_path / "said.csv", schema_overrides={"id": pl.String}).filter(id="006")
    assert line["combination"].item() == "codes"
    stopped = remind("predict", clinic.parent / "run", tmp_path / "cohort", "--unreadable", "stop")
    assert stopped.code == 2
    assert "cannot be read" in stopped.err


def test_files_of_which_none_is_there_are_no_missing_modality(clinic, tmp_path):
    table = pl.read_parquet(clinic / "samples.parquet").filter(pl.col("sex").is_not_null())
    table.write_parquet(tmp_path / "samples.parquet")
    with pytest.raises(RemindError, match="none of its 60 files can be read"):
        predict(clinic.parent / "run", tmp_path / "samples.parquet")


def test_the_table_that_is_read_is_not_written_over(remind, clinic, tmp_path):
    shutil.copytree(clinic, tmp_path / "cohort")
    for given, out in (("cohort", "cohort/samples.parquet"), ("cohort/samples.parquet", "cohort/samples.parquet")):
        done = remind("predict", clinic.parent / "run", tmp_path / given, "--out", tmp_path / out)
        assert done.code == 2
        assert "is the table that is read" in done.err


def test_an_unfinished_run_and_a_table_of_other_columns_are_refused(run, cohort, tmp_path):
    with pytest.raises(RemindError, match="not a finished run"):
        predict(tmp_path, cohort)
    with pytest.raises(
        RemindError, match=r"the table: modality .* names a column that is not there: .*Known: sample\."
    ):
        predict(run, cohort.samples.select(cohort.spec.id))
