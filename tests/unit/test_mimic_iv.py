"""MIMIC from its owner's files to a cohort: counts, units, and above all nothing from after the window."""

import json
import math
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from conftest import call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mimic import HOUR, START, Hospital, crowd, load_postgres, postgres, postgres_binaries

from remind.cohort.cohort import load
from remind.errors import RemindError
from remind.sources.ehr.measurements import by_stay
from remind.sources.ehr.notes import LIMIT
from remind.sources.ehr.variables import VARIABLES, conversions, plain
from remind.sources.mimic_iv import write

DEMO = Path(__file__).parents[3] / "shared" / "data" / "mimic-demo"
INTIME = START + 2 * HOUR  # of Hospital.stay()
UNTIL = INTIME + 48 * HOUR
HEART, CREATININE = 220045, 50912


# mimic3-benchmarks' variables as MIMIC-IV's items, and mimic-code's chemistry, counts, gases, coagulation and liver.
VITALS = [
    *(220045, 220179, 220050, 225309, 224167, 227243, 220180, 220051, 225310, 224643, 220181, 220052, 225312, 224322),
    *(220210, 224689, 224690, 224422, 220277, 220227, 223761, 223762, 220621, 225664, 226537, 220739, 223900, 223901),
    *(223835, 223830, 220274, 226512, 224639, 226531, 226730, 226707),
]
LABS = [
    *(50862, 50868, 50882, 50893, 50902, 50912, 50931, 50971, 50983, 51006, 51221, 51222, 51265, 51279, 51301, 51248),
    *(51249, 51250, 51277, 50813, 50818, 50820, 50821, 50802, 50816, 51237, 51274, 51275, 50861, 50878, 50863, 50885),
]


def made(hospital, folder, **settings):
    """The cohort of a hospital."""
    hospital.write(folder / "mimic")
    return folder_of(write(folder / "cohort", root=str(folder / "mimic"), **settings))


def folder_of(cohort):
    return pl.read_parquet(cohort / "samples.parquet"), json.loads((cohort / "extraction.json").read_text()), cohort


def events(cohort, stay):
    return pl.read_parquet(cohort / "labs" / f"{stay}.parquet")


def steps(report):
    return dict(report["steps"])


# ------------------------------------------------------------------------------------------------------ real records


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    if not DEMO.is_dir():
        pytest.skip(f"the MIMIC demo is not in {DEMO.name} beside this checkout")
    return folder_of(write(tmp_path_factory.mktemp("mimic") / "cohort", root=str(DEMO)))


def test_the_demo_has_its_published_counts(demo):
    samples, report, cohort = demo
    assert report["steps"] == [
        ["ICU stays", 136],
        ["in table admissions", 136],
        ["in table patients", 136],
        ["of adults of 18 years and over", 135],
        ["the only one of their admission", 122],
        ["of 48 hours and more", 66],
        ["of patients alive after 48 hours", 66],
        ["with a note, a measurement or a code", 66],
        ["of them died in hospital", 21],
    ]
    assert pytest.approx(0.318, abs=5e-4) == 21 / 66  # as its README says
    assert report["shares"] == {"labs": 50 / 66, "labs+icd": 16 / 66}
    loaded = load(cohort)
    assert (len(loaded), loaded.modalities, loaded.classes) == (66, ("labs", "icd"), ["survived", "died"])
    charted = [stay for stay in samples["stay_id"] if "heart rate" in events(cohort, stay)["variable"].to_list()]
    assert len(charted) == 32  # the README's stays with chart rows


