"""EMBED from its two tables to exams of four views: one breast, one exam, one density."""

import json

import polars as pl
import pytest
from conftest import call
from releases import Clinic, screening

from remind.cohort.audit import audit
from remind.cohort.cohort import load
from remind.errors import RemindError
from remind.sources.embed import STORED_UNDER, write


def made(clinic, folder, **settings):
    write(folder / "cohort", root=str(clinic.write(folder / "embed")), **settings)
    cohort = folder / "cohort"
    return pl.read_parquet(cohort / "samples.parquet"), json.loads((cohort / "extraction.json").read_text()), cohort


def test_every_view_becomes_its_modality_whatever_the_type_is_called(tmp_path):
    clinic = Clinic()
    for exam, kinds in (("e1", ("2D", "cview")), ("e2", ("2d", "C-view")), ("e3", ("2D", "c-view"))):
        for kind in kinds:
            for view in ("CC", "MLO"):
                clinic.image("p" + exam, exam, kind, view)
        clinic.finding("p" + exam, exam, "2")
    samples, report, cohort = made(clinic, tmp_path)
    assert samples["sample"].to_list() == ["e1", "e2", "e3"]
    assert samples.null_count().sum_horizontal().item() == 0
    assert samples["cview_mlo"][0] == "images/cohort_1/pe1/e1/003.dcm"
    assert report["shares"] == {"cview_cc+cview_mlo+ffdm_cc+ffdm_mlo": 1.0}
    assert audit(cohort).broken.is_empty()  # of the files, all of which it opens


def test_all_views_of_an_exam_are_of_one_breast_the_fuller_one(tmp_path):
    clinic = Clinic()
    clinic.image("p", "e", "2D", "CC", "L")
    for view in ("MLO", "CC"):
        clinic.image("p", "e", "2D", view, "R")
    clinic.image("q", "tie", "2D", "CC", "R")
    clinic.image("q", "tie", "2D", "MLO", "L")
    for patient, exam in (("p", "e"), ("q", "tie")):
        clinic.finding(patient, exam, "1")
    samples, report, _ = made(clinic, tmp_path)
    rows = {row["sample"]: row for row in samples.iter_rows(named=True)}
    assert (rows["e"]["ffdm_cc"], rows["e"]["ffdm_mlo"]) == (
        "images/cohort_1/p/e/002.dcm",
        "images/cohort_1/p/e/001.dcm",
    )
    assert (rows["tie"]["ffdm_cc"], rows["tie"]["ffdm_mlo"]) == (None, "images/cohort_1/q/tie/004.dcm")
    assert dict(map(tuple, report["steps"]))["images not used: other breast, repeated view or no density"] == 2
    breasts = pl.read_parquet(write(tmp_path / "b", root=str(tmp_path / "embed"), by="breast") / "samples.parquet")
    assert breasts["sample"].to_list() == ["e-L", "e-R", "tie-L", "tie-R"]
    assert load(tmp_path / "b").spec.subject == "patient"


def test_what_is_no_plain_view_and_no_womans_density_is_left_out_and_counted(tmp_path):
    clinic = Clinic()
    clinic.image("p", "e", "2D", "CC")
    clinic.image("p", "e", "2D", "MLO", spot_mag="1")
    clinic.image("p", "e", "2D", "XCCL")
    clinic.image("p", "e", "ROI_SSC", "CC")
    clinic.image("m", "man", "2D", "CC")
    clinic.image("n", "none", "2D", "CC")
    clinic.image("o", "odd", "2D", "CC")
    clinic.image("u", "unread", "2D", "CC")
    clinic.image("s", "second", "2D", "MLO")
    for exam, densities in (
        ("e", ["3.0"]),
        ("man", ["5"]),
        ("none", [None]),
        ("odd", ["4", "2", "4"]),
        ("second", ["1"]),
    ):
        for density in densities:
            clinic.finding("p" if exam == "e" else exam[0], exam, density)
    samples, report, _ = made(clinic, tmp_path)
    assert samples.select("sample", "density").rows() == [("e", "C"), ("odd", "D"), ("second", "A")]
    assert [count for _, count in report["steps"][:5]] == [9, 6, 6, 6, 3]
    assert any("1 exams have rows that differ in tissueden" in sentence for sentence in report["warnings"])
    assert any("cview_cc" in sentence for sentence in report["warnings"])
    assert "cview_cc" not in samples.columns


