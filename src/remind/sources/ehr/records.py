"""Records in a database or in the files it was handed out as, behind one set of names and types.

Everything above this file is an Ibis expression, and runs the same on DuckDB and on PostgreSQL.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ibis
import polars as pl

from remind.errors import RemindError, unknown
from remind.sources.ehr.layouts import Layout

Expression = Any  # an ibis.Table; what its columns can do is known at run time only
ROWS = 500_000  # of a batch


@dataclass(frozen=True)
class Records:
    """The tables of one layout, typed and renamed. ``stored`` gives a table of ours as it is, None if there is none."""

    layout: Layout
    place: str
    stored: Callable[[str], Expression]
    keep: Callable[[Expression], Expression]  # a small result, computed once; as it is where that is not allowed
    named: Callable[[str], str]  # what the database calls a table of the layout
    asked: list[str] = field(default_factory=list)  # tables in use, for errors

    def has(self, name: str) -> bool:
        """Whether the database holds a table at all."""
        return name in self.layout.places and self.stored(name) is not None

    def table(self, name: str) -> Expression:
        """A table with the columns we read, under our names.

        Raises:
            RemindError: if the table or one of its columns is not there; names it.
        """
        stored = self.stored(name)
        if stored is None:
            raise RemindError(
                f"{self.place}: there is no table {self.named(name)} that can be read; {self.layout.name} has one, so "
                "name the folder or database that holds it."
            )
        known = {column.lower(): column for column in stored.columns}
        columns = {}
        for ours, place in self.layout.fields[name].items():
            if place.stored in known:
                columns[ours] = _as(stored[known[place.stored]], place.type)
            elif place.optional:
                columns[ours] = ibis.null(place.type)
            else:
                raise RemindError(
                    f"{self.place}: table {self.named(name)} has no column {place.stored}; {self.layout.name} as we "
                    f"read it has. {unknown('column', place.stored, filter(_is_a_name, known))}"
                )
        self.asked.append(name)
        return stored.select(**columns)

    def frame(self, expression: Expression) -> pl.DataFrame:
        """What a small expression gives.

        Raises:
            RemindError: if the database cannot answer; names the column that is at fault, if one is.
        """
        with self._told():
            return _polars(expression.to_pyarrow())

    def batches(self, expression: Expression, *, rows: int = ROWS) -> Iterator[pl.DataFrame]:
        """What a large expression gives, some rows at a time.

        Raises:
            RemindError: as ``frame``.
        """
        with self._told():
            for batch in expression.to_pyarrow_batches(chunk_size=rows):
                yield _polars(batch)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except RemindError:
            raise
        except Exception as error:  # of DuckDB, psycopg or Arrow; their texts may quote cells
            kind = type(error).__name__
            said = f"the records cannot be read ({kind}); check them."
            if kind == "OutOfMemoryException":
                said = "the extraction needs more memory than it may take; give it more, as in --memory 8GB."
            fault = self._cells_at_fault() if kind == "ConversionException" else None
            raise RemindError(f"{self.place}: {fault or said}") from None

    def _cells_at_fault(self) -> str | None:
        """Which column of a file holds what is not of its type; no cell is shown."""
        for name in dict.fromkeys(self.asked):
            stored = self.stored(name)
            known = {column.lower(): stored[column] for column in stored.columns}
            typed = {
                place.stored: (known[place.stored].notnull() & known[place.stored].try_cast(place.type).isnull()).sum()
                for place in self.layout.fields[name].values()
                if place.stored in known and place.type != "string" and known[place.stored].type().is_string()
            }
            bad = stored.aggregate(**typed).to_pyarrow().to_pylist()[0] if typed else {}
            for column, count in bad.items():
                if count:
                    kind = next(f.type for f in self.layout.fields[name].values() if f.stored == column)
                    return f"table {self.named(name)}, column {column}: {count} cells are no {kind}; mend the file."
        return None


def _as(column: Any, kind: str) -> Any:
    if kind == "string":
        return column.cast(kind).strip()  # codes of fixed width come padded
    return column if column.type() == ibis.dtype(kind) else column.cast(kind)


def _polars(batch: Any) -> pl.DataFrame:
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _is_a_name(column: str) -> bool:
    """Whether a heading can be one: a file without headings has a patient's row in their place."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", column) is not None