def test_the_demos_measurements_are_those_of_a_plain_reading(demo):
    """Polars on the raw files, one filter after the other, instead of DuckDB, joins and streams."""
    samples, _, cohort = demo
    stays = pl.read_csv(DEMO / "icu/icustays.csv.gz").filter(pl.col("stay_id").is_in(samples["stay_id"].implode()))
    begin, expected = pl.col("intime").str.to_datetime(), 0
    for table, key, items in (("hosp/labevents", "subject_id", "labs"), ("icu/chartevents", "stay_id", "chart")):
        columns = [key, "itemid", "charttime", "storetime", "valuenum"]
        rows = pl.read_csv(DEMO / f"{table}.csv.gz", columns=columns).drop_nulls("valuenum")
        rows = rows.join(stays.select(key, "intime"), on=key).with_columns(
            pl.col("charttime", "storetime").str.to_datetime(), intime=begin, until=begin + pl.duration(hours=48)
        )
        rows = rows.filter(
            pl.col("charttime") >= pl.col("intime"), pl.max_horizontal("charttime", "storetime") < pl.col("until")
        )
        for variable in VARIABLES:
            for item in getattr(variable, items):
                unit = variable.items.get(item, variable.unit)
                factor, offset = variable.others.get(unit, (1.0, 0.0))
                values = rows.filter(pl.col("itemid") == item)["valuenum"] * factor + offset
                if variable.shares:
                    values = pl.select(pl.when(values <= 1).then(values * 100).otherwise(values)).to_series()
                expected += values.is_between(variable.low, variable.high).sum()
    found = sum(events(cohort, stay).height for stay in samples["stay_id"])
    assert found == expected > 20_000


def test_from_raw_files_to_a_trained_remind_in_one_command(tmp_path, tiny):
    if not DEMO.is_dir():
        pytest.skip(f"the MIMIC demo is not in {DEMO.name} beside this checkout")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        "model: {dim: 16, experts: 4}\nencoders: {tabular: {tokens: 2}}\ntrain: {epochs: 2, device: cpu}\n"
    )
    line = ("demo", "--out", tmp_path / "demo", "--source", "mimic-iv", "--root", DEMO, "--form", "summaries")
    done = call(*line, "--recipe", recipe)
    assert done.code == 0, done.err
    for words in ("136", "66", "of them died in hospital", "respiratory rate", "remind, seed 0"):
        assert words in done.out
    assert (tmp_path / "demo" / "remind-seed0" / "metrics.json").is_file()
    other = call("demo", "--out", tmp_path / "demo", "--source", "embed", "--root", DEMO)
    assert other.code == 2
    assert "was made of mimic-iv" in other.err
    assert (tmp_path / "demo" / "combinations.png").is_file()


# ------------------------------------------------------------------------------------------------------- no leakage

minutes = st.integers(-60 * 60, 60 * 96)  # from two and a half days before the stay to two days after its window
delays = st.none() | st.integers(-60, 60 * 72)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    planted=st.lists(
        st.tuples(st.sampled_from(["lab", "chart", "note", "discharge"]), minutes, delays), min_size=1, max_size=60
    )
)
def test_nothing_that_was_not_known_when_the_window_ended_gets_in(planted, tmp_path_factory):
    """Events at any time, stored at any time: exactly those of the window come through. Each value names its event."""
    hospital = Hospital()
    subject, _, stay = hospital.stay()
    hospital.lab(subject, CREATININE, 100, INTIME)  # so that there is always a sample
    expected, notes = {100.0}, []
    for number, (kind, minute, delay) in enumerate(planted):
        at, value = INTIME + timedelta(minutes=minute), 50 + number
        stored = None if delay is None else at + timedelta(minutes=delay)
        known = max(at, stored or at)
        if kind == "lab":
            hospital.lab(subject, CREATININE, value, at, stored=stored)
        elif kind == "chart":
            hospital.chart(stay, HEART, value, at, stored=stored)
        else:
            hospital.note(subject, f"n{number}n", at, stored=stored, kind="RR" if kind == "note" else "DS")
            if known == at and (at.hour, at.minute, at.second) == (0, 0, 0):
                known = at + timedelta(days=1)
            if known < UNTIL:
                notes.append((known, f"n{number}n"))
            continue
        if at >= INTIME and known < UNTIL:
            expected.add(float(value))
    samples, _, cohort = made(hospital, tmp_path_factory.mktemp("leak"))
    assert set(events(cohort, stay)["value"]) == expected
    assert events(cohort, stay)["time"].is_between(0, 48, closed="left").all()
    text = samples["text"][0] if "text" in samples.columns else None
    assert set((text or "").split()) == {words for _, words in notes}
    if text:  # the newest first
        order = {words: known for known, words in notes}
        times = [order[words] for words in text.split()]
        assert times == sorted(times, reverse=True)


