import os

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remind.cohort import table as module
from remind.cohort.cohort import load
from remind.cohort.table import write_cohort
from remind.errors import RemindError

BOM = b"\xef\xbb\xbf"
SPEC = {
    "name": "written",
    "id": "visit",
    "label": {"column": "grade", "classes": ["none", "mild"]},
    "modalities": {"labs": {"kind": "tabular", "columns": ["hba1c"]}},
}
SAMPLES = pl.DataFrame({"visit": ["1", "2"], "grade": ["none", "mild"], "hba1c": [5.5, None]})


def csv(folder, content):
    (folder / "samples.parquet").unlink(missing_ok=True)
    (folder / "samples.csv").write_bytes(content)
    return folder


def same(one, other):
    """Two cohorts that hold the same, in the same order, in the same splits."""
    assert one.fingerprint == other.fingerprint
    assert one.ids == other.ids
    np.testing.assert_array_equal(one.available, other.available)
    np.testing.assert_array_equal(one.target, other.target)
    np.testing.assert_array_equal(one.split, other.split)


def test_a_null_cell_is_a_missing_modality_and_one_full_cell_is_an_available_one(clinic, at):
    cohort = load(clinic(table=at(1, hba1c=5.0)))
    assert cohort.available[0].tolist() == [True, True]  # its comment is null still
    assert cohort.available[1].tolist() == [True, False]
    assert cohort.available[3].tolist() == [False, True]


def test_nan_equals_null(clinic):
    nan = clinic("nan", table=lambda t: t.with_columns(pl.col("hba1c", "pulse").fill_null(float("nan"))))
    assert "NaN" in str(pl.read_parquet(nan / "samples.parquet")["pulse"].to_list()).replace("nan", "NaN")
    same(load(nan), load(clinic("null")))


def test_a_csv_reads_as_the_parquet_does(clinic):
    same(load(clinic("csv", csv=True)), load(clinic("parquet")))


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(clinic):
    text = (clinic("csv", csv=True) / "samples.csv").read_bytes()
    windows = csv(clinic("windows"), BOM + text.replace(b"\n", b"\r\n"))
    assert b"\r\n" in (windows / "samples.csv").read_bytes()
    same(load(windows), load(clinic("parquet")))


