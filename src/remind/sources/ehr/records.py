"""Records in a database or in the files it was handed out as, behind one set of names and types.

Everything above this file is an Ibis expression, and runs the same on DuckDB and on PostgreSQL.
"""

import csv
import gzip
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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


@contextmanager
def from_folder(layout: Layout, root: Path, *, memory: str, spill: Path) -> Iterator[Records]:
    """The records in a folder of ``.parquet``, ``.csv.gz`` or ``.csv`` files, read by DuckDB, out of core.

    Args:
        layout: which database it is.
        root: the folder.
        memory: what DuckDB may take; what is more goes into a folder of its own below
        spill: for as long as it is needed.

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
    with tempfile.TemporaryDirectory(prefix=".remind-spill-", dir=spill) as beside:
        backend = ibis.duckdb.connect(memory_limit=memory, temp_directory=beside, preserve_insertion_order=False)
        backend.raw_sql("SET enable_progress_bar = false")
        # A csv.gz is far longer than its size says: left to guess, DuckDB holds it in memory, and not the stays.
        backend.raw_sql("SET disabled_optimizers = 'join_order,build_side_probe_side'")

        def keep(expression: Expression) -> Expression:
            return backend.create_table("kept", expression, temp=True)

        try:
            yield Records(
                layout, str(root), cache(partial(_from_file, backend, layout, root)), keep, layout.places.__getitem__
            )
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
    """A table as it is stored; of a CSV, every column as text."""
    if (path := _file(root, layout.places[name])) is None:
        return None
    place, view = escape(str(path)), f"stored_{name}"  # DuckDB reads * and [ as patterns
    try:
        if path.suffix == ".parquet":
            return backend.read_parquet(place, table_name=view)
        columns = dict.fromkeys(_headings(path), "string")
        return backend.read_csv(
            place, table_name=view, columns=columns, auto_detect=False, header=True, delim=",", quote='"', escape='"'
        )
    except RemindError:
        raise
    except Exception as error:  # a damaged archive, no table; texts of DuckDB may quote cells
        raise RemindError(
            f"{path}: cannot be read as a table ({type(error).__name__}); fetch or export it again."
        ) from None


def _headings(path: Path) -> list[str]:
    """The first line of a CSV. DuckDB would guess where the table begins, and may take a patient for it."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        columns = next(csv.reader(file), [])
    if not columns or len({column.lower() for column in columns}) < len(columns):
        raise RemindError(f"{path}: has no line of headings, or the same one twice; export it with headings.")
    return columns


@contextmanager
def from_server(layout: Layout, url: str) -> Iterator[Records]:
    """The records in a PostgreSQL database, in schemas as mimic-code makes them: ``mimiciv_hosp.labevents``.

    Nothing is written there, not even a temporary table.

    Raises:
        RemindError: if the server cannot be reached, or holds none of the schemas.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise RemindError(
            "--database reads postgresql://USER@HOST:PORT/NAME; for files, name their folder with --root."
        )
    shown = f"{parts.hostname}{parts.path}"  # neither user nor password
    base = layout.name.replace("-", "").lower()
    schemas = {module: f"{base}_{module}" if module else base for module in _modules(layout)}
    try:
        backend: Any = ibis.connect(url)
        known = set(backend.list_databases())
        there = {schema: set(backend.list_tables(database=schema)) for schema in schemas.values() if schema in known}
    except ImportError:
        raise RemindError('PostgreSQL needs its driver: pip install "remind[postgres]".') from None
    except Exception as error:  # of psycopg; its text may hold the password
        raise RemindError(
            f"{shown}: cannot be reached as a database ({type(error).__name__}); check the URL."
        ) from None

    def named(name: str) -> str:
        module, _, table = layout.places[name].rpartition("/")
        return f"{schemas[module]}.{table}"

    def stored(name: str) -> Expression:
        schema, _, table = named(name).partition(".")
        return backend.table(table, database=schema) if table in there.get(schema, ()) else None

    try:
        if not there:
            raise RemindError(f"{shown}: has none of the schemas {', '.join(schemas.values())}; name another database.")
        yield Records(layout, shown, stored, lambda expression: expression, named)
    finally:
        backend.disconnect()


def _modules(layout: Layout) -> list[str]:
    """The parts a layout is stored in; one without a name if it is in one piece."""
    return list(dict.fromkeys(place.rpartition("/")[0] for place in layout.places.values()))