def test_what_is_known_at_the_very_second_the_window_ends_is_too_late(tmp_path):
    second = timedelta(seconds=1)
    hospital = Hospital()
    subject, _, stay = hospital.stay()
    hospital.lab(subject, CREATININE, 1, INTIME)  # the first second is in
    hospital.lab(subject, CREATININE, 2, INTIME - second, stored=INTIME)
    hospital.lab(subject, CREATININE, 3, UNTIL - second)
    hospital.lab(subject, CREATININE, 4, UNTIL)
    hospital.lab(subject, CREATININE, 5, UNTIL - HOUR, stored=UNTIL - second)
    hospital.lab(subject, CREATININE, 6, UNTIL - HOUR, stored=UNTIL)
    hospital.lab(subject, CREATININE, 7, UNTIL + HOUR, stored=UNTIL - HOUR)  # a clock that was wrong
    hospital.chart(stay, HEART, 80, UNTIL - HOUR, stored=UNTIL)
    for number, stored in enumerate((UNTIL - second, UNTIL)):
        hospital.note(subject, f"n{number}", UNTIL - HOUR, stored=stored)
    samples, _, cohort = made(hospital, tmp_path)
    assert sorted(events(cohort, stay)["value"]) == [1, 3, 5]
    assert samples["text"].to_list() == ["n0"]


@pytest.mark.parametrize("written", ["at midnight", "before it is dated", "a draft in the window"])
def test_the_discharge_summary_of_the_admission_never_counts_whatever_its_times(tmp_path, written):
    """In the release, its chart time is midnight of the day, and its store time may be as early, or earlier."""
    hospital = Hospital()
    subject, hadm, _ = hospital.stay()
    hospital.lab(subject, CREATININE, 1, INTIME)
    midnight = UNTIL.replace(hour=0, minute=0)
    assert midnight < UNTIL < midnight + 24 * HOUR
    at, stored = {
        "at midnight": (midnight, midnight),
        "before it is dated": (midnight + 24 * HOUR, UNTIL - 9 * HOUR),
        "a draft in the window": (INTIME, INTIME + 40 * HOUR),
    }[written]
    hospital.note(subject, "died at noon", at, stored=stored, kind="DS", hadm=hadm)
    hospital.note(subject, "earlier stay", START - timedelta(days=30), kind="DS", hadm=1)
    samples, _, _ = made(hospital, tmp_path)
    assert samples["text"].to_list() == ["earlier stay"]
    three, _, _ = folder_of(
        write(tmp_path / "c3", root=str(hospital.write_three(tmp_path / "three")), layout="mimic-iii")
    )
    assert three["text"].to_list() == ["earlier stay"]


def test_a_note_of_midnight_counts_from_the_days_end(tmp_path):
    hospital = Hospital()
    subject, _, _ = hospital.stay()
    hospital.lab(subject, CREATININE, 1, INTIME)
    midnight = UNTIL.replace(hour=0, minute=0)
    for text, at, stored in (
        ("of the last day", midnight, None),
        ("stored at once", midnight, midnight),
        ("the day before", midnight - 24 * HOUR, None),
        ("stored later", midnight, midnight + HOUR),
    ):
        hospital.note(subject, text, at, stored=stored)
    samples, _, _ = made(hospital, tmp_path)
    assert samples["text"][0].split("\n\n") == ["stored later", "the day before"]


def test_codes_are_of_admissions_that_ended_before_this_one_began(tmp_path):
    hospital = Hospital()
    subject, hadm, stay = hospital.stay()
    hospital.lab(subject, CREATININE, 1, INTIME)
    before = hospital.admission(subject, begin=START - timedelta(days=20), days=5)
    overlapping = hospital.admission(subject, begin=START - timedelta(days=2), days=5)
    after = hospital.admission(subject, begin=START + timedelta(days=40), days=5)
    for number, admission in enumerate((hadm, before, overlapping, after)):
        hospital.code(subject, admission, f"V{number}")
        hospital.title(f"V{number}", 9, f"title {number}")
    hospital.write(tmp_path / "mimic")
    earlier, report, _ = folder_of(write(tmp_path / "earlier", root=str(tmp_path / "mimic"), form="text"))
    assert earlier.select("stay_id", "icd").rows() == [(stay, "title 1")]
    assert not any("same stay" in sentence for sentence in report["warnings"])
    same, report, _ = folder_of(write(tmp_path / "same", root=str(tmp_path / "mimic"), form="text", codes="same-stay"))
    assert same["icd"].to_list() == ["title 0"]
    assert any("written after discharge" in sentence for sentence in report["warnings"])


