"""MIMIC-IV at the size of a hospital: 100 million lab results in a csv.gz, from raw files to a cohort, out of core.

Made up by DuckDB: 60 000 patients, each with one stay of three days in intensive care; a tenth of their labs, and 400
vitals each, fall into its first 48 hours. The extraction runs in a process of its own, as a user would start it, and is
allowed 1 GB before it spills. The reference is the memory we promise; seconds are in the raw figures.
"""

import argparse
import json
import multiprocessing
import tempfile
from pathlib import Path

import duckdb
from timing import measured

PATIENTS = 60_000
SMALL = ("--memory", "1GB")
GIB = 6.0  # the limit
VITALS = 400  # of a stay
LABS = (50912, 50971, 50983, 51006, 51222, 51265, 51301, 50813)  # those we read
OTHERS = tuple(range(53000, 53008))  # as many that we do not

TABLES = {
    "hosp/patients": """
        SELECT i AS subject_id, 'F' AS gender, 40 + i % 50 AS anchor_age, 2150 AS anchor_year
        FROM range({patients}) t(i)""",
    "hosp/admissions": """
        SELECT i AS subject_id, i + 1000000 AS hadm_id, TIMESTAMP '2150-01-01' AS admittime,
               TIMESTAMP '2150-01-15' AS dischtime, NULL::TIMESTAMP AS deathtime,
               (i % 9 = 0)::INTEGER AS hospital_expire_flag
        FROM range({patients}) t(i)""",
    "icu/icustays": """
        SELECT i AS subject_id, i + 1000000 AS hadm_id, i + 2000000 AS stay_id,
               TIMESTAMP '2150-01-02' AS intime, TIMESTAMP '2150-01-05' AS outtime, 3.0 AS los
        FROM range({patients}) t(i)""",
    "hosp/labevents": """
        SELECT i AS labevent_id, hash(i) % {patients} AS subject_id, NULL AS hadm_id, i AS specimen_id,
               list_extract({items}, 1 + (hash(i + 1) % {kinds})::INTEGER) AS itemid, 'P1234' AS order_provider_id,
               TIMESTAMP '2150-01-02' + INTERVAL (hash(i + 2) % 28800) MINUTE AS charttime,
               TIMESTAMP '2150-01-02' + INTERVAL (hash(i + 2) % 28800 + 60) MINUTE AS storetime,
               (hash(i + 3) % 200 / 10.0)::VARCHAR AS value, hash(i + 3) % 200 / 10.0 AS valuenum, '' AS valueuom,
               0 AS ref_range_lower, 10 AS ref_range_upper, NULL AS flag, 'ROUTINE' AS priority, NULL AS comments
        FROM range({rows}) t(i)""",
    "icu/chartevents": """
        SELECT i % {patients} AS subject_id, i % {patients} + 1000000 AS hadm_id, i % {patients} + 2000000 AS stay_id,
               NULL AS caregiver_id, TIMESTAMP '2150-01-02' + INTERVAL (i // {patients} * 7) MINUTE AS charttime,
               TIMESTAMP '2150-01-02' + INTERVAL (i // {patients} * 7 + 1) MINUTE AS storetime,
               220045 AS itemid, '80' AS value, 60 + hash(i) % 60 AS valuenum, 'bpm' AS valueuom, 0 AS warning
        FROM range({patients} * {vitals}) t(i)""",
    "hosp/diagnoses_icd": "SELECT 0 AS subject_id, 0 AS hadm_id, 1 AS seq_num, '4019' AS icd_code, 9 AS icd_version",
    "hosp/d_icd_diagnoses": "SELECT '4019' AS icd_code, 9 AS icd_version, 'Hypertension' AS long_title",
}


def write(root: Path, rows: int) -> None:
    """The folder as PhysioNet hands it out."""
    items = [*LABS, *OTHERS]
    for name, query in TABLES.items():
        path = root / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        filled = query.format(patients=PATIENTS, rows=rows, items=items, kinds=len(items), vitals=VITALS)
        duckdb.execute(f"COPY ({filled}) TO '{path}' (HEADER, COMPRESSION gzip)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as scratch:
        root, out = Path(scratch) / "mimic", Path(scratch) / "cohort"
        writer = multiprocessing.get_context("spawn").Process(target=write, args=(root, rows))
        writer.start()
        writer.join()
        size = (root / "hosp/labevents.csv.gz").stat().st_size / 2**30
        raw = {
            form: measured(
                "cohort", "make", "mimic-iv", "--root", str(root), "--out", str(out / form), "--form", form, *SMALL
            )
            for form in ("summaries", "events")
        }
        report = json.loads((out / "events" / "extraction.json").read_text(encoding="utf-8"))
        kept = sum(counts["kept"] for counts in report["measurements"].values())
    print(
        json.dumps(
            {
                "claim": f"MIMIC-IV with {rows:,} labs and {PATIENTS * VITALS:,} vitals, from csv.gz to a cohort",
                "reference": f"{GIB:g} GiB",
                "ratio": round(GIB / max(one["gib"] for one in raw.values()), 3),
                "target": 1.0,
                "measured": {**raw, "archive_gib": round(size, 2), "measurements": kept},
            }
        )
    )


if __name__ == "__main__":
    main()
