"""Which stays in intensive care are samples, and who died: one expression, counted step by step."""

from typing import NamedTuple

import ibis
import polars as pl

from remind.errors import RemindError
from remind.sources.ehr.records import Expression, Records

ADULT = 18


class Selection(NamedTuple):
    """The samples as an expression for joins, in memory, and how many stays each condition left."""

    expression: Expression  # stay_id, subject_id, hadm_id, admittime, intime, until
    frame: pl.DataFrame  # the same, and died
    steps: list[tuple[str, int]]


def select_stays(records: Records, hours: int) -> Selection:
    """Adults' only stay in an admission, at least ``hours`` long; as in mimic3-benchmarks, but transfers may stay.

    Death is in the hospital, after the window. Age is of the admission.

    Raises:
        RemindError: if no stay is left; says which condition took the last.
    """
    icu, admissions = records.table("icustays"), records.table("admissions")
    window = ibis.interval(hours=hours)
    alone = icu.group_by("hadm_id").mutate(stays=lambda table: table.count())
    joined = alone.join(admissions.drop("subject_id"), "hadm_id").join(_born(records), "subject_id")
    judged = joined.mutate(until=joined.intime + window).select(
        *("stay_id", "subject_id", "hadm_id", "admittime", "intime", "until"),
        adult=lambda table: table.admittime.year() - table.born >= ADULT,
        single=lambda table: table.stays == 1,
        lasted=lambda table: (table.outtime >= table.until).fill_null(False),
        alive=lambda table: table.deathtime.isnull() | (table.deathtime > table.until),
        died=lambda table: table.hospital_expire_flag == 1,
    )
    frame = records.frame(judged).sort("stay_id")
    conditions = {
        "adult": f"of adults of {ADULT} years and over",
        "single": "the only one of their admission",
        "lasted": f"of {hours} hours and more",
        "alive": f"of patients alive after {hours} hours",
    }
    steps = [("ICU stays", frame.height)]
    for column, words in conditions.items():
        frame = frame.filter(column)
        steps.append((words, frame.height))
        if frame.is_empty():
            told = ", ".join(f"{count} {said}" for said, count in steps)
            raise RemindError(f"{records.place}: no stay is left to be a sample ({told}); check table icu/icustays.")
    if (unknown := frame["died"].null_count()) > 0:
        raise RemindError(f"{records.place}: table admissions: hospital_expire_flag is empty for {unknown} stays.")
    if (twice := frame.height - frame["stay_id"].n_unique()) > 0:
        raise RemindError(f"{records.place}: {twice} stays stand twice in icustays, admissions or patients.")
    kept = judged.filter([judged[column] for column in conditions]).drop(*conditions, "died")
    return Selection(kept, frame.drop(*conditions), steps)


def _born(records: Records) -> Expression:
    """The year of birth, in the patient's own shifted time."""
    patients = records.table("patients")
    if "dob" in patients.columns:  # MIMIC-III
        return patients.select("subject_id", born=patients.dob.year())
    return patients.select("subject_id", born=patients.anchor_year - patients.anchor_age)