def test_a_density_without_a_majority_is_left_out_and_said(tmp_path):
    clinic = Clinic()
    for exam, densities in (("tie", "1 4"), ("three", "1 2 3"), ("most", "2 2 3"), ("one", "4")):
        clinic.image("p", exam, "2D", "CC")
        for density in densities.split():
            clinic.finding("p", exam, density)
    samples, report, _ = made(clinic, tmp_path)
    assert samples.select("sample", "density").rows() == [("most", "B"), ("one", "D")]
    assert any(sentence.startswith("3 exams") and "; 2 have none" in sentence for sentence in report["warnings"])


def test_numbers_that_were_floats_and_names_with_spaces_are_the_same(tmp_path):
    clinic = Clinic()
    clinic.image(" 7 ", "1.0", " 2d ", " cc ")
    clinic.finding("7.0", "1", "2")
    clinic.image("8", "2", "2D", "MLO")
    clinic.finding("8", "2", "1")
    samples, _, _ = made(clinic, tmp_path)
    assert samples.select("sample", "patient", "density").rows() == [("1", "7", "B"), ("2", "8", "A")]


def test_an_exam_of_two_patients_is_refused(tmp_path):
    clinic = Clinic()
    for patient, density in (("p", "1"), ("q", "4")):
        clinic.image(patient, "e", "2D", "CC")
        clinic.finding(patient, "e", density)
    refused(tmp_path, "sample", root=str(clinic.write(tmp_path / "two", files=False)))


def test_exams_are_joined_by_number_not_by_date(tmp_path):
    """The clinical table's date is the report's; two exams of one day must not mix."""
    clinic = Clinic()
    for exam, density in (("e1", "1"), ("e2", "4")):
        clinic.image("p", exam, "2D", "CC")
        clinic.finding("p", exam, density)
    samples, _, _ = made(clinic, tmp_path)
    assert samples.select("sample", "density").rows() == [("e1", "A"), ("e2", "D")]


def test_png_files_and_another_prefix(tmp_path):
    clinic = screening(24)
    samples, _, cohort = made(clinic, tmp_path, images="png")
    assert samples["ffdm_cc"][0].endswith(".png")
    assert audit(cohort).problems == []
    for row in clinic.images:
        row["anon_dicom_path"] = str(row["anon_dicom_path"]).replace(STORED_UNDER, "/other/")
    clinic.write(tmp_path / "moved", files=False)
    refused(tmp_path, "--prefix", "0 whose path begins", root=str(tmp_path / "moved"))
    place = write(tmp_path / "c2", root=str(tmp_path / "moved"), prefix="/other/")
    assert pl.read_parquet(place / "samples.parquet")["ffdm_cc"][0].startswith("images/cohort_1/")


def test_the_papers_shares_are_printed_beside_ours(tmp_path):
    clinic = screening()
    root = clinic.write(tmp_path / "embed")
    done = call("cohort", "make", "embed", "--root", root, "--out", tmp_path / "cohort")
    assert done.code == 0, done.err
    for words in ("exams with such a view", "57.8%", "37.1%", "50.0%"):
        assert words in done.out, words


def refused(folder, *words, **settings):
    with pytest.raises(RemindError) as caught:
        write(folder / "refused", **settings)
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence
    assert not list(folder.glob("*refused*"))


def test_what_is_not_there_is_named(tmp_path):
    refused(tmp_path, "--root")
    refused(tmp_path, "nowhere", root=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    refused(tmp_path, "EMBED_OpenData_metadata.csv", root=str(tmp_path / "empty"))
    for column in ("FinalImageType", "tissueden", "acc_anon"):
        root = screening(2).write(tmp_path / column, without=(column,), files=False)
        refused(tmp_path, column, "tables", root=str(root))
    clinic = Clinic()
    clinic.image("p", "e1", "2D", "CC")
    clinic.finding("p", "e2", "2")
    refused(tmp_path, "no exam is left", "acc_anon", root=str(clinic.write(tmp_path / "apart", files=False)))
