"""How MIMIC-IV and MIMIC-III store what we read: files, schemas and columns, under one set of names.

MIMIC-IV as in MIT-LCP/mimic-code, ``mimic-iv/buildmimic/postgres/create.sql`` (v2.2, v3.x); MIMIC-III as in
``mimic-iii/buildmimic/postgres``.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Field(NamedTuple):
    """One column: its name where it is stored, its type, and whether a database may lack it."""

    stored: str
    type: str
    optional: bool = False


class Layout(NamedTuple):
    """A database's name; where each of our tables is stored, as ``module/table``; the columns we read, by our names."""

    name: str
    places: Mapping[str, str]
    fields: Mapping[str, Mapping[str, Field]]


def _fields(types: str, **renamed: str) -> dict[str, Field]:
    """``"hadm_id:int64 storetime:timestamp?"`` as fields; a question mark for what may be lacking."""
    pairs = (word.split(":") for word in types.split())
    return {name: Field(renamed.get(name, name), kind.rstrip("?"), kind.endswith("?")) for name, kind in pairs}


_ICU = "subject_id:int64 hadm_id:int64 stay_id:int64 intime:timestamp outtime:timestamp"
_ADMISSIONS = (
    "subject_id:int64 hadm_id:int64 admittime:timestamp dischtime:timestamp deathtime:timestamp "
    "hospital_expire_flag:int64"
)
_LABS = "subject_id:int64 itemid:int64 charttime:timestamp storetime:timestamp? valuenum:float64 valueuom:string"
_CHART = "stay_id:int64 itemid:int64 charttime:timestamp storetime:timestamp? valuenum:float64 valueuom:string"
_NOTES = "subject_id:int64 hadm_id:int64 number:int64? charttime:timestamp storetime:timestamp? text:string"

MIMIC_IV = Layout(
    "MIMIC-IV",
    {
        "patients": "hosp/patients",
        "admissions": "hosp/admissions",
        "icustays": "icu/icustays",
        "labevents": "hosp/labevents",
        "chartevents": "icu/chartevents",
        "diagnoses": "hosp/diagnoses_icd",
        "diagnosis_titles": "hosp/d_icd_diagnoses",
        "discharge": "note/discharge",
        "radiology": "note/radiology",
    },
    {
        "patients": _fields("subject_id:int64 anchor_age:int64 anchor_year:int64"),
        "admissions": _fields(_ADMISSIONS),
        "icustays": _fields(_ICU),
        "labevents": _fields(_LABS),
        "chartevents": _fields(_CHART),
        "diagnoses": _fields("hadm_id:int64 seq_num:int64 icd_code:string icd_version:int64"),
        "diagnosis_titles": _fields("icd_code:string icd_version:int64 long_title:string"),
        "discharge": _fields(_NOTES, number="note_seq"),
        "radiology": _fields(_NOTES, number="note_seq"),
    },
)

MIMIC_III = Layout(
    "MIMIC-III",
    {
        "patients": "patients",
        "admissions": "admissions",
        "icustays": "icustays",
        "labevents": "labevents",
        "chartevents": "chartevents",
        "diagnoses": "diagnoses_icd",
        "diagnosis_titles": "d_icd_diagnoses",
        "notes": "noteevents",
    },
    {
        "patients": _fields("subject_id:int64 dob:timestamp"),
        "admissions": _fields(_ADMISSIONS),
        "icustays": _fields(_ICU, stay_id="icustay_id"),
        "labevents": _fields(_LABS),
        "chartevents": _fields(f"{_CHART} error:int64?", stay_id="icustay_id"),
        "diagnoses": _fields("hadm_id:int64 seq_num:int64 icd_code:string icd_version:int64?", icd_code="icd9_code"),
        "diagnosis_titles": _fields("icd_code:string icd_version:int64? long_title:string", icd_code="icd9_code"),
        "notes": _fields(f"{_NOTES} chartdate:timestamp category:string iserror:int64?", number="row_id"),
    },
)
