"""A made-up hospital, written as MIMIC-IV and MIMIC-III hand out theirs: same files, same columns; and a PostgreSQL."""

import contextlib
import gzip
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

START = datetime(2150, 3, 1, 8, 30)
HOUR = timedelta(hours=1)

# mimic-code, mimic-iv/buildmimic/postgres/create.sql and mimic-iv-note's.
COLUMNS = {
    "hosp/patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "hosp/admissions": (
        "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id admission_location "
        "discharge_location insurance language marital_status race edregtime edouttime hospital_expire_flag"
    ),
    "icu/icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
    "hosp/labevents": (
        "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime storetime value valuenum "
        "valueuom ref_range_lower ref_range_upper flag priority comments"
    ),
    "icu/chartevents": (
        "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valuenum valueuom warning"
    ),
    "hosp/diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
    "hosp/d_icd_diagnoses": "icd_code icd_version long_title",
    "note/discharge": "note_id subject_id hadm_id note_type note_seq charttime storetime text",
    "note/radiology": "note_id subject_id hadm_id note_type note_seq charttime storetime text",
}
TIMES = ("admittime", "dischtime", "deathtime", "edregtime", "edouttime", "intime", "outtime", "charttime", "storetime")
NUMBERS = ("valuenum", "los", "ref_range_lower", "ref_range_upper")
INTEGERS = (
    *("subject_id", "hadm_id", "stay_id", "anchor_age", "anchor_year", "hospital_expire_flag", "labevent_id"),
    *("specimen_id", "itemid", "caregiver_id", "warning", "seq_num", "icd_version", "note_seq"),
)


def sql_type(column: str) -> str:
    if column in TIMES:
        return "timestamp(0)"
    if column in NUMBERS:
        return "double precision"
    return {"icd_code": "char(7)", "dod": "date"}.get(column, "integer" if column in INTEGERS else "text")


