"""Records in a database or in the files it was handed out as, behind one set of names and types.

Everything above this file is an Ibis expression, and runs the same on DuckDB and on PostgreSQL.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from glob import escape
from pathlib import Path
from typing import Any

import polars as pl

from remind.errors import RemindError, unknown
from remind.sources.ehr.layouts import Layout

try:
    import ibis
except ImportError:  # the message is better than the traceback
    raise RemindError('reading health records needs DuckDB and Ibis: pip install "remind[ehr]".') from None

Expression = Any  # an ibis.Table; what its columns can do is known at run time only
SUFFIXES = (".parquet", ".csv.gz", ".csv")
ROWS = 500_000  # of a batch


@dataclass(frozen=True)
class Records:
    """The tables of one layout, typed and renamed. ``stored`` gives a table of ours as it is, None if there is none."""

    layout: Layout
    place: str
    stored: Callable[[str], Expression]
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
                f"{self.place}: there is no table {self.layout.places[name]}; {self.layout.name} has one, so name the "
                "folder or database that holds it."
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
                    f"{self.place}: table {self.layout.places[name]} has no column {place.stored}; {self.layout.name} "
                    f"as we read it has. {unknown('column', place.stored, known)}"
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

    def batches(self, expression: Expression) -> Iterator[pl.DataFrame]:
        """What a large expression gives, some rows at a time.

        Raises:
            RemindError: as ``frame``.
        """
        with self._told():
            for batch in expression.to_pyarrow_batches(chunk_size=ROWS):
                yield _polars(batch)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except RemindError:
            raise
        except Exception as error:  # of DuckDB, psycopg or Arrow; their texts may quote cells
            names = {type(error).__name__} | {type(error.__cause__).__name__ if error.__cause__ else ""}
            fault = self._cells_at_fault() if "ConversionException" in names else None
            raise RemindError(
                fault or f"{self.place}: the records cannot be read ({type(error).__name__}); check the files."
            ) from None

    def _cells_at_fault(self) -> str | None:
        """Which column of a file holds what is not of its type; no cell is shown."""
        for name in dict.fromkeys(self.asked):
            stored = self.stored(name)
            known = {column.lower(): column for column in stored.columns}
            for place in self.layout.fields[name].values():
                if place.stored in known and stored[known[place.stored]].type().is_string():
                    cell = stored[known[place.stored]]
                    bad = (
                        stored.filter(cell.notnull() & cell.try_cast(place.type).isnull()).count().to_pyarrow().as_py()
                    )
                    if bad:
                        where = f"table {self.layout.places[name]}, column {place.stored}"
                        return f"{self.place}: {where}: {bad} cells are no {place.type}; mend the file."
        return None


def _as(column: Any, kind: str) -> Any:
    if kind == "string":
        return column.cast(kind).strip()  # codes of fixed width come padded
    return column if column.type() == ibis.dtype(kind) else column.cast(kind)


def _polars(batch: Any) -> pl.DataFrame:
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)
    return frame


@contextmanager
def from_folder(layout: Layout, root: Path, *, memory: str) -> Iterator[Records]:
    """The records in a folder of ``.parquet``, ``.csv.gz`` or ``.csv`` files, read by DuckDB, out of core.

    Raises:
        RemindError: if there is no such folder, or it holds none of the layout's tables.
    """
    if not root.is_dir():
        raise RemindError(f"{root}: no such folder; name the one that holds {layout.name}.")
    if not any(_file(root, place) for place in layout.places.values()):
        first = next(iter(layout.places.values()))
        raise RemindError(
            f"{root}: holds none of {layout.name}'s tables, such as {first}.csv.gz; name the folder they lie in."
        )
    with tempfile.TemporaryDirectory(prefix="remind-duckdb-") as spill:
        backend = ibis.duckdb.connect(memory_limit=memory, temp_directory=spill, preserve_insertion_order=False)
        backend.raw_sql("SET enable_progress_bar = false")
        try:
            yield Records(layout, str(root), cache(partial(_from_file, backend, layout, root)))
        finally:
            backend.disconnect()


def _file(root: Path, place: str) -> Path | None:
    """The file of a table; some write its name in capitals."""
    folder, _, name = place.rpartition("/")
    for spelt in (name, name.upper()):
        for suffix in SUFFIXES:
            if (path := root / folder / f"{spelt}{suffix}").is_file():
                return path
    return None


def _from_file(backend: Any, layout: Layout, root: Path, name: str) -> Expression:
    if (path := _file(root, layout.places[name])) is None:
        return None
    place, view = escape(str(path)), f"stored_{name}"  # DuckDB reads * and [ as patterns
    if path.suffix == ".parquet":
        return backend.read_parquet(place, table_name=view)
    try:
        return backend.read_csv(place, table_name=view, all_varchar=True, header=True, delim=",", quote='"', escape='"')
    except Exception as error:  # a damaged archive, no text
        raise RemindError(
            f"{path}: cannot be read as a CSV file ({type(error).__name__}); fetch or export it again."
        ) from None


@contextmanager
def from_server(layout: Layout, url: str) -> Iterator[Records]:
    """The records in a PostgreSQL database, in schemas as mimic-code makes them: ``mimiciv_hosp.labevents``.

    Raises:
        RemindError: if the server cannot be reached, or holds none of the schemas.
    """
    schemas = {
        module: f"{layout.name.replace('-', '').lower()}{f'_{module}' if module else ''}" for module in modules(layout)
    }
    shown = url.rpartition("@")[2]  # no password
    try:
        backend = ibis.connect(url)
        there = {schema: set(backend.list_tables(database=schema)) for schema in _schemas(backend, schemas.values())}
    except ImportError:
        raise RemindError('PostgreSQL needs its driver: pip install "remind[postgres]".') from None
    except Exception as error:  # of psycopg; its text may hold the password
        raise RemindError(
            f"{shown}: cannot be reached as a database ({type(error).__name__}); check the URL."
        ) from None
    try:
        if not there:
            raise RemindError(f"{shown}: has none of the schemas {', '.join(schemas.values())}; name another database.")

        def stored(name: str) -> Expression:
            module, _, table = layout.places[name].rpartition("/")
            schema = schemas[module]
            return backend.table(table, database=schema) if table in there.get(schema, ()) else None

        yield Records(layout, shown, stored)
    finally:
        backend.disconnect()


def modules(layout: Layout) -> list[str]:
    """The parts a layout is stored in; one without a name if it is in one piece."""
    return list(dict.fromkeys(place.rpartition("/")[0] for place in layout.places.values()))


def _schemas(backend: Any, wanted: Any) -> list[str]:
    known = set(backend.list_databases())
    return [schema for schema in wanted if schema in known]
