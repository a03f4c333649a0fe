"""Tables in memory: loaded as a folder is, and predicted for row by row without what only training needs."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import yaml
from six_kinds import LIGHT, SIZES, file_of, having, table_of, write_events, write_six

import remind as package
from remind.cohort.cohort import Cohort
from remind.config import load_recipe
from remind.engine.fitted import FittedModel
from remind.errors import RemindError

INPUTS = ["note", "hba1c", "vitals", "emb"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_six(tmp_path_factory.mktemp("frames") / "six", modalities=LIGHT)


@pytest.fixture(scope="module")
def cohort(folder) -> Cohort:
    return package.load(folder)


@pytest.fixture(scope="module")
def model(folder) -> FittedModel:
    recipe = load_recipe(None, [*SIZES, "method=soft-moe", "data.features=none", "train.epochs=1"])
    return package.fit(folder, recipe=recipe)


@pytest.fixture(scope="module")
def expected(model, cohort) -> np.ndarray:
    return model.predict_proba(cohort)


@pytest.fixture
def frame(folder) -> pl.DataFrame:
    return table_of(folder)


@pytest.fixture
def spec(folder) -> dict[str, Any]:
    return yaml.safe_load((folder / "cohort.yaml").read_text())


def as_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(frame.to_dict(as_series=False))


FRAMES = {"polars": lambda frame: frame, "pandas": as_pandas, "arrow": lambda frame: frame.to_arrow()}


@pytest.fixture(params=FRAMES)
def of_kind(request) -> Any:
    return FRAMES[request.param]


# Loading


def test_a_table_is_the_cohort_that_the_folder_is(of_kind, frame, spec, folder, cohort):
    loaded = package.load(of_kind(frame), spec, root=str(folder))
    assert loaded.ids == cohort.ids
    assert loaded.root == folder
    assert np.array_equal(loaded.available, cohort.available)
    assert np.array_equal(loaded.split, cohort.split)
    assert loaded.fingerprint == cohort.fingerprint


def test_the_spec_may_be_a_path_and_the_root_too(frame, folder, cohort):
    for given in (folder / "cohort.yaml", str(folder / "cohort.yaml")):
        assert package.load(frame, given, root=str(folder)).fingerprint == cohort.fingerprint
    assert package.load(frame, folder / "cohort.yaml", root=folder).root == folder


def test_rows_in_any_order_are_the_same_cohort(frame, spec, folder, cohort):
    mixed = frame.sample(fraction=1, shuffle=True, seed=3)
    assert mixed["visit"].to_list() != cohort.ids
    assert package.load(mixed, spec, root=str(folder)).fingerprint == cohort.fingerprint


def test_a_pandas_table_with_any_index_and_nan_is_the_same(frame, spec, folder, cohort):
    table = as_pandas(frame)
    assert table["hba1c"].isna().any()
    table.index = pd.Index(np.arange(len(table))[::-1] * 7, name="visit")
    loaded = package.load(table, spec, root=str(folder))
    assert np.array_equal(loaded.available, cohort.available)
    assert loaded.fingerprint == cohort.fingerprint


def test_not_a_number_is_nothing(frame, spec, folder, model, cohort, expected):
    table = frame.with_columns(pl.col("hba1c").fill_null(float("nan")))
    assert package.load(table, spec, root=str(folder)).fingerprint == cohort.fingerprint
    assert np.array_equal(model.predict_proba(table, root=folder), expected)


def test_the_table_that_is_given_is_not_changed(frame, spec, folder):
    table = as_pandas(frame)
    before = table.copy(deep=True)
    package.load(table, spec, root=str(folder))
    pd.testing.assert_frame_equal(table, before)


def test_a_model_trained_on_a_table_is_the_model_trained_on_the_folder(frame, spec, folder, model, cohort, expected):
    trained = package.fit(package.load(frame, spec, root=str(folder)), recipe=model.recipe)
    assert np.array_equal(trained.predict_proba(cohort), expected)


WRONG: dict[str, tuple[Any, str]] = {
    "no spec": (lambda f, s: (f, None), "a table needs its spec"),
    "a spec with a folder": (lambda f, s: ("somewhere", s), "brings its spec"),
    "a misspelt key": (lambda f, s: (f, {**s, "subjct": "patient"}), "Did you mean 'subject'"),
    "a column that is not there": (lambda f, s: (f.drop("note"), s), "'note'"),
    "no rows": (lambda f, s: (f.clear(), s), "no rows"),
    "a path upwards": (lambda f, s: (f.with_columns(emb=pl.lit("../x.npy")), s), "leads outside"),
    "paths that are numbers": (lambda f, s: (f.with_columns(emb=pl.lit(3)), s), "of type Int32"),
    "one id twice": (lambda f, s: (pl.concat([f, f[:1]]), s), "more than once"),
    "one column twice": (
        lambda f, s: (pd.concat([as_pandas(f), as_pandas(f)["note"]], axis=1), s),
        "the table cannot be read",
    ),
    "mixed types": (lambda f, s: (as_pandas(f).assign(note=[1, "a"] * 20), s), "the table cannot be read"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_table_is_one_sentence(frame, spec, folder, what):
    change, said = WRONG[what]
    table, given = change(frame, spec)
    with pytest.raises(RemindError, match=said) as error:
        package.load(table, given, root=str(folder))
    assert "\n" not in str(error.value)
    assert "zebrafish" not in str(error.value)


# Predicting


def test_a_table_without_labels_is_predicted_to_the_bit_as_the_cohort(of_kind, frame, folder, model, cohort, expected):
    assert frame["visit"].to_list() == cohort.ids
    inputs = frame.select(INPUTS)
    found = model.predict_proba(of_kind(inputs), root=folder)
    assert found.dtype == np.float64
    assert np.array_equal(found, expected)
    assert np.allclose(found.sum(1), 1)
    assert np.array_equal(model.predict_proba(of_kind(inputs), root=str(folder)), expected)
    wanted = [model.classes_[place] for place in expected.argmax(1)]
    assert model.predict(of_kind(inputs), root=folder) == wanted


def test_predictions_stand_in_the_tables_order(frame, folder, model, cohort, expected):
    order = np.random.default_rng(0).permutation(len(frame))
    found = model.predict_proba(frame.select(INPUTS)[order], root=folder)
    assert len(np.unique(expected, axis=0)) > 30  # a wrong order would show
    np.testing.assert_allclose(found, expected[order], rtol=0, atol=1e-6)
    more = pl.concat([frame[order]] * 4)  # row numbers of one to three digits
    again = model.predict_proba(more.select(INPUTS), root=folder)
    np.testing.assert_allclose(again, np.tile(expected[order], (4, 1)), rtol=0, atol=1e-6)


def test_one_row_is_enough(frame, folder, model, expected):
    for row in (0, 7):
        found = model.predict_proba(frame.select(INPUTS)[row : row + 1], root=folder)
        np.testing.assert_allclose(found, expected[row : row + 1], rtol=0, atol=1e-6)


def test_columns_that_are_not_inputs_are_not_looked_at(frame, folder, model, expected):
    odd = frame.with_columns(
        visit=pl.lit("the same"),
        grade=pl.lit("no class"),
        patient=pl.lit(None, pl.String),
        row=pl.lit("a"),
        more=pl.concat_list(pl.lit(1)),
    )
    assert np.array_equal(model.predict_proba(odd, root=folder), expected)


def test_columns_in_another_order_are_the_same(frame, folder, model, expected):
    assert np.array_equal(model.predict_proba(frame.select(reversed(INPUTS)), root=folder), expected)


def test_a_column_that_is_wholly_missing_may_have_any_type_of_nothing(frame, folder, model):
    some = frame.filter(pl.col("note").is_not_null())
    nothing = some.with_columns(emb=pl.lit(None), vitals=pl.lit(None, pl.String), hba1c=pl.lit(None))
    typed = some.with_columns(
        emb=pl.lit(None, pl.String), vitals=pl.lit(None, pl.String), hba1c=pl.lit(None, pl.Float64)
    )
    found = [model.predict_proba(table.select(INPUTS), root=folder) for table in (nothing, typed)]
    assert np.array_equal(*found)
    pandas = as_pandas(typed.select(INPUTS))
    assert np.array_equal(model.predict_proba(pandas, root=folder), found[0])


@pytest.mark.parametrize("column", ["row", "split", "index", "id"])
def test_an_input_column_may_have_any_name(tmp_path, column):
    """Also one that the package might take for its own."""

    def renamed(table: pl.DataFrame) -> pl.DataFrame:
        return table.rename({"hba1c": column})

    folder = write_six(
        tmp_path / "six", modalities=["note", "labs"], table=renamed, changes={"labs": {"columns": [column]}}
    )
    model = package.fit(folder, recipe=load_recipe(None, [*SIZES, "method=soft-moe", "train.epochs=1"]))
    found = model.predict_proba(table_of(folder).select("note", column), root=folder)
    assert np.array_equal(found, model.predict_proba(package.load(folder)))


def test_the_root_of_the_spec_holds_for_tables_too(tmp_path):
    folder = write_six(tmp_path / "six", modalities=["emb", "labs"], root="deep")
    (folder / "deep").mkdir()
    (folder / "emb").rename(folder / "deep" / "emb")
    model = package.fit(folder, recipe=load_recipe(None, [*SIZES, "method=soft-moe", "train.epochs=1"]))
    found = model.predict_proba(table_of(folder), root=folder / "deep")
    assert np.array_equal(found, model.predict_proba(package.load(folder)))


UNFIT = {
    "a column is not there": (lambda f: f.drop("note"), "'note'"),
    "a row has nothing": (lambda f: f.with_columns(**{name: pl.lit(None) for name in INPUTS}), "no modality at all"),
    "no rows": (lambda f: f.clear(), "no rows"),
    "an infinite number": (lambda f: f.with_columns(hba1c=pl.lit(float("inf"))), "infinite"),
    "words for numbers": (lambda f: f.with_columns(hba1c=pl.lit("zebrafish")), "hba1c"),
    "numbers for words": (lambda f: f.with_columns(note=pl.lit(86421)), "'note'"),
    "a path upwards": (lambda f: f.with_columns(emb=pl.lit("../zebrafish.npy")), "leads outside"),
    "a file that is not there": (lambda f: f.with_columns(emb=pl.lit("emb/none.npy")), "cannot be read"),
    "no table at all": (lambda f: None, ""),
}


@pytest.mark.parametrize("what", list(UNFIT)[:-1])
def test_what_cannot_be_predicted_is_one_sentence(frame, folder, model, what):
    change, said = UNFIT[what]
    with pytest.raises(RemindError, match=said) as error:
        model.predict_proba(change(frame), root=folder)
    assert "\n" not in str(error.value)
    assert "zebrafish" not in str(error.value)
    assert "86421" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named_by_its_row(frame, folder, model, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    key = having(folder, "emb")[3]
    file_of(tmp_path / "copy", "emb", key).write_bytes(b"")
    row = frame["visit"].to_list().index(key) + 1
    with pytest.raises(RemindError, match=rf"'emb' .*ids {row:02d}\)"):
        model.predict_proba(frame, root=tmp_path / "copy")


def test_a_file_of_no_events_counts_as_missing(frame, folder, model, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    key = next(key for key in having(folder, "vitals") if key in having(folder, "note"))
    write_events(file_of(tmp_path / "copy", "vitals", key), np.random.default_rng(0), count=0)
    emptied = model.predict_proba(frame, root=tmp_path / "copy")
    place = frame["visit"].to_list().index(key)
    without = frame.with_columns(vitals=pl.when(pl.col("visit") != key).then(pl.col("vitals")))
    assert np.array_equal(emptied, model.predict_proba(without, root=folder))
    assert not np.array_equal(emptied[place], model.predict_proba(frame, root=folder)[place])


def test_the_order_of_a_large_batch_does_not_matter_to_a_sample(model, frame, folder):
    """Nothing of one row leaks into another: the same row among others, and alone."""
    alone = np.concatenate([model.predict_proba(frame[row : row + 1], root=folder) for row in range(len(frame))])
    np.testing.assert_allclose(alone, model.predict_proba(frame, root=folder), rtol=0, atol=1e-6)