# ------------------------------------------------------------------------------------------- samples, units, codes


def test_each_condition_drops_the_stays_it_names(tmp_path):
    hospital = Hospital()
    kept = [hospital.stay(), hospital.stay(died=True, age=18)]
    hospital.stay(age=17)
    subject = hospital.patient()
    twice = hospital.admission(subject)
    hospital.icu(subject, twice)
    hospital.icu(subject, twice, begin=START + 100 * HOUR)
    subject = hospital.patient()
    hospital.icu(subject, hospital.admission(subject), hours=47.9)
    subject = hospital.patient()  # dead before the window ends, says the admission
    hospital.icu(subject, hospital.admission(subject, died=True, dies=UNTIL - HOUR))
    silent = hospital.stay()  # nothing is known of it
    for subject, _, _ in kept:
        hospital.lab(subject, CREATININE, 1, INTIME)
    samples, report, _ = made(hospital, tmp_path)
    assert [count for _, count in report["steps"]] == [8, 8, 8, 7, 5, 4, 3, 2, 1]
    assert steps(report)["with a note, a measurement or a code"] == 2
    assert samples.sort("stay_id").select("stay_id", "subject_id", "outcome").rows() == [
        (kept[0][2], kept[0][0], "survived"),
        (kept[1][2], kept[1][0], "died"),
    ]
    assert silent[2] not in samples["stay_id"].to_list()


def test_units_are_made_one_and_what_cannot_be_is_dropped_and_counted(tmp_path):
    hospital = Hospital()
    subject, _, stay = hospital.stay()
    at = INTIME + HOUR
    for item, value, unit in (
        *((223761, 98.6, "°F"), (223761, 212.0, "°F"), (223762, 38.0, "°C")),  # 100 °C is no patient's
        *((226531, 100.0, None), (226531, 80.0, "kg"), (226707, 70.0, "Inch"), (226730, 12.0, "cm")),
        *((678, 100.4, None), (3580, 70.0, None), (3582, 2000.0, None)),
        *((223835, 0.4, None), (223835, 50.0, ""), (HEART, 80.0, "BPM"), (HEART, 0.0, "bpm"), (HEART, 70.0, "kg")),
    ):
        hospital.chart(stay, item, value, at, unit=unit)
    for value, unit in ((1.5, "mg/dL"), (1.6, "MG / DL"), (88.0, "umol/L"), (math.inf, "mg/dL"), (None, "mg/dL")):
        hospital.lab(subject, CREATININE, value, at, unit=unit)
    hospital.lab(subject, 51491, 5.0, at, unit="units")  # the pH of urine is no pH of blood
    _, report, cohort = made(hospital, tmp_path)
    found = events(cohort, stay).select("variable", pl.col("value").round(4)).sort("variable", "value").rows()
    assert found == [
        *(("creatinine", 1.5), ("creatinine", 1.6), ("heart rate", 80.0), ("height", 177.8)),
        *(("inspired oxygen", 40.0), ("inspired oxygen", 50.0)),
        *(("temperature", 37.0), ("temperature", 38.0), ("temperature", 38.0)),
        *(("weight", 45.3592), ("weight", 56.699), ("weight", 70.0), ("weight", 80.0)),
    ]
    counted = {name: tuple(line.values()) for name, line in report["measurements"].items()}
    assert counted == {
        "heart rate": (1, 1, 1),
        "temperature": (3, 0, 1),
        "inspired oxygen": (2, 0, 0),
        "weight": (4, 0, 0),
        "height": (1, 0, 1),
        "creatinine": (2, 1, 1),
    }