@dataclass
class Hospital:
    """Rows of every table; what a method does not say of a row stays empty."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    number: int = 0

    def _add(self, table: str, **row: Any) -> None:
        self.rows[table].append(row)

    def _next(self) -> int:
        self.number += 1
        return self.number

    def patient(self, age: int = 60) -> int:
        subject = 10_000 + self._next()
        self._add("hosp/patients", subject_id=subject, gender="F", anchor_age=age, anchor_year=START.year)
        return subject

    def admission(
        self,
        subject: int,
        *,
        begin: datetime = START,
        days: float = 10,
        died: bool = False,
        dies: datetime | None = None,
    ) -> int:
        hadm, end = 20_000 + self._next(), begin + days * 24 * HOUR
        times = {"admittime": begin, "dischtime": end, "deathtime": dies or (end if died else None)}
        self._add("hosp/admissions", subject_id=subject, hadm_id=hadm, **times, hospital_expire_flag=int(died))
        return hadm

    def icu(self, subject: int, hadm: int, *, begin: datetime = START + 2 * HOUR, hours: float = 72) -> int:
        stay, times = 30_000 + self._next(), {"intime": begin, "outtime": begin + hours * HOUR}
        self._add("icu/icustays", subject_id=subject, hadm_id=hadm, stay_id=stay, **times, los=hours / 24)
        return stay

    def stay(self, *, died: bool = False, age: int = 60) -> tuple[int, int, int]:
        """``subject, hadm, stay`` of a patient who is a sample; the stay begins at ``START + 2 h``."""
        subject = self.patient(age)
        hadm = self.admission(subject, died=died)
        return subject, hadm, self.icu(subject, hadm)

    def lab(
        self,
        subject: int,
        item: int,
        value: float | None,
        at: datetime,
        *,
        unit: str | None = None,
        stored: datetime | None = None,
    ) -> None:
        row = {"subject_id": subject, "itemid": item, "charttime": at, "storetime": stored or at}
        self._add("hosp/labevents", labevent_id=self._next(), **row, valuenum=value, valueuom=unit)

    def chart(
        self,
        stay: int,
        item: int,
        value: float | None,
        at: datetime,
        *,
        unit: str | None = None,
        stored: datetime | None = None,
    ) -> None:
        owner = next(row for row in self.rows["icu/icustays"] if row["stay_id"] == stay)
        ids = {key: owner[key] for key in ("subject_id", "hadm_id", "stay_id")}
        row = {**ids, "itemid": item, "charttime": at, "storetime": stored or at, "valuenum": value, "valueuom": unit}
        self._add("icu/chartevents", **row, warning=0)

    def code(self, subject: int, hadm: int, code: str, version: int = 9, place: int = 1) -> None:
        self._add(
            "hosp/diagnoses_icd", subject_id=subject, hadm_id=hadm, seq_num=place, icd_code=code, icd_version=version
        )

    def title(self, code: str, version: int, title: str) -> None:
        self._add("hosp/d_icd_diagnoses", icd_code=code, icd_version=version, long_title=title)

    def note(
        self,
        subject: int,
        text: str,
        at: datetime,
        *,
        stored: datetime | None = None,
        kind: str = "RR",
        hadm: int | None = None,
    ) -> None:
        table = {"RR": "note/radiology", "DS": "note/discharge"}[kind]
        row = {"subject_id": subject, "hadm_id": hadm, "charttime": at, "storetime": stored, "text": text}
        self._add(table, note_id=f"{subject}-{kind}-{self._next()}", note_type=kind, note_seq=self.number, **row)

    def frames(self) -> dict[str, pl.DataFrame]:
        """Every table with all its columns, as text; tables without rows are there too."""
        return {
            table: pl.DataFrame(
                [{column: _cell(row.get(column)) for column in columns.split()} for row in self.rows[table]],
                schema=dict.fromkeys(columns.split(), pl.String),
            )
            for table, columns in COLUMNS.items()
        }

    def write(self, root: Path, *, suffix: str = ".csv.gz", without: tuple[str, ...] = ()) -> Path:
        """MIMIC-IV's folder; ``without`` names tables, or ``table.column``, that are not there."""
        for table, frame in self.frames().items():
            if table in without:
                continue
            gone = [name.partition(".")[2] for name in without if name.startswith(f"{table}.")]
            _write(frame.drop(gone), root / f"{table}{suffix}")
        return root

    def write_three(
        self, root: Path, *, change: Callable[[str, pl.DataFrame], pl.DataFrame] = lambda name, frame: frame
    ) -> Path:
        """The same hospital in MIMIC-III's layout: names in capitals, dates of birth, ICUSTAY_ID, NOTEEVENTS."""
        frames = self.frames()
        born = pl.format("{}-01-01 00:00:00", pl.col("anchor_year").cast(int) - pl.col("anchor_age").cast(int))
        empty = pl.lit(None, pl.String)
        day = pl.col("charttime").str.slice(0, 10)
        notes = (
            pl.concat([frames["note/discharge"], frames["note/radiology"]])
            .select(
                *("subject_id", "hadm_id", "charttime", "storetime", "text"),
                chartdate=day,
                iserror=empty,
                category=pl.when(pl.col("note_type") == "DS")
                .then(pl.lit("Discharge summary"))
                .otherwise(pl.lit("Radiology")),
            )
            .with_row_index("row_id")
        )
        tables = {
            "PATIENTS": frames["hosp/patients"].select("subject_id", "gender", dob=born),
            "ADMISSIONS": frames["hosp/admissions"].drop("admit_provider_id", "race"),
            "ICUSTAYS": frames["icu/icustays"].rename({"stay_id": "icustay_id"}),
            "LABEVENTS": frames["hosp/labevents"].select(
                "subject_id", "hadm_id", "itemid", "charttime", "value", "valuenum", "valueuom", "flag"
            ),
            "CHARTEVENTS": frames["icu/chartevents"].rename({"stay_id": "icustay_id"}).with_columns(error=empty),
            "DIAGNOSES_ICD": frames["hosp/diagnoses_icd"].drop("icd_version").rename({"icd_code": "icd9_code"}),
            "D_ICD_DIAGNOSES": frames["hosp/d_icd_diagnoses"].drop("icd_version").rename({"icd_code": "icd9_code"}),
            "NOTEEVENTS": notes,
        }
        for name, frame in tables.items():
            _write(change(name, frame).rename(str.upper), root / f"{name}.csv.gz")
        return root


