"""FPRM (Zhang et al., Scientific Data 2024): deterioration of health from pictures of the retina and a table.

The files are at Synapse (syn61672643) under an agreement, and their layout is not published; so this source reads a
manifest: a CSV with a row a sample, of which the first three columns say whose it is and what became of them, and the
others name files relative to the manifest's folder, or are the table.
"""

from pathlib import Path
from typing import Any

import polars as pl

from remind.cohort.table import write_cohort
from remind.documents import NULL_WORDS
from remind.errors import RemindError, unknown
from remind.modalities.files import within
from remind.reading import Unreadable
from remind.sources.extraction import extraction

FILES = {"fundus": "image", "flow": "volume", "oxygen": "image"}  # the paper's M1 to M3; M4 is the table
MANY = 20  # grades
SAYS = "its tables 3, 7, 10 and 14 show fundus+flow+table in the place of fundus+oxygen+table"


def write(
    out: Path,
    *,
    root: str | None = None,
    manifest: str = "manifest.csv",
    sample: str = "sample_id",
    patient: str = "patient_id",
    grade: str = "grade",
    fundus: str = "fundus",
    flow: str = "flow",
    oxygen: str = "oxygen",
    table: str = "x_",
) -> Path:
    """Write the cohort; ``extraction.json`` beside it counts what was kept and dropped.

    Args:
        out: the folder to write.
        root: the folder of the files.
        manifest: the CSV, within it. The paths it holds start from ``root``.
        sample: the column of the samples' ids.
        patient: the column of the patients' ids, by whom the split is drawn.
        grade: the column of the label; its classes are the values found, in order.
        fundus: the column of photographs.
        flow: the column of videos, or of folders of frames.
        oxygen: the column of oxygen maps.
        table: what the names of the table's columns begin with; or all of them, with commas between.

    Raises:
        RemindError: if the manifest, a column or a file it names is not there.
    """
    if root is None:
        raise RemindError("source 'fprm' needs --root, the folder of its files; give it.")
    place = Path(root) / manifest
    named = {"fundus": fundus, "flow": flow, "oxygen": oxygen}
    samples = _read(place, [sample, patient, grade, *named.values()])
    columns = _table_columns(samples, table, place)
    given = [*named.values(), *columns]
    _refuse_twice(place, [sample, patient, grade, *given])
    samples = samples.with_columns(_plain(pl.col(sample, patient, grade)))
    steps = [("rows", samples.height)]
    samples = samples.drop_nulls(grade)
    steps.append(("with a grade", samples.height))
    samples = samples.filter(pl.any_horizontal(pl.col(given).is_not_null()))
    steps += [("with any modality", samples.height), ("patients", samples[patient].n_unique())]
    if samples.is_empty():
        raise RemindError(
            f"{place}: no row has a grade and a modality; check columns {grade} and {', '.join(given[:4])}."
        )
    for column in named.values():
        _all_there(Path(root), place, samples, sample, column)
    modalities: dict[str, dict[str, Any]] = {
        name: {"kind": FILES[name], "column": column} for name, column in named.items() if samples[column].count()
    }
    if any(samples[column].count() for column in columns):
        modalities["table"] = {"kind": "tabular", "columns": columns}
    absent = [name for name in (*FILES, "table") if name not in modalities]
    warnings = [f"no sample has {name}; the cohort is without that modality." for name in absent]
    grades = _in_order(samples[grade])
    if len(grades) < 2:
        raise RemindError(f"{place}: column {grade} holds {len(grades)} grade; there must be two or more.")
    if len(grades) > MANY:
        warnings.append(f"column {grade} holds {len(grades)} grades; is it a label?")
    spec = {
        "name": "fprm",
        "id": sample,
        "subject": patient,
        "label": {"column": grade, "classes": grades},
        "root": str(Path(root).resolve()),
        "modalities": modalities,
    }
    used = [column for column in given if samples[column].count() or column in columns]
    kept = samples.select(sample, patient, grade, *used)
    report = extraction("fprm", spec, kept, steps=steps, warnings=warnings, paper="fprm", says=SAYS)
    return write_cohort(out, spec, kept, {"extraction.json": report})


def _read(place: Path, named: list[str]) -> pl.DataFrame:
    """The manifest: the named columns as text, the others as what they look like."""
    if not place.is_file():
        raise RemindError(
            f"{place}: no such file; name the manifest's folder with --root, and its name with --manifest."
        )
    try:
        known = pl.read_csv(place.read_bytes(), n_rows=0).columns
        for column in named:
            if column not in known:
                raise RemindError(f"{place}: {unknown('column', column, known)}")
        return pl.read_csv(
            place.read_bytes(),
            null_values=NULL_WORDS,
            infer_schema_length=None,
            schema_overrides=dict.fromkeys(named, pl.String),
        )
    except pl.exceptions.PolarsError as error:
        raise RemindError(f"{place}: cannot be read as a CSV file ({type(error).__name__}).") from None


def _table_columns(samples: pl.DataFrame, table: str, place: Path) -> list[str]:
    if "," in table or table in samples.columns:
        listed = [column.strip() for column in table.split(",")]
        for column in listed:
            if column not in samples.columns:
                raise RemindError(f"{place}: {unknown('column', column, samples.columns)}")
        return listed
    found = [column for column in samples.columns if column.startswith(table)]
    if not found:
        raise RemindError(f"{place}: no column begins with {table!r}; name the table's with --table, commas between.")
    return found


def _refuse_twice(place: Path, columns: list[str]) -> None:
    """A column means one thing: a label among the inputs would be learned."""
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise RemindError(f"{place}: column {twice[0]!r} is named for two things; name it once.")


def _plain(columns: pl.Expr) -> pl.Expr:
    """Without spaces around, and whole numbers without ``.0``: 3 and 3.0 are one patient, and one grade."""
    return columns.str.strip_chars().str.replace(r"^(-?\d+)\.0+$", "$1")


def _all_there(root: Path, place: Path, samples: pl.DataFrame, sample: str, column: str) -> None:
    """Every file a column names is there, and inside the folder."""
    lost = []
    for name, cell in samples.select(sample, column).drop_nulls(column).iter_rows():
        try:
            found = within(root, cell).exists()
        except (Unreadable, OSError):
            found = False
        if not found:
            lost.append(name)
    if lost:
        shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        raise RemindError(f"{place}: column {column}: there is no file for {shown}; mend the paths.")


def _in_order(grades: pl.Series) -> list[str]:
    """The grades that occur, by number if they are numbers."""
    found = grades.unique().sort().to_list()
    numbers = pl.Series(found).cast(pl.Float64, strict=False)
    return found if numbers.null_count() else pl.DataFrame({"g": found, "n": numbers}).sort("n")["g"].to_list()
