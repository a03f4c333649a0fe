"""MIMIC-IV (and MIMIC-III): death in hospital from the first 48 hours of a stay in intensive care.

A sample is a stay, a subject a patient. The modalities are the paper's: ``text`` (clinical notes), ``labs`` (and
vitals), ``icd`` (codes of diagnoses). Each holds only what was known when the window ended, unless the codes of the
same stay are asked for. The data are PhysioNet's, under its data-use agreement: nothing of them may be given on.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from remind.cohort.table import fill_cohort, new_folder
from remind.errors import RemindError
from remind.registry import Positive
from remind.sources.ehr import codes as coding
from remind.sources.ehr import forms
from remind.sources.ehr.folder import from_folder
from remind.sources.ehr.layouts import MIMIC_III, MIMIC_IV
from remind.sources.ehr.measurements import Cleaner, by_stay, measured
from remind.sources.ehr.notes import has_notes, noted
from remind.sources.ehr.records import Records
from remind.sources.ehr.server import from_server
from remind.sources.ehr.stays import Selection, select_stays
from remind.sources.extraction import extraction

LAYOUTS = {"mimic-iv": MIMIC_IV, "mimic-iii": MIMIC_III}
CLASSES = ["survived", "died"]
MASKED = "after masking at random, which `remind cohort mask COHORT OUT shares --shares mimic-iv` repeats"

Form = Literal["events", "summaries", "text"]


def write(
    out: Path,
    *,
    root: str | None = None,
    database: str | None = None,
    layout: Literal["mimic-iv", "mimic-iii"] = "mimic-iv",
    hours: Positive = 48,
    form: Form = "events",
    codes: coding.Whose = "earlier",
    icd: coding.Icd = "mapped",
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)?(MB|GB|MiB|GiB)$")] = "4GB",
) -> Path:
    """Write the cohort; ``extraction.json`` beside it counts what was found, kept and dropped.

    Args:
        out: the folder to write.
        root: the folder with ``hosp``, ``icu`` and, if there, ``note``; or
        database: the URL of a PostgreSQL database with mimic-code's schemas.
        layout: which of the two MIMIC it is.
        hours: the window, and the shortest stay.
        form: labs and vitals as ``events`` in time, as ``summaries`` in a table, or, as the paper has them, everything
            as ``text``.
        codes: of ``earlier`` admissions, or of the ``same-stay``, which leak the outcome.
        icd: ICD-10 codes ``mapped`` to ICD-9, or ``kept``.
        memory: what DuckDB may take before it spills to disk.

    Raises:
        RemindError: if the records are not there or not such as the layout says, or no stay is left.
    """
    if (root is None) == (database is None):
        raise RemindError("source 'mimic-iv' needs --root, MIMIC's folder, or --database, a URL; give one of them.")
    opened: AbstractContextManager[Records] = (
        from_server(LAYOUTS[layout], database)
        if database is not None
        else from_folder(LAYOUTS[layout], Path(str(root)), memory=memory, spill=out.parent)
    )
    with new_folder(out) as folder, opened as records:
        stays = select_stays(records, hours)
        steps, told, warnings = list(stays.steps), {}, []
        samples, modalities = stays.frame, {}
        for name, (cells, spec) in _cells(records, stays, form, codes, icd, folder, told, warnings):
            if cells.is_empty():
                warnings.append(f"no stay has {name}; the cohort is without that modality.")
                continue
            modalities[name] = spec
            samples = samples.join(cells, on="stay_id", how="left")
        if not modalities:
            raise RemindError(f"{records.place}: no stay has a single note, measurement or code; check the tables.")
        columns = [column for spec in modalities.values() for column in _columns(spec)]
        outcome = pl.when("died").then(pl.lit("died")).otherwise(pl.lit("survived")).alias("outcome")
        samples = samples.select("stay_id", "subject_id", outcome, *columns).sort("stay_id")
        samples = samples.filter(pl.any_horizontal(pl.col(columns).is_not_null()))
        steps.append(("with a note, a measurement or a code", samples.height))
        steps.append(("of them died in hospital", samples.filter(pl.col("outcome") == "died").height))
        spec = {
            "name": layout if hours == 48 else f"{layout}-{hours}h",
            "id": "stay_id",
            "subject": "subject_id",
            "label": {"column": "outcome", "classes": CLASSES},
            "modalities": modalities,
        }
        report = extraction(
            layout, spec, samples, steps=steps, warnings=warnings, paper="mimic-iv", says=MASKED, **told
        )
        fill_cohort(folder, spec, samples, {"extraction.json": report})
    return out


def _columns(spec: dict[str, Any]) -> list[str]:
    return spec["columns"] if spec["kind"] == "tabular" else [spec["column"]]


Cells = tuple[str, tuple[pl.DataFrame, dict[str, Any]]]


def _cells(
    records: Records,
    stays: Selection,
    form: Form,
    codes: coding.Whose,
    icd: coding.Icd,
    folder: Path,
    told: dict[str, Any],
    warnings: list[str],
) -> Iterator[Cells]:
    """Each modality: the cells of the stays that have it, and its spec."""
    if has_notes(records):
        yield "text", (noted(records, stays), {"kind": "text", "column": "text"})
    else:
        warnings.append(
            "there are no notes (a project of its own at PhysioNet: note/radiology, note/discharge); the cohort is "
            "without that modality."
        )
    yield "labs", _measurements(records, stays, form, folder, told, warnings)
    if codes == "same-stay":
        warnings.append(coding.LEAK)
    found = coding.coded(records, stays, whose=codes, icd=icd)
    told["codes"] = {"of": codes, "icd": icd, **found.counts}
    if form == "text":
        yield "icd", (coding.as_text(found), {"kind": "text", "column": "icd"})
    else:
        chapters = coding.as_chapters(found)
        yield "icd", (chapters, {"kind": "tabular", "columns": chapters.columns[1:]})


def _measurements(
    records: Records, stays: Selection, form: Form, folder: Path, told: dict[str, Any], warnings: list[str]
) -> tuple[pl.DataFrame, dict[str, Any]]:
    cleaner = Cleaner()
    with TemporaryDirectory(prefix=".remind-spill-", dir=folder.parent) as spill:
        rows = records.batches(measured(records, stays))
        frames = map(cleaner.clean, by_stay(rows, stays.frame["stay_id"], Path(spill)))
        if form == "events":
            pieces, spec = list(forms.as_events(frames, folder)), {"kind": "sequence", "column": forms.COLUMN}
        elif form == "text":
            pieces, spec = list(forms.as_words(frames)), {"kind": "text", "column": forms.COLUMN}
        else:
            pieces = list(forms.as_summaries(frames))
            spec = {"kind": "tabular", "columns": pieces[0].columns[1:] if pieces else []}
    if cleaner.never_stored:
        warnings.append(
            f"{cleaner.never_stored} labs and vitals do not say when they were stored; they count from when they were "
            "taken."
        )
    told["measurements"] = {name: counts for name, counts in cleaner.counts.items() if any(counts.values())}
    return (pl.concat(pieces) if pieces else pl.DataFrame()), spec
