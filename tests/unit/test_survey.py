"""What stands in the cells that are paths: found by opening each file once, and by nothing else."""

import hashlib
import os
import random
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from six_kinds import (
    FILES,
    WRITERS,
    file_of,
    having,
    put,
    python,
    table_of,
    write_embedding,
    write_events,
    write_image,
    write_six,
    write_volume,
)

import remind.cohort.survey as module
from remind.cohort.cohort import Cohort, load
from remind.cohort.survey import CACHE, admit, checksum, survey
from remind.errors import RemindError
from remind.modalities.files import within
from remind.reading import Unreadable

COLUMNS = ["row", "id", "cell", "modality", "state", "reason", "digest", "width"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return write_six(tmp_path_factory.mktemp("sound") / "six", samples=16)


@pytest.fixture
def six(sound, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(sound, tmp_path / "six"))


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The files that are opened, in order."""
    seen = []
    look = module.Files.__getitem__

    def watched(files, place):
        seen.append(files.paths[place][1])
        return look(files, place)

    monkeypatch.setattr(module.Files, "__getitem__", watched)
    return seen


def states(table: pl.DataFrame) -> dict[tuple[str, str], str]:
    return {(modality, key): state for key, modality, state in table.select("id", "modality", "state").iter_rows()}


def same(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    return one.select(COLUMNS).equals(other.select(COLUMNS))


def reasons(folder: Path) -> dict[str, str]:
    broken = survey(load(folder)).filter(pl.col("state") == "unreadable")
    return dict(broken.select("id", "reason").iter_rows())


# The four states


def test_every_file_of_a_sound_cohort_is_present_with_the_checksum_of_its_bytes(six):
    table = survey(load(six))
    assert table.columns == COLUMNS
    expected = {
        (name, key): hashlib.sha256((six / cell).read_bytes()).hexdigest()
        for name in FILES
        for key, cell in table_of(six).select("visit", name).drop_nulls().iter_rows()
    }
    assert {(m, i): d for i, m, d in table.select("id", "modality", "digest").iter_rows()} == expected
    assert set(table["state"]) == {"present"}
    assert table["reason"].null_count() == table.height


def test_absent_empty_unreadable_and_present_are_four_states(six):
    """Against a table of what was done to each file."""
    done, rng = {}, np.random.default_rng(1)
    for name in FILES:
        ids = having(six, name)
        done |= {(name, key): "present" for key in ids}
        file_of(six, name, ids[0]).write_bytes(b"not what it should be")
        file_of(six, name, ids[1]).unlink()
        done |= {(name, ids[0]): "unreadable", (name, ids[1]): "unreadable"}
    for name, write in (("vitals", write_events), ("emb", write_embedding)):
        key = having(six, name)[2]
        write(file_of(six, name, key), rng, count=0)
        done[name, key] = "empty"
    cohort = load(six)
    assert states(survey(cohort)) == done
    admitted = admit(cohort, unreadable="missing", budget=1.0)
    for place, name in enumerate(cohort.modalities):
        for row, key in enumerate(cohort.ids):
            if name in FILES:
                assert admitted.available[row, place] == (done.get((name, key)) == "present")
            else:
                assert admitted.available[row, place] == cohort.available[row, place]


def test_blank_text_is_empty_and_counts_as_missing(tmp_path):
    folder = write_six(tmp_path / "six", modalities=["note", "labs"])
    first, *_ = (key for key in having(folder, "note") if key in having(folder, "hba1c"))
    cohort = load(put(folder, "note", {first: " \t\n "}))
    row = cohort.ids.index(first)
    assert cohort.available[row].tolist() == [False, True]
    assert cohort.content("note")[row] is None


def test_no_cell_is_ever_changed_but_to_null(six):
    for name in FILES:
        file_of(six, name, having(six, name)[0]).write_bytes(b"")
    cohort = load(six)
    admitted = admit(cohort, unreadable="missing", budget=1.0)
    for column in cohort.samples.columns:
        for before, after in zip(cohort.samples[column], admitted.samples[column], strict=True):
            assert after == before or (after is None and column in FILES)
    lost = cohort.samples.null_count().sum_horizontal()[0]
    assert admitted.samples.null_count().sum_horizontal()[0] == lost + len(FILES)


REASONS = {
    "a folder": (lambda path: path.mkdir(), "folder"),
    "nothing": (lambda path: None, "not there"),
    "no bytes": (lambda path: path.write_bytes(b""), "0 bytes"),
    "a pipe": (os.mkfifo, "not a regular file"),
    "a link to itself": (lambda path: path.symlink_to(path.name), ""),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "not there"),
    "a link outside": (lambda path: path.symlink_to("/etc/hostname"), "outside"),
    "half a file": (lambda path: path.write_bytes(path.with_name("whole").read_bytes()[:-40]), "truncated"),
}


@pytest.mark.parametrize("column", ["scan", "emb", "vitals"])
@pytest.mark.parametrize("what", REASONS)
def test_what_stands_in_place_of_a_file_is_unreadable_with_its_reason(six, what, column):
    key = having(six, column)[0]
    path = file_of(six, column, key)
    path.rename(path.with_name("whole"))
    damage, said = REASONS[what]
    damage(path)
    assert list(found := reasons(six)) == [key]
    assert said in found[key]


@pytest.mark.parametrize("cell", ["a\0b", "x" * 5000, "scan/" * 1000 + "x", ".", "scan", "~/x", "scan\n.png"])
def test_a_path_that_can_be_no_file_is_unreadable_and_no_crash(six, cell):
    key = having(six, "scan")[0]
    assert list(reasons(put(six, "scan", {key: cell}))) == [key]


@pytest.mark.parametrize("cell", ["scan/../scan/{}", "../six/scan/{}", "{root}/scan/{}"])
def test_no_path_upwards_or_absolute_is_followed_even_where_it_leads_back_inside(six, cell):
    name = file_of(six, "scan", having(six, "scan")[0]).name
    assert within(six, f"scan/{name}").is_file()
    with pytest.raises(Unreadable, match="outside"):
        within(six, cell.format(name, root=six))


def test_a_link_that_stays_inside_is_followed(six):
    key, other = having(six, "scan")[:2]
    path = file_of(six, "scan", key)
    path.unlink()
    path.symlink_to(file_of(six, "scan", other).name)
    table = survey(load(six)).filter(pl.col("modality") == "scan", pl.col("id").is_in([key, other]))
    assert table["state"].to_list() == ["present"] * 2
    assert table["digest"].n_unique() == 1


def test_paths_start_where_root_says(tmp_path):
    folder = write_six(tmp_path / "six", samples=8)
    expected = survey(load(folder))
    (folder / "deep").mkdir()
    for name in FILES:
        (folder / name).rename(folder / "deep" / name)
    assert set(survey(load(folder))["state"]) == {"unreadable"}
    (folder / "cohort.yaml").write_text((folder / "cohort.yaml").read_text() + "root: deep\n")
    assert same(survey(load(folder)), expected)


def test_the_checksum_of_a_folder_is_that_of_its_names_and_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for part in ("1", "2"):
            (tmp_path / name / part).write_text(f"content {part}")
    first = checksum(tmp_path / "a")
    assert checksum(tmp_path / "b") == first
    (tmp_path / "b" / "1").write_text("content 3")
    changed = checksum(tmp_path / "b")
    (tmp_path / "b" / "1").write_text("content 1")
    (tmp_path / "b" / "2").rename(tmp_path / "b" / "3")  # the order stays
    assert len({first, changed, checksum(tmp_path / "b")}) == 3


# What the survey opens is what training would read


def pictures(place: Path, rng: np.random.Generator) -> None:
    place.mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 255, (64, 64)).astype(np.uint8)).save(place / f"{number}.jpg")


@pytest.mark.parametrize("frame", range(6))
def test_a_volume_damaged_in_any_frame_is_found(tmp_path, frame):
    """A file is opened as training would read it: all of it."""
    folder = write_six(tmp_path / "six", samples=8, modalities=["clip", "labs"])
    key = having(folder, "clip")[0]
    pictures(folder / "clip" / "frames", np.random.default_rng(0))
    put(folder, "clip", {key: "clip/frames"})
    assert not reasons(folder)
    damaged = folder / "clip" / "frames" / f"{frame}.jpg"
    damaged.write_bytes(damaged.read_bytes()[:700])
    assert list(reasons(folder)) == [key]


def test_a_dicom_image_whose_own_window_is_invalid_can_be_read_where_the_modality_has_one(tmp_path):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    folder = write_six(tmp_path / "six", samples=8, modalities=["scan", "labs"])
    key = having(folder, "scan")[0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.Rows = data.Columns = 4
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.WindowCenter, data.WindowWidth = 40, 0  # which DICOM does not allow
    data.PixelData = np.arange(16, dtype=np.uint16).tobytes()
    data.save_as(folder / "scan" / "x.dcm", enforce_file_format=True)
    put(folder, "scan", {key: "scan/x.dcm"})
    assert "give the modality one" in reasons(folder)[key]
    spec = (folder / "cohort.yaml").read_text()
    (folder / "cohort.yaml").write_text(spec.replace("kind: image", "kind: image\n    window: {center: 8, width: 8}"))
    assert not reasons(folder)


# Each file once


def test_each_file_is_opened_once_however_many_rows_name_it(six, opened):
    first, second, *_ = having(six, "scan")
    put(six, "scan", {second: table_of(six).filter(pl.col("visit") == first)["scan"].item()})
    said = []
    table = survey(load(six), progress=lambda done, total: said.append((done, total)))
    assert sorted(opened) == sorted(set(table["cell"]))
    assert len(opened) == table.height - 1
    assert said == [(done, len(opened)) for done in range(1, len(opened) + 1)]


def test_worker_processes_find_the_same(six):
    """In a process of its own: where it hangs, it is ended."""
    file_of(six, "vitals", having(six, "vitals")[0]).write_bytes(b"PAR1 or not")
    code = (
        "import sys; from remind.cohort.cohort import load; from remind.cohort.survey import survey\n"
        "from remind.cohort import workers; workers.WORTH_IT = 1  # else a cohort this small has none\n"
        "cohort = load(sys.argv[1]); print(survey(cohort, workers=2).equals(survey(cohort)))"
    )
    done = python(code, six, timeout=60)
    assert done.stdout.strip() == "True", done.stderr


# The cache


def test_files_that_are_unchanged_are_not_opened_again(six, tmp_path, opened):
    first = survey(load(six), cache=tmp_path / "store")
    assert (tmp_path / "store" / CACHE).is_file()
    assert len(opened) == first.height
    again = survey(load(six), cache=tmp_path / "store")
    assert len(opened) == first.height
    assert same(first, again)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("what", ["bytes", "time", "size", "gone"])
def test_a_changed_file_is_opened_again_and_no_other(six, tmp_path, opened, what, name):
    survey(load(six), cache=tmp_path)
    opened.clear()
    path = file_of(six, name, having(six, name)[0])
    before = path.stat()
    if what == "bytes":
        path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif what == "time":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - 1))
    elif what == "size":
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        path.unlink()
    found = survey(load(six), cache=tmp_path)
    assert opened == [str(path.relative_to(six))]
    assert same(found, survey(load(six)))


def test_a_file_that_is_mended_or_appears_is_seen(six, tmp_path):
    expected = survey(load(six))
    changed = [(name, file_of(six, name, key)) for name in FILES for key in having(six, name)[:2]]
    kept = {path: path.read_bytes() for _, path in changed}
    for number, path in enumerate(kept):
        path.unlink() if number % 2 else path.write_bytes(b"broken")
    broken = survey(load(six), cache=tmp_path)
    assert sum(broken["state"] == "unreadable") == len(kept)
    for path, content in kept.items():
        path.write_bytes(content)
    assert same(survey(load(six), cache=tmp_path), expected)


def test_a_file_that_could_not_be_read_is_tried_again_though_it_is_unchanged(six, tmp_path, monkeypatch):
    """A decoder was installed, a permission given: neither changes a file's time."""
    expected = survey(load(six))
    with monkeypatch.context() as patched:

        def refuse(path, **settings):
            raise Unreadable("may not be read (permission denied)")

        patched.setattr("remind.modalities.image.read_image", refuse)
        broken = survey(load(six), cache=tmp_path)
        assert set(broken.filter(pl.col("modality") == "scan")["state"]) == {"unreadable"}
    assert same(survey(load(six), cache=tmp_path), expected)


def test_two_cohorts_that_share_a_cache_do_not_take_each_others_files(tmp_path):
    """Files of one name, one size and one time, as archives leave them; their content is another."""
    rng, cohorts = np.random.default_rng(0), []
    for name in ("one", "two"):
        folder = write_six(tmp_path / name, samples=8, modalities=["clip", "labs"])
        for path in (folder / "clip").iterdir():
            write_volume(path, rng)
            os.utime(path, ns=(0, 0))
        cohorts.append(load(folder))
    expected = [survey(cohort) for cohort in cohorts]
    assert not same(*expected)
    for cohort, table in zip(cohorts, expected, strict=True):
        assert same(survey(cohort, cache=tmp_path / "store"), table)


def test_a_modality_that_became_another_kind_is_opened_again(tmp_path):
    folder = write_six(tmp_path / "six", samples=8, modalities=["emb", "labs"])
    assert set(survey(load(folder), cache=tmp_path / "store")["state"]) == {"present"}
    spec = (folder / "cohort.yaml").read_text()
    (folder / "cohort.yaml").write_text(spec.replace("kind: embedding", "kind: image"))
    assert set(survey(load(folder), cache=tmp_path / "store")["state"]) == {"unreadable"}


def strange_caches(whole: bytes) -> dict[str, bytes]:
    frame = pl.read_parquet(whole[64:])  # after its checksum
    rng = random.Random(0)
    found = {f"{len(whole) * part // 12} bytes": whole[: len(whole) * part // 12] for part in range(12)}
    for number in range(60):
        bit = rng.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        found[f"bit {bit} flipped ({number})"] = bytes(damaged)
    others = {
        "one column less": frame.drop("digest"),
        "sizes as text": frame.with_columns(pl.col("size").cast(pl.String)),
        "states as numbers": frame.with_columns(state=pl.lit(1)),
        "no rows": frame.clear(),
    }
    for name, other in others.items():
        other.write_parquet(path := Path(os.environ["PYTEST_STRANGE"]))
        found[name] = path.read_bytes()
        found[f"{name}, with its checksum"] = hashlib.sha256(found[name]).hexdigest().encode() + found[name]
    return found


def test_a_corrupt_cache_is_ignored(six, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_STRANGE", str(tmp_path / "strange"))
    expected = survey(load(six), cache=tmp_path)
    whole, broken = (tmp_path / CACHE).read_bytes(), []
    for name, content in strange_caches(whole).items():
        (tmp_path / CACHE).write_bytes(content)
        try:
            if not same(survey(load(six), cache=tmp_path), expected):
                broken.append(f"{name}: believed")
        except BaseException as error:
            broken.append(f"{name}: {type(error).__name__}")
    assert not broken, "; ".join(broken)


def test_two_processes_that_write_one_cache_do_not_clash(six, tmp_path, monkeypatch):
    """The second writes all of it while the first is about to put its own in place."""
    cohort, write = load(six), pl.DataFrame.write_parquet

    def interleaved(frame, path, *rest, **settings):
        write(frame, path, *rest, **settings)
        monkeypatch.setattr(pl.DataFrame, "write_parquet", write)
        survey(cohort, cache=tmp_path)

    monkeypatch.setattr(pl.DataFrame, "write_parquet", interleaved)
    found = survey(cohort, cache=tmp_path)
    assert same(found, survey(cohort, cache=tmp_path))


# Who is admitted


def broken(folder: Path, name: str, count: int) -> list[str]:
    ids = having(folder, name)[:count]
    for key in ids:
        file_of(folder, name, key).write_bytes(b"garbage")
    return ids


def test_without_permission_an_unreadable_file_stops_and_is_listed(six, tmp_path):
    ids = broken(six, "scan", 2)
    place = tmp_path / "run" / "quarantine.csv"
    with pytest.raises(RemindError, match=rf"2 of \d+ files of modality 'scan'.*{', '.join(ids)}") as error:
        admit(load(six), quarantine=place)
    assert str(place) in str(error.value)
    assert "--unreadable missing" in str(error.value)
    assert str(error.value).count("\n") == 0
    listed = pl.read_csv(place, schema_overrides={"id": pl.String})
    assert listed.columns == ["id", "modality", "file", "reason"]
    assert listed["id"].to_list() == ids
    assert set(listed["modality"]) == {"scan"}
    assert listed["file"].to_list() == [str(file_of(six, "scan", key).relative_to(six)) for key in ids]
    assert [path.name for path in place.parent.iterdir()] == ["quarantine.csv"]


def test_nothing_is_listed_where_every_file_can_be_read(six, tmp_path):
    admit(load(six), quarantine=tmp_path / "run" / "quarantine.csv")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("count", "allowed"), [(1, True), (2, True), (3, False)])
def test_the_budget_is_the_most_that_may_be_missing(tmp_path, count, allowed):
    folder = write_six(tmp_path / "six", modalities=["scan", "labs"])
    frame = table_of(folder)
    cells = [frame["scan"].drop_nulls()[0]] * frame.height  # all rows have a scan of their own
    for row in range(frame.height):
        path = folder / f"scan/own{row}.png"
        shutil.copy(folder / cells[0], path)
        cells[row] = f"scan/own{row}.png"
    frame.with_columns(scan=pl.Series(cells), hba1c=1.0).write_parquet(folder / "samples.parquet")
    for row in range(count):
        (folder / cells[row]).write_bytes(b"")
    cohort = load(folder)
    if allowed:
        admitted = admit(cohort, unreadable="missing", budget=2 / 40)
        assert int(admitted.available[:, 0].sum()) == 40 - count
    else:
        with pytest.raises(RemindError, match=r"3 of 40 files .* budget of 5\.0%"):
            admit(cohort, unreadable="missing", budget=2 / 40)
    with pytest.raises(RemindError, match="cannot be read"):
        admit(cohort, unreadable="stop", budget=1.0)


def test_one_modality_does_not_pay_for_another(tmp_path):
    folder = write_six(tmp_path / "six", modalities=["scan", "emb", "labs"])
    total = len(having(folder, "emb"))
    broken(folder, "emb", 2)
    with pytest.raises(RemindError, match=f"2 of {total} files of modality 'emb'"):
        admit(load(folder), unreadable="missing", budget=1.5 / total)
    assert admit(load(folder), unreadable="missing", budget=2 / total)


def test_a_sample_that_has_nothing_left_is_named(tmp_path):
    folder = write_six(tmp_path / "six", modalities=["scan", "labs"])
    alone = next(key for key in having(folder, "scan") if key not in having(folder, "hba1c"))
    file_of(folder, "scan", alone).unlink()
    with pytest.raises(RemindError, match=f"1 samples .*{alone}.*drop them"):
        admit(load(folder), unreadable="missing", budget=1.0)


def test_who_is_admitted_once_is_not_opened_again(six, opened):
    admitted = admit(load(six))
    count = len(opened)
    assert count > 0
    assert admit(admitted) is admitted
    assert len(opened) == count


def test_a_cohort_without_files_is_left_as_it_is(tmp_path, opened):
    cohort = load(write_six(tmp_path / "six", modalities=["note", "labs"]))
    assert admit(cohort) is cohort
    assert not opened


def test_a_table_of_a_wrong_modality_quotes_nothing(six):
    """Text in a column of paths: the quarantine would show it, a sentence must not."""
    key = having(six, "scan")[0]
    put(six, "scan", {key: "a zebrafish was seen"})
    with pytest.raises(RemindError) as error:
        admit(load(six))
    assert "zebrafish" not in str(error.value)


# The fingerprint


def fingerprint(folder: Path) -> str:
    return admit(load(folder), unreadable="missing", budget=1.0).fingerprint


def test_neither_the_order_of_rows_nor_file_times_nor_the_place_change_the_fingerprint(six, tmp_path):
    before = fingerprint(six)
    table_of(six).sample(fraction=1, shuffle=True, seed=1).write_parquet(six / "samples.parquet")
    for path in six.rglob("*.*"):
        os.utime(path, (1, 1))
    assert fingerprint(six) == before
    shutil.copytree(six, tmp_path / "elsewhere")
    assert fingerprint(tmp_path / "elsewhere") == before


@pytest.mark.parametrize("name", FILES)
def test_one_changed_file_changes_the_fingerprint(six, name):
    before = {fingerprint(six)}
    path = file_of(six, name, having(six, name)[0])
    WRITERS[name](path, np.random.default_rng(5))
    before.add(fingerprint(six))
    path.unlink()
    before.add(fingerprint(six))
    assert len(before) == 3


def test_one_changed_byte_that_changes_no_pixel_changes_the_fingerprint(six):
    path = file_of(six, "scan", having(six, "scan")[0])
    Image.open(path).save(path, optimize=True)
    first = fingerprint(six)
    with path.open("ab") as file:
        file.write(b"\0")
    assert fingerprint(six) != first


def test_an_admitted_cohort_is_another_than_one_whose_files_are_unknown(six):
    cohort = load(six)
    assert isinstance(cohort, Cohort)
    assert admit(cohort).fingerprint != cohort.fingerprint


def test_files_that_were_swapped_between_samples_change_the_fingerprint(six):
    before = fingerprint(six)
    one, other = (file_of(six, "scan", key) for key in having(six, "scan")[:2])
    contents = one.read_bytes(), other.read_bytes()
    assert contents[0] != contents[1]
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    assert fingerprint(six) != before
    write_image(one, np.random.default_rng(3))
