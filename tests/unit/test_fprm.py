"""FPRM from a manifest to a cohort."""

import json

import polars as pl
import pytest
from conftest import call
from releases import retina

from remind.cohort.audit import audit
from remind.cohort.cohort import load
from remind.cohort.splits import SPLITS
from remind.errors import RemindError
from remind.sources.fprm import write


def made(folder, **settings):
    cohort = write(folder / "cohort", **settings)
    return pl.read_parquet(cohort / "samples.parquet"), json.loads((cohort / "extraction.json").read_text()), cohort


def test_a_manifest_becomes_a_cohort_split_by_patient(tmp_path):
    samples, report, cohort = made(tmp_path, root=str(retina(tmp_path / "fprm")))
    loaded = load(cohort)
    assert loaded.modalities == ("fundus", "flow", "oxygen", "table")
    assert loaded.classes == ["0", "1", "2"]
    assert [samples[f"x_{place}"].dtype for place in range(8)] == [pl.Float64] * 8
    assert "comment" not in samples.columns
    assert report["steps"] == [["rows", 24], ["with a grade", 24], ["with any modality", 24], ["patients", 12]]
    assert report["shares"] == pytest.approx({"fundus": 0.5, "fundus+table": 0.25, "fundus+flow+oxygen+table": 0.25})
    split = dict(zip(loaded.ids, loaded.split, strict=True))
    assert all(split[f"s{2 * patient:03d}"] == split[f"s{2 * patient + 1:03d}"] for patient in range(12))
    assert set(split.values()) <= set(range(len(SPLITS)))
    assert audit(cohort).problems == []


def test_other_names_and_listed_columns(tmp_path):
    renamed = {
        "sample_id": "id",
        "patient_id": "who",
        "grade": "level",
        "fundus": "photo",
        "flow": "film",
        "oxygen": "o2",
    }
    root = retina(tmp_path / "fprm", change=lambda table: table.rename(renamed), name="all.csv")
    keys = dict(zip(("sample", "patient", "grade", "fundus", "flow", "oxygen"), renamed.values(), strict=True))
    samples, _, cohort = made(tmp_path, root=str(root), manifest="all.csv", **keys, table="x_1,x_3")
    assert load(cohort).spec.modalities["table"].columns == ["x_1", "x_3"]
    assert "x_2" not in samples.columns


def test_grades_are_in_order_of_their_numbers_and_rows_without_one_are_counted(tmp_path):
    def grades(table):
        given = pl.Series([str(number % 11) if number else None for number in range(24)])
        return table.with_columns(grade=given)

    samples, report, cohort = made(tmp_path, root=str(retina(tmp_path / "fprm", change=grades)))
    assert load(cohort).classes == [str(grade) for grade in range(11)]
    assert report["steps"][:2] == [["rows", 24], ["with a grade", 23]]
    assert samples.height == 23


def test_a_modality_that_nobody_has_is_left_out_and_said(tmp_path):
    empty = pl.lit(None, pl.String).alias("oxygen")
    samples, report, _ = made(tmp_path, root=str(retina(tmp_path / "fprm", change=lambda t: t.with_columns(empty))))
    assert "oxygen" not in samples.columns
    assert any("oxygen" in sentence for sentence in report["warnings"])


def test_the_papers_shares_and_its_contradiction_are_printed(tmp_path):
    root = retina(tmp_path / "fprm")
    done = call("cohort", "make", "fprm", "--root", root, "--out", tmp_path / "cohort")
    assert done.code == 0, done.err
    for words in ("59.9%", "17.7%", "fundus+flow+table", "12  patients"):
        assert words in done.out, words


def test_a_manifest_below_names_files_from_the_root(tmp_path):
    root = retina(tmp_path / "fprm")
    (root / "lists").mkdir()
    (root / "manifest.csv").rename(root / "lists" / "m.csv")
    _, _, cohort = made(tmp_path, root=str(root), manifest="lists/m.csv")
    assert audit(cohort).problems == []


def test_patients_and_grades_are_one_however_their_numbers_are_written(tmp_path):
    def floats(table):
        odd = pl.int_range(pl.len()) % 2 == 1
        written = [pl.when(odd).then(pl.format(" {}.0", name)).otherwise(name).alias(name) for name in ("n", "grade")]
        return table.with_columns(n=(pl.int_range(pl.len()) // 2).cast(pl.String)).with_columns(written)

    samples, report, cohort = made(tmp_path, root=str(retina(tmp_path / "fprm", change=floats)), patient="n")
    assert report["steps"][-1] == ["patients", 12]
    assert samples["n"].n_unique() == 12
    assert load(cohort).classes == ["0", "1", "2"]


def test_many_grades_are_warned_of(tmp_path):
    def measured(table):
        return table.with_columns(grade=(pl.int_range(pl.len()) * 1.5).cast(pl.String))

    _, report, _ = made(tmp_path, root=str(retina(tmp_path / "fprm", change=measured)))
    assert any("24 grades" in sentence for sentence in report["warnings"])


def refused(folder, *words, **settings):
    with pytest.raises(RemindError) as caught:
        write(folder / "refused", **settings)
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence
    assert "canary" not in sentence
    assert not list(folder.glob("*refused*"))


def test_what_is_not_there_is_named(tmp_path):
    refused(tmp_path, "--root")
    refused(tmp_path, "manifest.csv", "--manifest", root=str(tmp_path))
    root = str(retina(tmp_path / "fprm"))
    refused(tmp_path, "'who'", "patient_id", root=root, patient="who")
    refused(tmp_path, "'y_'", "--table", root=root, table="y_")
    refused(tmp_path, "x_99", root=root, table="x_1, x_99")
    for settings in ({"table": "grade"}, {"table": "patient_id,x_1"}, {"fundus": "flow"}, {"table": "x_1,x_1"}):
        refused(tmp_path, "named for two things", root=root, **settings)
    (tmp_path / "fprm" / "fundus" / "7.png").unlink()
    refused(tmp_path, "fundus", "s007", root=root)
    outside = retina(tmp_path / "out", change=lambda t: t.with_columns(flow=pl.lit("../fprm/flow/0.npy")))
    refused(tmp_path, "flow", "s000", "and 19 more", root=str(outside))
    long = retina(tmp_path / "long", change=lambda t: t.with_columns(flow=pl.lit("x" * 5000)))
    refused(tmp_path, "flow", "s000", root=str(long))
    one = retina(tmp_path / "one", change=lambda t: t.with_columns(grade=pl.lit("1")))
    refused(tmp_path, "grade", "two or more", root=str(one))
    twice = retina(tmp_path / "twice", change=lambda t: t.with_columns(sample_id=pl.lit("s1")))
    refused(tmp_path, "sample_id", root=str(twice))
    ungraded = retina(tmp_path / "un", change=lambda t: t.with_columns(grade=pl.lit(None, pl.String)))
    refused(tmp_path, "no row has a grade", root=str(ungraded))