def test_no_item_means_two_things_and_every_range_is_one():
    items = [item for variable in VARIABLES for item in (*variable.labs, *variable.chart)]
    assert len(items) == len(set(items))
    assert all(variable.low < variable.high and set(variable.items) <= set(variable.chart) for variable in VARIABLES)
    assert all(plain(unit) in conversions(variable) for variable in VARIABLES for unit in variable.items.values())
    assert set(VITALS) | set(LABS) <= set(items)
    assert not {51491, 51094, 50831, 51478} & set(items)  # of urine and other fluids
    assert len({variable.name for variable in VARIABLES}) == len(VARIABLES)


@settings(max_examples=30, deadline=None)
@given(owners=st.lists(st.integers(0, 50), max_size=80), cut=st.integers(1, 30))
def test_stays_are_never_cut_in_whatever_order_their_rows_come(owners, cut, tmp_path_factory):
    rows = pl.DataFrame({"stay_id": owners}, schema={"stay_id": pl.Int64}).with_row_index()
    stays = pl.Series(range(51))
    batches = [rows[start : start + cut] for start in range(0, rows.height + 1, cut)]
    found = list(by_stay(batches, stays, tmp_path_factory.mktemp("spill")))
    expected = rows.sort("stay_id", "index")
    assert pl.concat([rows.clear(), *found]).sort("stay_id", "index").equals(expected)
    seen = [stay for frame in found for stay in frame["stay_id"].unique(maintain_order=True)]
    assert seen == sorted(set(owners))


def test_icd_10_is_mapped_or_kept_padded_codes_and_repeats_are_one(tmp_path):
    hospital = Hospital()
    subject, _, _ = hospital.stay()
    before = hospital.admission(subject, begin=START - timedelta(days=20), days=5)
    for place, (code, version) in enumerate(
        [("4019   ", 9), ("I10", 10), ("E119", 10), ("Z9999X", 10), ("4019", 9)], 1
    ):
        hospital.code(subject, before, code, version, place)
    hospital.title("4019", 9, "Hypertension")
    hospital.title("25000", 9, "Diabetes")
    hospital.title("I10", 10, "Essential hypertension")
    hospital.write(tmp_path / "mimic")
    settings = {"root": str(tmp_path / "mimic")}
    mapped, report, _ = folder_of(write(tmp_path / "mapped", form="text", **settings))
    assert mapped["icd"].to_list() == ["Hypertension; Diabetes; ICD-10 Z9999X"]
    assert report["codes"] == {"of": "earlier", "icd": "mapped", "codes": 5, "icd10": 3, "without_icd9": 1}
    kept, _, _ = folder_of(write(tmp_path / "kept", form="text", icd="kept", **settings))
    assert kept["icd"].to_list() == ["Hypertension; Essential hypertension; ICD-10 E119; ICD-10 Z9999X"]
    chapters, _, _ = folder_of(write(tmp_path / "chapters", **settings))
    counts = chapters.select(pl.selectors.starts_with("icd")).row(0, named=True)
    assert counts["icd9_chapter_07"] == 1  # the circulation
    assert counts["icd9_chapter_03"] == 1  # the endocrine system
    assert sum(counts.values()) == 3