@pytest.mark.parametrize("word", ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"])
def test_every_word_for_nothing_in_a_csv_is_a_missing_cell(clinic, word):
    text = (clinic("csv", csv=True) / "samples.csv").read_text()
    rows = [line.split(",") for line in text.splitlines()]
    worded = "\n".join(",".join(cell or word for cell in row) for row in rows)
    same(load(csv(clinic("worded"), worded.encode())), load(clinic("parquet")))


def test_ids_keep_their_leading_zeros(clinic):
    folder = clinic(csv=True)
    assert "\n00012,p06," in (folder / "samples.csv").read_text()
    assert load(folder).ids[:2] == ["00000", "00001"]


def test_ids_that_differ_in_their_zeros_are_different_samples(clinic):
    text = (
        (clinic("csv", csv=True) / "samples.csv").read_text().replace("\n00012,", "\n012,").replace("\n00013,", "\n12,")
    )
    cohort = load(csv(clinic("zeros"), text.encode()))
    assert len(cohort) == 40
    assert {"012", "12"} <= set(cohort.ids)


def test_whole_numbers_as_ids_are_the_same_samples_in_any_width(clinic):
    def ids(dtype):
        return load(clinic(str(dtype), table=lambda t: t.with_columns(pl.col("visit").cast(dtype)))).ids

    assert ids(pl.Int64) == ids(pl.UInt8) == sorted(map(str, range(40)))


@pytest.mark.parametrize("csv_too", [False, True])
def test_labels_as_decimal_numbers_match_whole_classes(clinic, csv_too):
    """Pandas writes whole numbers as 1.0 once a cell of the column was empty."""
    folder = clinic(
        csv=csv_too,
        table=lambda t: t.with_columns(grade=pl.Series([float(n // 2 % 2) for n in range(40)])),
        label={"column": "grade", "classes": [0, 1]},
    )
    assert load(folder).target.tolist() == [n // 2 % 2 for n in range(40)]


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt64, pl.Float32, pl.Boolean, pl.String, pl.Categorical])
def test_labels_may_be_of_any_type(clinic, dtype):
    numbers = pl.Series([n // 2 % 2 for n in range(40)])
    column = numbers.cast(pl.String).cast(dtype) if dtype == pl.Categorical else numbers.cast(dtype)
    classes = ["false", "true"] if dtype == pl.Boolean else ["0", "1"]
    folder = clinic(table=lambda t: t.with_columns(grade=column), label={"column": "grade", "classes": classes})
    assert load(folder).target.tolist() == numbers.to_list()


def test_half_a_class_is_no_class(clinic, at):
    folder = clinic(
        table=lambda t: at(4, grade=1.5)(t.with_columns(grade=pl.Series([float(n // 2 % 2) for n in range(40)]))),
        label={"column": "grade", "classes": [0, 1]},
    )
    with pytest.raises(RemindError, match="row 4: label 'grade' is none of its classes"):
        load(folder)


def test_white_space_around_a_label_does_not_matter(clinic, at):
    assert load(clinic(table=at(4, grade=" mild "))).target[3] == 1


@given(st.permutations(range(40)))
@settings(deadline=None, max_examples=25)
def test_the_order_of_the_rows_changes_nothing(tmp_path_factory, order):
    from conftest import write_clinic

    place = tmp_path_factory.mktemp("orders")
    same(load(write_clinic(place / "a", table=lambda table: table[order])), load(write_clinic(place / "b")))


def test_the_order_of_the_columns_and_further_columns_change_nothing(clinic):
    mixed = clinic("mixed", table=lambda t: t.select(reversed(t.columns)).with_columns(extra=pl.lit(1)))
    same(load(mixed), load(clinic("plain")))


def test_one_cell_changes_the_fingerprint(clinic, at):
    fingerprints = {
        load(clinic(name, table=change)).fingerprint
        for name, change in {
            "as it is": lambda table: table,
            "number": at(3, pulse=1.0),
            "text": at(3, comment="other"),
            "missing": at(3, pulse=None),
            "label": at(3, grade="none"),
            "id": at(3, visit="other"),
            "subject": at(3, patient="p19"),
        }.items()
    }
    assert len(fingerprints) == 7


def test_columns_may_have_any_name(clinic):
    for name in ("größe µ", "*", "a b", "row", "split", "123", "[red]", "体重", "'quoted'", "$x$"):
        folder = clinic(
            str(abs(hash(name))),
            table=lambda t, name=name: t.rename({"pulse": name}),
            modalities={
                "vitals": {"kind": "tabular", "columns": [name]},
                "labs": {"kind": "tabular", "columns": ["hba1c"]},
            },
        )
        assert load(folder).available[:, 0].sum() == 33, name


@pytest.mark.parametrize("name", ["with space", "brackets [2024]", "star*", "what?", "[red]", "größe"])
def test_a_folder_may_have_any_name(clinic, name):
    assert len(load(clinic(name))) == 40
    assert len(load(clinic(f"csv {name}", csv=True))) == 40


def test_a_panic_of_the_reader_is_an_unreadable_file(clinic, monkeypatch):
    """Of the single bits of a Parquet file, one in some hundreds makes polars panic when it is turned over."""

    def panic(*args, **kwargs):
        raise pl.exceptions.PanicException("canary")

    folder = clinic()
    monkeypatch.setattr(pl, "read_parquet", panic)
    with pytest.raises(RemindError, match=r"samples\.parquet: cannot be read") as caught:
        load(folder)
    assert "canary" not in str(caught.value)


def test_a_cohort_is_written_and_read_back(tmp_path):
    folder = write_cohort(tmp_path / "deep" / "c", SPEC, SAMPLES, {"more.txt": "text", "more.parquet": SAMPLES})
    assert sorted(file.name for file in folder.iterdir()) == [
        "cohort.yaml",
        "more.parquet",
        "more.txt",
        "samples.parquet",
    ]
    assert pl.read_parquet(folder / "samples.parquet").equals(SAMPLES)
    assert folder.stat().st_mode & 0o777 == 0o755


class Killed(BaseException):
    """What no one catches."""


@pytest.mark.parametrize("moment", ["write_parquet", "replace", "write_text"])
@pytest.mark.parametrize("error", [OSError("disk full"), Killed()])
def test_a_cohort_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch, moment, error):
    def fail(*args, **kwargs):
        raise error

    target = {"write_parquet": pl.DataFrame, "replace": os, "write_text": module.Path}[moment]
    monkeypatch.setattr(target, moment, fail)
    with pytest.raises(type(error)):
        write_cohort(tmp_path / "c", SPEC, SAMPLES)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_written_over(tmp_path):
    (tmp_path / "c").mkdir()
    with pytest.raises(RemindError, match="is there already"):
        write_cohort(tmp_path / "c", SPEC, SAMPLES)
    assert list((tmp_path / "c").iterdir()) == []
    assert list(tmp_path.iterdir()) == [tmp_path / "c"]
