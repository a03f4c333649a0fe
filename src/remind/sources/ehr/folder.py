"""Records in the files they were handed out as, read by DuckDB, out of core."""

import csv
import gzip
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from glob import escape
from pathlib import Path
from typing import Any

import ibis

from remind.errors import RemindError
from remind.sources.ehr.layouts import Layout
from remind.sources.ehr.records import Expression, Records

SUFFIXES = (".parquet", ".csv.gz", ".csv")


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