def test_notes_come_whole_the_newest_first_up_to_the_limit(tmp_path):
    hospital = Hospital()
    subject, _, _ = hospital.stay()
    other, _, _ = hospital.stay()
    for hour, letter in enumerate("abc"):
        hospital.note(subject, letter * (LIMIT // 2 - 10), INTIME + hour * HOUR)
    hospital.note(other, "z" * (LIMIT + 5), INTIME)
    samples, _, _ = made(hospital, tmp_path)
    first, second = samples.sort("stay_id")["text"].to_list()
    assert first == "c" * (LIMIT // 2 - 10) + "\n\n" + "b" * (LIMIT // 2 - 10)
    assert second == "z" * LIMIT


def test_summaries_and_words_say_what_the_events_say(tmp_path):
    hospital = crowd(12)
    hospital.write(tmp_path / "mimic")
    cohorts = {
        form: folder_of(write(tmp_path / form, root=str(tmp_path / "mimic"), form=form))
        for form in ("events", "summaries", "text")
    }
    samples, _, cohort = cohorts["events"]
    assert all(part[0]["stay_id"].equals(samples["stay_id"]) for part in cohorts.values())
    assert len({json.dumps(part[1]["shares"]) for part in cohorts.values()}) == 1
    for place, stay in enumerate(samples["stay_id"]):
        summary = cohorts["summaries"][0].row(place, named=True)
        words = cohorts["text"][0]["labs"][place]
        if samples["labs"][place] is None:
            assert words is None
            assert summary["creatinine mean"] is None
            continue
        frame = events(cohort, stay)
        for name, unit in (("heart rate", "bpm"), ("creatinine", "mg/dL")):
            values = frame.filter(pl.col("variable") == name)["value"].to_list()
            keys = [f"{name} {statistic}" for statistic in ("first", "last", "lowest", "mean", "highest")]
            if not values:
                assert name not in words
                assert [summary[key] for key in keys] == [None] * 5
                continue
            expected = [values[0], values[-1], min(values), sum(values) / len(values), max(values)]
            assert [summary[key] for key in keys] == pytest.approx(expected)
            assert f"{name} {min(values):.4g} to {max(values):.4g}, last {values[-1]:.4g} {unit}" in words


# ------------------------------------------------------------------------------------- one extraction, many databases


@pytest.fixture(scope="module")
def hospital():
    return crowd()


@pytest.fixture(scope="module")
def from_files(hospital, tmp_path_factory):
    """What any other database must give, to the byte."""
    place = tmp_path_factory.mktemp("files")
    return files(write(place / "cohort", root=str(hospital.write(place / "mimic"))))


def files(cohort):
    tables = {path.name: pl.read_parquet(path) for path in sorted(cohort.rglob("*.parquet"))}
    return {name: (frame.schema, frame.rows()) for name, frame in tables.items()}, (
        cohort / "extraction.json"
    ).read_text()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_csv_and_parquet_give_what_archives_give(hospital, from_files, suffix, tmp_path):
    root = hospital.write(tmp_path / "a [1] b*", suffix=suffix)
    assert files(write(tmp_path / "cohort", root=str(root))) == from_files


def test_mimic_iii_gives_the_same_stays_from_its_own_layout(hospital, from_files, tmp_path):
    root = hospital.write_three(tmp_path / "three")
    tables, _ = files(write(tmp_path / "cohort", root=str(root), layout="mimic-iii", icd="kept"))
    expected, _ = from_files
    names = [name for name in expected if name != "samples.parquet"]
    assert {name: tables[name] for name in names} == {name: expected[name] for name in names}
    mine, theirs = (
        pl.DataFrame(
            part["samples.parquet"][1], schema=list(part["samples.parquet"][0]), orient="row", infer_schema_length=None
        )
        for part in (tables, expected)
    )
    same = ["stay_id", "subject_id", "outcome", "text", "labs"]
    assert mine.select(same).equals(theirs.select(same))


def test_older_tables_without_a_storetime_are_read_and_the_values_counted(hospital, tmp_path):
    gone = ("hosp/labevents.storetime", "icu/chartevents.storetime", "icu/chartevents.caregiver_id")
    root = hospital.write(tmp_path / "old", without=gone)
    samples, report, _ = folder_of(write(tmp_path / "cohort", root=str(root)))
    assert samples.height == 40
    kept = sum(counts["kept"] for counts in report["measurements"].values())
    assert any(f"{kept} labs and vitals do not say when they were stored" in said for said in report["warnings"])


def test_mimic_iii_leaves_out_errors_and_counts_age_to_the_day(tmp_path):
    hospital = Hospital()
    subject, _, stay = hospital.stay(age=18)
    hospital.chart(stay, 211, 80, INTIME)
    hospital.chart(stay, 211, 90, INTIME + HOUR)
    hospital.note(subject, "right", INTIME)
    hospital.note(subject, "wrong", INTIME)
    day = START.replace(hour=0, minute=0)
    hospital.note(subject, "dated", day)

    def wrong(name, frame):
        if name == "CHARTEVENTS":
            return frame.with_columns(error=pl.when(pl.col("valuenum") == "90").then(pl.lit("1")))
        if name == "NOTEEVENTS":
            time = pl.when(pl.col("text") != "dated").then("charttime")
            return frame.with_columns(iserror=pl.when(pl.col("text") == "wrong").then(pl.lit("1")), charttime=time)
        if name == "PATIENTS":
            return frame.with_columns(dob=pl.lit(birthdays[0]))
        return frame

    birthdays = ["2132-03-02 00:00:00"]
    root = hospital.write_three(tmp_path / "young", change=wrong)
    refused(tmp_path, "0 of adults", root=str(root), layout="mimic-iii")
    birthdays = ["2132-03-01 00:00:00"]
    root = hospital.write_three(tmp_path / "three", change=wrong)
    samples, _, cohort = folder_of(write(tmp_path / "cohort", root=str(root), layout="mimic-iii"))
    assert events(cohort, stay)["value"].to_list() == [80]
    assert samples["text"][0].split("\n\n") == ["dated", "right"]  # a day ends after its morning


@pytest.mark.skipif(
    postgres_binaries() is None, reason="LOUD: PostgreSQL is not installed; its extraction is NOT tested"
)
def test_a_hospitals_postgresql_gives_what_the_files_give(hospital, from_files, tmp_path):
    with postgres() as url:
        load_postgres(url, hospital)
        assert files(write(tmp_path / "cohort", database=url)) == from_files
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER TABLE mimiciv_icu.icustays DROP COLUMN outtime")
        refused(tmp_path, "mimiciv_icu.icustays", "outtime", database=url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA mimiciv_icu CASCADE")
        refused(tmp_path, "mimiciv_icu.icustays", database=url)
        refused(tmp_path, "mimiciii", database=url, layout="mimic-iii")
    refused(tmp_path, "cannot be reached", database=url.replace("remind@", "remind:secret@"), never="secret")


# ------------------------------------------------------------------------------------------------- what users get wrong


def refused(folder, *words, never="canary", **settings):
    """One sentence with these words, and no trace of a cohort."""
    with pytest.raises(RemindError) as caught:
        write(folder / "refused", **settings)
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence
    assert never not in sentence
    assert "\n" not in sentence
    assert not list(folder.glob("*refused*"))


def test_what_is_not_there_is_named(hospital, tmp_path):
    refused(tmp_path, "--root", "--database")
    refused(tmp_path, "nowhere", "no such folder", root=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    refused(tmp_path, "hosp/patients", root=str(tmp_path / "empty"))
    for table in ("hosp/patients", "icu/icustays", "hosp/labevents", "hosp/d_icd_diagnoses"):
        root = hospital.write(tmp_path / table.replace("/", "-"), without=(table,))
        refused(tmp_path, table, "MIMIC-IV", root=str(root))
    for column in ("hosp/labevents.valuenum", "icu/icustays.outtime", "hosp/admissions.hospital_expire_flag"):
        root = hospital.write(tmp_path / column.replace("/", "-"), without=(column,))
        refused(tmp_path, *column.rsplit(".", 1), root=str(root))


def test_without_the_note_module_the_cohort_says_so(hospital, tmp_path):
    root = hospital.write(tmp_path / "mimic", without=("note/discharge", "note/radiology"))
    samples, report, _ = folder_of(write(tmp_path / "cohort", root=str(root)))
    assert "text" not in samples.columns
    assert any("no notes" in sentence for sentence in report["warnings"])
    root = hospital.write(tmp_path / "half", without=("note/discharge",))
    assert "text" in folder_of(write(tmp_path / "other", root=str(root)))[0].columns


def test_no_stay_left_says_which_condition_took_the_last(tmp_path):
    hospital = Hospital()
    subject = hospital.patient()
    hospital.icu(subject, hospital.admission(subject), hours=20)
    refused(tmp_path, "1 ICU stays", "0 of 48 hours", root=str(hospital.write(tmp_path / "mimic")))
    hospital.stay()
    refused(tmp_path, "a single note", root=str(hospital.write(tmp_path / "bare")))


def test_a_file_without_headings_or_with_longer_lines_shows_no_patient(hospital, tmp_path):
    root = hospital.write(tmp_path / "mimic", suffix=".csv")
    path = root / "hosp" / "labevents.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], f"{lines[-1]},1,2,3"]))
    refused(tmp_path, "records cannot be read", root=str(root), never=lines[-1].split(",")[1])
    path.write_text("\n".join(lines[1:]))
    refused(tmp_path, "hosp/labevents", "headings", root=str(root), never=lines[1].split(",")[1])
    path.write_text("\n".join([",".join(f"{place}x" for place in range(16)), *lines[1:]]))
    refused(tmp_path, "hosp/labevents", "subject_id", root=str(root), never="0x")
    path.write_text("")
    refused(tmp_path, "hosp/labevents", "headings", root=str(root))


def test_a_byte_order_mark_lines_of_windows_and_hashes_change_nothing(hospital, from_files, tmp_path):
    root = hospital.write(tmp_path / "mimic", suffix=".csv")
    for path in root.rglob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert files(write(tmp_path / "cohort", root=str(root))) == from_files


def test_stays_without_patient_or_admission_are_counted(hospital, tmp_path):
    frames = hospital.frames()
    root = hospital.write(tmp_path / "mimic", suffix=".csv")
    frames["hosp/patients"].head(30).write_csv(root / "hosp" / "patients.csv")
    _, report, _ = folder_of(write(tmp_path / "cohort", root=str(root)))
    assert [count for _, count in report["steps"][:3]] == [40, 40, 30]
    frames["hosp/patients"].clear().write_csv(root / "hosp" / "patients.csv")
    refused(tmp_path, "40 ICU stays", "0 in table patients", root=str(root))


def test_without_the_extra_the_command_says_what_to_install(hospital, tmp_path):
    code = "import sys; sys.modules['ibis'] = None; from remind.cli import main; main()"
    line = ["cohort", "make", "mimic-iv", "--root", str(tmp_path), "--out", str(tmp_path / "refused")]
    done = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert ".[ehr]" in done.stderr


def test_memory_and_urls_that_cannot_be_are_refused(hospital, tmp_path):
    root = hospital.write(tmp_path / "mimic")
    done = call("cohort", "make", "mimic-iv", "--root", root, "--out", tmp_path / "refused", "--memory", "lots")
    assert done.code == 2
    assert "memory" in done.err
    for url in ("mysql://u:secret@h/x", "duckdb:///x.db", "postgresql://127.0.0.1:1/x?user=u&password=secret"):
        refused(tmp_path, "atabase", database=url, never="secret")
    damaged = hospital.write(tmp_path / "damaged", suffix=".parquet") / "hosp" / "labevents.parquet"
    damaged.write_bytes(damaged.read_bytes()[:40])
    refused(tmp_path, "labevents.parquet", root=str(tmp_path / "damaged"))


def test_a_cell_that_is_no_number_is_counted_not_shown(hospital, tmp_path):
    root = hospital.write(tmp_path / "mimic", suffix=".csv")
    path = root / "hosp" / "labevents.csv"
    lines = path.read_text().splitlines()
    cells = lines[5].split(",")
    cells[6] = "canary"
    path.write_text("\n".join([*lines[:5], ",".join(cells), *lines[6:]]))
    refused(tmp_path, "hosp/labevents", "charttime", "1 cells", "timestamp", root=str(root))
    archive = root / "hosp" / "labevents.csv.gz"
    path.unlink()
    archive.write_bytes(b"canary, not an archive")
    refused(tmp_path, "hosp/labevents", root=str(root))


def test_the_command_line_prints_the_counts_and_ends_with_2_on_a_mistake(hospital, tmp_path):
    root = hospital.write(tmp_path / "mimic")
    done = call("cohort", "make", "mimic-iv", "--root", root, "--out", tmp_path / "cohort", "--codes", "same-stay")
    assert done.code == 0, done.err
    for words in ("40  ICU stays", "14  of them died in hospital", "text+labs", "written after discharge"):
        assert words in done.out, words
    done = call("cohort", "make", "mimic-iv", "--root", tmp_path, "--out", tmp_path / "other")
    assert (done.code, done.out) == (2, "")
    assert "hosp/patients" in done.err
    done = call("cohort", "make", "mimic-iv", tmp_path / "other", "--root", root, "--codes", "all")
    assert done.code == 2
    assert "codes" in done.err
    done = call("cohort", "make", "mimic-iv", "--root", root)
    assert done.code == 2
    assert "name the folder" in done.err
