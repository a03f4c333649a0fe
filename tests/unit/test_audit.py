"""``remind cohort check``: everything that is wrong with a cohort and its files, at once, by id."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from six_kinds import CANARY, FILES, WRITERS, file_of, having, put, table_of, write_embedding, write_events, write_six

from remind.cohort import survey
from remind.cohort.audit import audit
from remind.errors import RemindError


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return write_six(tmp_path_factory.mktemp("sound") / "six", samples=24)


@pytest.fixture
def six(sound, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(sound, tmp_path / "six"))


def change(folder: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Path:
    change(table_of(folder)).write_parquet(folder / "samples.parquet")
    return folder


def sentences(folder: Path, **settings: Any) -> list[str]:
    found = audit(folder, **settings)
    return [*found.problems, *(f"warning: {sentence}" for sentence in found.warnings)]


def test_a_sound_cohort_has_neither_problems_nor_warnings(six, remind):
    found = audit(six)
    assert (found.problems, found.warnings) == ([], [])
    assert found.broken is not None
    assert found.broken.is_empty()
    done = remind("cohort", "check", six)
    assert done.code == 0
    assert "nothing is wrong" in done.out
    assert not (six / "quarantine.csv").exists()


# One thing at a time: what is said, of which ids, and nothing else


def unreadable(folder: Path, key: str) -> None:
    file_of(folder, "scan", key).write_bytes(b"no picture")


def missing(folder: Path, key: str) -> None:
    file_of(folder, "scan", key).unlink()


def linked_outside(folder: Path, key: str) -> None:
    path = file_of(folder, "scan", key)
    path.rename(folder.parent / "outside.png")
    path.symlink_to(folder.parent / "outside.png")


def below_a_link_outside(folder: Path, key: str) -> None:
    shutil.copytree(folder / "scan", folder.parent / "outside")
    (folder / "way").symlink_to(folder.parent / "outside")
    file_of(folder, "scan", key).unlink()
    put(folder, "scan", {key: f"way/{int(key[1:])}.png"})


def of_another_patient(folder: Path, key: str) -> None:
    other = having(folder, "scan")[-1]
    shutil.copy(file_of(folder, "scan", other), file_of(folder, "scan", key))


def without_events(folder: Path, key: str) -> None:
    write_events(file_of(folder, "vitals", key), np.random.default_rng(0), count=0)


def without_tokens(folder: Path, key: str) -> None:
    write_embedding(file_of(folder, "emb", key), np.random.default_rng(0), count=0)


def named_by_no_row(folder: Path, key: str) -> None:
    put(folder, "scan", {key: None})


ONE = {  # the column, what is done to the file of its first sample, what is said
    "a damaged file": ("scan", unreadable, "modality 'scan': ids {key}: the file is not a PNG"),
    "a missing file": ("scan", missing, "modality 'scan': ids {key}: the file is not there"),
    "a link outside": ("scan", linked_outside, "modality 'scan': ids {key}: the file is a link that leads outside"),
    "a folder's link": ("scan", below_a_link_outside, "modality 'scan': ids {key}: the file is a link that leads"),
    "another's file": ("scan", of_another_patient, "warning: modality 'scan': ids {key}, {last}: the same content"),
    "no events": ("vitals", without_events, "warning: modality 'vitals': ids {key}: the file holds nothing"),
    "no tokens": ("emb", without_tokens, "warning: modality 'emb': ids {key}: the file holds nothing"),
    "an orphan": ("scan", named_by_no_row, "warning: modality 'scan': 1 files that stand beside"),
}


@pytest.mark.parametrize("what", ONE)
def test_each_wrong_file_is_named_by_its_id_and_is_all_that_is_said(six, what):
    column, damage, said = ONE[what]
    keys = [key for key in having(six, column) if key in having(six, "note")]  # no sample is left with nothing
    damage(six, keys[0])
    last = having(six, column)[-1]
    (found,) = sentences(six)
    assert said.format(key=keys[0], last=last) in found


CELLS = {
    "an absolute path": "/etc/hostname",
    "a path upwards": "../outside.png",
    "a path up and down": "scan/../../six/scan/0.png",
    "a drive": "C:\\scans\\0.png",
    "a share": "\\\\server\\scan.png",
}


@pytest.mark.parametrize("what", CELLS)
def test_a_path_that_leaves_the_folder_is_a_problem_of_its_row_and_nothing_there_is_opened(six, what, monkeypatch):
    key = having(six, "scan")[0]
    put(six, "scan", {key: CELLS[what]})
    (six.parent / "outside.png").write_bytes(file_of(six, "scan", having(six, "scan")[1]).read_bytes())
    opened = []
    look = survey.checksum
    monkeypatch.setattr(survey, "checksum", lambda path: opened.append(path) or look(path))
    found = audit(six)
    row = table_of(six)["visit"].to_list().index(key) + 1
    assert any(f"row {row}: modality 'scan', column 'scan' leads outside" in sentence for sentence in found.problems)
    assert opened
    assert all(path.resolve().is_relative_to(six) for path in opened)
    assert CELLS[what] not in " ".join(found.problems + found.warnings)


@pytest.mark.parametrize("cell", ["", " ", "\t\n"])
def test_a_blank_path_is_a_problem_of_its_row(six, cell):
    key = having(six, "scan")[0]
    row = table_of(six)["visit"].to_list().index(key) + 1
    found = sentences(put(six, "scan", {key: cell}))
    assert any(f"row {row}: modality 'scan', column 'scan' is a blank path" in sentence for sentence in found)


def test_blank_texts_are_named_as_the_empties_they_are(six):
    key = next(key for key in having(six, "note") if key in having(six, "scan"))
    (found,) = sentences(put(six, "note", {key: "  "}))
    assert key in found
    assert "'note'" in found


TYPES: dict[str, pl.Expr] = {
    "numbers": pl.int_range(pl.len()),
    "decimals": pl.int_range(pl.len()) / 3,
    "dates": pl.lit("2020-01-01").str.to_date(),
    "lists": pl.concat_list(pl.lit(CANARY), pl.lit("b")),
    "structures": pl.struct(pl.lit(CANARY).alias("a")),
    "bytes": pl.lit(CANARY.encode()),
    "booleans": pl.lit(True),
}


@pytest.mark.parametrize("column", ["note", "scan", "clip", "vitals", "emb"])
@pytest.mark.parametrize("what", TYPES)
def test_a_column_of_a_wrong_type_is_one_sentence_with_the_modality_and_no_crash(six, what, column):
    change(six, lambda table: table.with_columns(TYPES[what].alias(column)))
    found = audit(six)
    assert any(f"modality {column!r}: column {column!r} is of type" in sentence for sentence in found.problems)
    assert CANARY not in " ".join(found.problems + found.warnings)


ODD = {
    "an id that is null": {"visit": pl.when(pl.int_range(pl.len()) > 0).then(pl.col("visit"))},
    "all ids null": {"visit": pl.lit(None, pl.String)},
    "ids that are lists": {"visit": pl.concat_list("visit", "visit")},
    "subjects that are null": {"patient": pl.lit(None, pl.String)},
    "subjects that are lists": {"patient": pl.concat_list("patient", "patient")},
    "ids twice": {"visit": pl.lit("v0000")},
    "labels that are null": {"grade": pl.lit(None, pl.String)},
    "labels that are lists": {"grade": pl.concat_list("grade", "grade")},
}


@pytest.mark.parametrize("what", ODD)
def test_a_table_that_is_wrong_is_checked_together_with_its_files(six, what):
    """Every file is broken too: both must be said, and neither may hide the other or crash."""
    for name in FILES:
        for key in having(six, name):
            file_of(six, name, key).write_bytes(b"broken")
    change(six, lambda table: table.with_columns(**ODD[what]))
    found = " ".join(audit(six).problems)
    for name in FILES:
        assert f"modality {name!r}: " in found
    assert next(iter(ODD[what])) in found


ALIKE = [("p7", "P7"), ("p 7", "p7"), ("p-7", "p_7"), ("007", "7")]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_subjects_that_may_be_one_are_counted(six, one, other):
    keys = table_of(six)["patient"].unique(maintain_order=True).to_list()
    (found,) = sentences(put_patients(six, {keys[0]: one, keys[1]: other}))
    assert "2 values of 'patient' differ from another only in" in found


def put_patients(folder: Path, names: dict[str, str]) -> Path:
    return change(folder, lambda table: table.with_columns(pl.col("patient").replace(names)))


def test_one_patient_may_have_one_file_twice_and_another_content_is_no_mix_up(six):
    table = table_of(six)
    own = table.filter(pl.col("patient").is_duplicated() & pl.col("scan").is_not_null())
    patient = next(p for p, n in own["patient"].value_counts().iter_rows() if n == 2)
    one, other = own.filter(pl.col("patient") == patient)["scan"]
    shutil.copy(six / one, six / other)
    assert sentences(six) == []


# Orphans


def test_files_of_other_suffixes_and_elsewhere_are_no_orphans(six):
    (six / "scan" / "readme.txt").write_text("scans")
    (six / "elsewhere").mkdir()
    shutil.copytree(six / "scan", six / "elsewhere" / "scan")
    assert sentences(six) == []


@pytest.mark.parametrize("spelling", ["./scan/{}", "scan//{}", "scan/./{}"])
def test_a_file_named_in_another_spelling_is_no_orphan(six, spelling):
    cells = {key: spelling.format(file_of(six, "scan", key).name) for key in having(six, "scan")}
    assert sentences(put(six, "scan", cells)) == []


def test_the_cohorts_own_tables_are_no_orphans(tmp_path, remind):
    """Sequences as CSV files beside samples.csv, and a quarantine from an earlier check."""
    folder = write_six(tmp_path / "six", modalities=["vitals", "labs"])
    cells = {}
    for key in having(folder, "vitals"):
        pl.read_parquet(file_of(folder, "vitals", key)).write_csv(folder / f"{key}.csv")
        cells[key] = f"{key}.csv"
    put(folder, "vitals", cells)
    table_of(folder).write_csv(folder / "samples.csv")
    (folder / "samples.parquet").unlink()
    assert sentences(folder) == []
    whole = (folder / next(iter(cells.values()))).read_text()
    (folder / next(iter(cells.values()))).write_text("broken")
    assert remind("cohort", "check", folder).code == 2
    (folder / next(iter(cells.values()))).write_text(whole)
    assert sentences(folder) == []


def test_many_orphans_are_counted_of_every_modality(six):
    for name, suffix in FILES.items():
        for number in range(3):
            WRITERS[name](six / name / f"stray{number}.{suffix}", np.random.default_rng(number))
    found = sentences(six)
    assert len(found) == len(FILES)
    assert all("3 files" in sentence for sentence in found)


# All at once


@pytest.fixture
def all_wrong(six) -> tuple[Path, dict[str, str]]:
    """A cohort with one of everything, and what must be said."""
    scans, events, tokens = (having(six, name) for name in ("scan", "vitals", "emb"))
    unreadable(six, scans[0])
    missing(six, scans[1])
    linked_outside(six, scans[2])
    without_events(six, events[0])
    without_tokens(six, tokens[0])
    of_another_patient(six, scans[3])
    put(six, "scan", {scans[4]: "/etc/hostname", scans[5]: "../up.png", scans[6]: " "})
    change(six, lambda table: table.with_columns(clip=pl.int_range(pl.len())))
    put_patients(six, {"p0000": "P0001"})
    return six, {
        scans[0]: "is not a PNG",
        scans[1]: "is not there",
        scans[2]: "is a link that leads outside",
        scans[3]: "the same content stands under several subjects",
        events[0]: "the file holds nothing",
        tokens[0]: "the file holds nothing",
        "rows": "leads outside the cohort's folder",
        "row": "is a blank path",
        "'clip'": "is of type Int64",
        "values of 'patient'": "differ from another only in",
        "3 files": "named by no row",
    }


def test_everything_is_found_at_once_with_ids(all_wrong):
    folder, expected = all_wrong
    found = sentences(folder)
    for key, said in expected.items():
        assert any(said in sentence and key in sentence for sentence in found), (key, said, found)


def test_the_command_prints_them_lists_the_files_and_ends_with_code_2(all_wrong, remind):
    folder, expected = all_wrong
    done = remind("cohort", "check", folder)
    assert done.code == 2
    assert all(said in done.err for said in expected.values())
    listed = pl.read_csv(folder / "quarantine.csv")
    assert listed.columns == ["id", "modality", "file", "reason"]
    assert listed.filter(pl.col("modality") == "scan")["id"].to_list()[:3] == list(expected)[:3]
    assert CANARY not in done.said + (folder / "quarantine.csv").read_text()
    other = folder.parent / "elsewhere" / "list.csv"
    as_json = remind("cohort", "check", folder, "--json", "--quarantine", other)
    document = json.loads(as_json.out)
    assert (as_json.code, document["quarantine"]) == (2, str(other))
    assert pl.read_csv(other).equals(listed)
    assert all(said in " ".join(document["problems"] + document["warnings"]) for said in expected.values())


def test_values_in_place_of_paths_are_not_listed(six, remind):
    """A column of measurements named by mistake: the list would hold them as files."""
    change(six, lambda table: table.with_columns(scan=pl.int_range(pl.len()) + 86420))
    done = remind("cohort", "check", six)
    assert done.code == 2
    listed = six / "quarantine.csv"
    assert "8642" not in done.said + (listed.read_text() if listed.exists() else "")


def test_without_files_none_is_opened(all_wrong, remind, monkeypatch):
    folder, _ = all_wrong

    def fail(*args):
        raise AssertionError

    monkeypatch.setattr(survey.Files, "__getitem__", fail)
    monkeypatch.setattr(survey, "checksum", fail)
    done = remind("cohort", "check", folder, "--no-files")
    assert done.code == 2
    assert "leads outside the cohort's folder" in done.err
    assert "is of type Int64" in done.err
    assert "is not a PNG" not in done.err
    assert not (folder / "quarantine.csv").exists()
    with pytest.raises(AssertionError):
        remind("cohort", "check", folder)


def test_warnings_alone_are_no_failure(six, remind):
    without_events(six, having(six, "vitals")[0])
    done = remind("cohort", "check", six)
    assert done.code == 0
    assert "warning: " in done.err
    assert not (six / "quarantine.csv").exists()


def test_a_quarantine_does_not_outlive_what_it_lists(six, remind):
    path = file_of(six, "scan", having(six, "scan")[0])
    whole = path.read_bytes()
    path.write_bytes(b"broken")
    assert remind("cohort", "check", six).code == 2
    assert (six / "quarantine.csv").exists()
    path.write_bytes(whole)
    assert remind("cohort", "check", six).code == 0
    assert not (six / "quarantine.csv").exists()


def test_many_ids_are_cut_short_in_a_sentence_and_whole_in_the_list(six, remind):
    ids = having(six, "scan")
    for key in ids:
        unreadable(six, key)
    done = remind("cohort", "check", six)
    assert f"ids {', '.join(ids[:5])} and {len(ids) - 5} more" in done.err
    assert pl.read_csv(six / "quarantine.csv")["id"].to_list() == ids


def test_a_cohort_that_passes_can_be_trained_on_as_far_as_its_files_go(six):
    """Widths of embeddings are a matter of the whole cohort, and must be checked before a run, not in its middle."""
    key = having(six, "emb")[0]
    np.save(file_of(six, "emb", key), np.ones((2, 5), np.float32))
    assert any("'emb'" in sentence and key in sentence for sentence in sentences(six))


def test_a_folder_that_is_no_cohort_is_one_sentence(tmp_path, remind):
    with pytest.raises(RemindError, match="no such file"):
        audit(tmp_path)
    done = remind("cohort", "check", tmp_path)
    assert done.code == 2
    assert done.err.count("\n") == 1
