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
    icu, admissions, patients = (records.table(name) for name in ("icustays", "admissions", "patients"))
    admissions = admissions.select("hadm_id", "admittime", "deathtime", "hospital_expire_flag", admitted=True)
    alone = icu.group_by("hadm_id").mutate(stays=lambda table: table.count())
    joined = alone.left_join(admissions, "hadm_id").drop("hadm_id_right")
    joined = joined.left_join(patients.mutate(patient=True), "subject_id").drop("subject_id_right")
    judged = joined.mutate(until=joined.intime + ibis.interval(hours=hours)).mutate(adult=_adult(joined))
    judged = judged.select(
        *("stay_id", "subject_id", "hadm_id", "admittime", "intime", "until"),
        admitted=judged.admitted.fill_null(False),
        patient=judged.patient.fill_null(False),
        adult=judged.adult.fill_null(False),
        single=judged.stays == 1,
        lasted=(judged.outtime >= judged.until).fill_null(False),
        alive=judged.deathtime.isnull() | (judged.deathtime > judged.until),
        died=judged.hospital_expire_flag == 1,
    )
    frame = records.frame(judged).sort("stay_id")
    conditions = {
        "admitted": "in table admissions",
        "patient": "in table patients",
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
            raise RemindError(f"{records.place}: no stay is left to be a sample ({told}); check those tables.")
    if (unknown := frame["died"].null_count()) > 0:
        raise RemindError(f"{records.place}: table admissions: hospital_expire_flag is empty for {unknown} stays.")
    if (twice := frame.height - frame["stay_id"].n_unique()) > 0:
        raise RemindError(f"{records.place}: {twice} stays stand twice in icustays, admissions or patients.")
    kept = judged.filter([judged[column] for column in conditions]).drop(*conditions, "died")
    return Selection(records.keep(kept), frame.drop(*conditions), steps)


def _adult(table: Expression) -> Expression:
    """By birthday where there is one (MIMIC-III), else by the year, in the patient's own shifted time."""
    if "dob" in table.columns:
        return table.dob + ibis.interval(years=ADULT) <= table.admittime
    return table.admittime.year() - (table.anchor_year - table.anchor_age) >= ADULT
