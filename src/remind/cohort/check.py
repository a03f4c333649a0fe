"""Everything that can be wrong with a cohort, all at once, each with its rows and its mend."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from remind.cohort.spec import CohortSpec, SplitColumn
from remind.cohort.splits import SPLITS
from remind.cohort.table import availability, labels
from remind.errors import rows, unknown
from remind.modalities.spec import Modality

LARGEST = 1e30  # what is larger would not survive being squared in single precision
OUTSIDE = r"^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)"  # absolute, or up
PLAIN = (pl.Boolean, pl.String, pl.Categorical, pl.Enum, pl.Null)


def problems(spec: CohortSpec, samples: pl.DataFrame, place: str, *, labelled: bool = True) -> list[str]:
    """One sentence a problem; an empty list means the cohort is sound. Values are never quoted, rows are.

    A check that needs a column which is not there, or is of no use, is left out; the others are made.
    """
    columns = spec.columns()
    absent = {column for column in columns if column not in samples.columns}
    found = [
        f"{columns[column]} names a column that is not there: {unknown('column', column, samples.columns)}"
        for column in reversed(columns)
        if column in absent
    ]
    if samples.is_empty():
        return [f"{place}: {sentence}" for sentence in found or ["holds no rows."]]
    split = {spec.split.column} if isinstance(spec.split, SplitColumn) else set()
    odd = {
        column
        for column in {spec.id, spec.subject_column, spec.label.column, *split} - absent
        if not is_flat(samples[column])
    }
    found += [f"column {column!r} is of type {_kind(samples[column])}; use whole numbers or text." for column in odd]
    checks = (
        (_ids, {spec.id, spec.subject_column}),
        *([(_label, {spec.label.column})] if labelled else []),
        (_cells, set()),
        (_split, {spec.subject_column, *split}),
    )
    for check, needs in checks:
        if not needs & (absent | odd):
            found += check(spec, samples)
    return [f"{place}: {sentence}" for sentence in found]


def is_flat(values: pl.Series) -> bool:
    """Whether a column holds plain values, not lists or structures."""
    return values.dtype.is_numeric() or values.dtype in PLAIN or values.dtype == pl.Date


def _kind(values: pl.Series) -> str:
    return type(values.dtype).__name__


def _where(condition: Any) -> list[int]:
    return np.flatnonzero(np.asarray(condition, dtype=bool)).tolist()


def _ids(spec: CohortSpec, samples: pl.DataFrame) -> Iterator[str]:
    for column, role in {spec.subject_column: "subject", spec.id: "id"}.items():
        values = samples[column]
        if values.dtype.is_float():
            yield f"the {role} column {column!r} holds decimal numbers; save it as whole numbers or text."
            continue
        if empty := _where(values.is_null()):
            yield f"{rows(empty)}: {role} {column!r} is empty; every sample needs one."
        text = values.cast(pl.String)
        if padded := _where((text != text.str.strip_chars()).fill_null(False)):
            yield f"{rows(padded)}: {role} {column!r} begins or ends with white space; strip it."
    ids = samples[spec.id]
    if repeated := _where(ids.is_duplicated() & ids.is_not_null()):
        yield f"{rows(repeated)}: the same {spec.id!r} stands more than once; keep one row a sample."


def _label(spec: CohortSpec, samples: pl.DataFrame) -> Iterator[str]:
    column = spec.label.column
    given = samples[column].is_not_null()
    if empty := _where(~given):
        yield f"{rows(empty)}: label {column!r} is empty; drop those samples or label them."
    index = labels(spec, samples)
    if outside := _where(given & index.is_null()):
        known = ", ".join(spec.label.classes)
        yield f"{rows(outside)}: label {column!r} is none of its classes ({known}); mend the cell or the list."


def _cells(spec: CohortSpec, samples: pl.DataFrame) -> Iterator[str]:
    for name, modality in spec.modalities.items():
        for column in modality.cells():
            if column in samples.columns:
                kind = _numbers if modality.kind == "tabular" else _words
                yield from kind(name, modality, samples[column])
    inputs = {column for m in spec.modalities.values() for column in m.cells()}
    if inputs <= set(samples.columns) and (nothing := _where(~availability(spec, samples).any(axis=1))):
        yield f"{rows(nothing)}: no modality at all is available; drop those samples."


def _numbers(name: str, modality: Modality, values: pl.Series) -> Iterator[str]:
    if not (values.dtype.is_numeric() or values.dtype in PLAIN):
        yield f"modality {name!r}: column {values.name!r} is of type {_kind(values)}; use numbers, booleans or text."
    elif values.dtype.is_float() and (beyond := _where((values.abs() > LARGEST).fill_null(False))):
        yield (
            f"{rows(beyond)}: modality {name!r}, column {values.name!r} is infinite or beyond {LARGEST:g}; "
            "write a number or leave the cell empty."
        )


def _words(name: str, modality: Modality, values: pl.Series) -> Iterator[str]:
    if values.dtype not in (pl.String, pl.Null):
        wanted = "text" if modality.kind == "text" else "paths, as text"
        yield f"modality {name!r}: column {values.name!r} is of type {_kind(values)}; a {modality.kind} needs {wanted}."
    elif modality.kind != "text" and values.dtype == pl.String:
        if blank := _where((values.str.strip_chars() == "").fill_null(False)):
            yield f"{rows(blank)}: modality {name!r}, column {values.name!r} is a blank path; leave the cell null."
        if outside := _where(values.str.contains(OUTSIDE).fill_null(False)):
            yield (
                f"{rows(outside)}: modality {name!r}, column {values.name!r} leads outside the cohort's folder; write "
                "paths relative to it, or to the folder that 'root' names in cohort.yaml."
            )


def _split(spec: CohortSpec, samples: pl.DataFrame) -> Iterator[str]:
    if not isinstance(spec.split, SplitColumn):
        return
    column = spec.split.column
    values = samples[column].cast(pl.String)
    if outside := _where(~values.is_in(SPLITS).fill_null(False)):
        yield f"{rows(outside)}: split {column!r} must be train, validation or test."
    for name in SPLITS:
        if not (values == name).any():
            yield f"split {column!r} puts no sample in {name}; every split needs some."
    counts = samples.select(subject=pl.col(spec.subject_column), split=values).with_columns(
        splits=pl.col("split").n_unique().over("subject")
    )
    if torn := _where(counts["splits"] > 1):
        yield f"{rows(torn)}: one {spec.subject_column!r} stands in two splits; give all its samples the same."
