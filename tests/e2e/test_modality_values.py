"""Modality values of a trained model: removing is removing, and tables say what they promise."""

import json

import numpy as np
import polars as pl
import pytest

from remind.analysis.modality_values import modality_values
from remind.analysis.subsets import subset_probability
from remind.analysis.trained import Trained
from remind.api import fit, load_model
from remind.cohort.combination import Combination
from remind.config import load_recipe
from remind.evaluation.shapley import exact


@pytest.fixture(scope="module")
def runs(cohort, tiny, tmp_path_factory):
    place, found = tmp_path_factory.mktemp("values"), []
    for method in ("soft-moe", "flex-moe", "remind"):
        fit(cohort, recipe=load_recipe(None, [*tiny, "train.epochs=3"], method=method, seed=0), out=place / method)
        found.append(Trained(method, 0, place / method))
    return found


@pytest.fixture(scope="module")
def finding(cohort, runs):
    return modality_values(cohort, runs, most=None)


def without(cohort, rows, kept):
    """The samples as a table in which nothing but some modalities is left."""
    table = cohort.samples[rows]
    lost = [c for name, m in cohort.spec.modalities.items() if name not in kept for c in m.cells()]
    return table.with_columns(pl.lit(None, table.schema[column]).alias(column) for column in lost)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_leaving_tokens_out_is_emptying_the_cells(runs, cohort, place):
    fitted = load_model(runs[place].folder)
    complete = np.flatnonzero(cohort.available.all(axis=1))[:20]
    sets = exact(4).sets[1:]
    found = subset_probability(fitted, cohort, complete, sets)
    for number, one in enumerate(sets):
        kept = [name for name, there in zip(cohort.modalities, one, strict=True) if there]
        expected = fitted.predict_proba(without(cohort, complete, kept))
        assert found[:, number] == pytest.approx(expected, abs=1e-6)


def test_values_of_a_patient_add_up_to_what_the_model_knows_of_them(finding, runs, cohort):
    shares = np.bincount(cohort.target[cohort.rows("train")]) + 1.0
    nothing = np.log2(shares / shares.sum())
    for run in runs:
        table = pl.read_parquet(run.folder / "predictions.parquet").filter(split="test")
        p = table.select("p_c0", "p_c1", "p_c2").to_numpy()
        target = table["target"].to_numpy()
        known = np.log2(p[np.arange(len(p)), target]) - nothing[target]
        values = finding.more["patients"].filter(method=run.method).group_by("id").agg(pl.sum("bits"))
        joined = table.select("id").join(values, on="id", how="left", maintain_order="left")
        assert joined["bits"].to_numpy() == pytest.approx(known, abs=1e-5)


def test_a_combinations_values_are_the_means_of_its_patients(finding):
    patients = finding.more["patients"].group_by("method", "combination", "modality").agg(mean=pl.mean("bits"))
    lines = finding.table.filter(pl.col("kind").is_not_null(), ~pl.col("few"))
    joined = lines.join(patients, on=["method", "combination", "modality"], how="left")
    assert joined["bits"].to_numpy() == pytest.approx(joined["mean"].to_numpy())
    assert (lines["bits_low"] < lines["bits"]).all()
    assert (lines["bits"] < lines["bits_high"]).all()


def test_overall_values_are_over_those_who_have_the_modality(finding, cohort):
    rows = cohort.rows("test")
    for line in finding.table.filter(pl.col("kind").is_null(), method="remind").iter_rows(named=True):
        place = cohort.modalities.index(line["modality"])
        assert line["n"] == cohort.available[rows, place].sum()
        own = finding.more["patients"].filter(method="remind", modality=line["modality"])
        assert line["bits"] == pytest.approx(own["bits"].mean())


def test_the_next_modality_adds_what_it_adds_to_those_who_have_it(finding, runs, cohort):
    fitted, rows = load_model(runs[2].folder), cohort.rows("test")
    steps = finding.more["next"].filter(method="remind", few=False)
    assert steps.height > 3
    for line in steps.iter_rows(named=True):
        held = [name in line["combination"].split("+") for name in cohort.modalities]
        then = [there or name == line["modality"] for name, there in zip(cohort.modalities, held, strict=True)]
        having = rows[(cohort.available[rows] | ~np.array(then)).all(axis=1)]
        assert line["n"] == len(having)
        assert line["modality"] not in line["combination"].split("+")
        p = subset_probability(fitted, cohort, having, np.array([held, then]))
        true = p[np.arange(len(having)), :, cohort.target[having]]
        assert line["bits"] == pytest.approx(np.diff(np.log2(true), axis=1).mean(), abs=1e-5)


def test_few_patients_have_no_number(finding):
    few = finding.table.filter("few")
    assert few.height
    assert (few["subjects"] < 10).all()
    assert few["bits"].null_count() == few.height


def test_a_part_of_the_samples_stands_for_all(cohort, runs):
    some = modality_values(cohort, runs[2:], most=12).table.filter(pl.col("kind").is_null())
    assert (some["n"] < 60).all()
    names = [Combination.of(mask).label(cohort.modalities) for mask in cohort.available[cohort.rows("test")]]
    assert some["n"].max() <= 12 * len(set(names))


def test_the_command_writes_its_tables(remind, runs, folder, tmp_path):
    done = remind("analyze", "modalities", runs[2].folder, "--cohort", folder, "--out", tmp_path, "--most", 5, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    written = {path.name for path in tmp_path.iterdir()}
    kinds = (".parquet", "-next.parquet", "-patients.parquet", ".json", ".png", ".svg")
    assert written == {f"modalities{end}" for end in kinds}
    assert "never seen in training" in said["says"][0]