def _cell(value: Any) -> str | None:
    return None if value is None else str(value)


def _write(frame: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(frame.write_csv().encode()))
    else:
        frame.write_csv(path)


def crowd(stays: int = 40, seed: int = 0) -> Hospital:
    """Many stays: some die, most have chart rows and labs, half an earlier admission, a third a note in the window."""
    draw, hospital = random.Random(seed), Hospital()
    for code, title in (("4019", "Hypertension"), ("25000", "Diabetes"), ("41401", "Coronary disease")):
        hospital.title(code, 9, title)
    hospital.title("I10", 10, "Essential hypertension")
    for number in range(stays):
        died = number % 3 == 0
        subject = hospital.patient(40 + number % 40)
        if number % 2:
            before = hospital.admission(subject, begin=START - timedelta(days=400), days=5)
            for place, code in enumerate(draw.sample(["4019", "25000", "41401"], 2), 1):
                hospital.code(subject, before, code, place=place)
            hospital.code(subject, before, "I10", 10, place=3)
        hadm = hospital.admission(subject, died=died)
        stay = hospital.icu(subject, hadm)
        begin = START + 2 * HOUR
        for hour in range(1, 47, 5):
            if number % 5:
                hospital.chart(stay, 220045, draw.gauss(110 if died else 80, 8), begin + hour * HOUR, unit="bpm")
            if number % 7:
                hospital.lab(subject, 50912, abs(draw.gauss(2 if died else 1, 0.2)), begin + hour * HOUR, unit="mg/dL")
        if number % 3 != 1:
            words = draw.choice(["opacity in the left lobe", "no change", "tube in place"])
            hospital.note(
                subject, f"{words}, {'worse' if died else 'clear'}", begin + 5 * HOUR, stored=begin + 6 * HOUR
            )
    return hospital


# ------------------------------------------------------------------------------------------------------- PostgreSQL

PLACES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin"), Path("/usr/bin")]


def postgres_binaries() -> Path | None:
    """Where PostgreSQL's server is installed, if it is."""
    return next((place for place in PLACES if (place / "initdb").exists() and (place / "postgres").exists()), None)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server of our own, on a port of its own, gone at the end. It will not run as root: we step down."""
    binaries = postgres_binaries()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="remind-pg-"))
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = pwd.getpwnam("nobody")
        os.chown(folder, account.pw_uid, account.pw_gid)
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    made = [binaries / "initdb", "-D", data, "-U", "remind", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder, **who)
    line = [binaries / "postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-F"]
    server = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **who)
    try:
        url = f"postgresql://remind@127.0.0.1:{port}/postgres"
        _wait(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str, server: subprocess.Popen) -> None:
    import psycopg

    for _ in range(300):
        assert server.poll() is None, "the server ended at once"
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url):
            return
        time.sleep(0.1)
    raise AssertionError("the server does not answer")


def load_postgres(url: str, hospital: Hospital) -> None:
    """The hospital in the schemas that mimic-code makes: ``mimiciv_hosp``, ``mimiciv_icu``, ``mimiciv_note``."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for table, frame in hospital.frames().items():
            module, name = table.split("/")
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS mimiciv_{module}")
            columns = ", ".join(f"{column} {sql_type(column)}" for column in frame.columns)
            connection.execute(f"CREATE TABLE mimiciv_{module}.{name} ({columns})")
            copy = f"COPY mimiciv_{module}.{name} FROM STDIN (FORMAT csv, HEADER)"
            with connection.cursor() as cursor, cursor.copy(copy) as stream:
                stream.write(frame.write_csv())
