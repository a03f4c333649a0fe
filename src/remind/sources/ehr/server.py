"""Records in a hospital's own PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import ibis

from remind.errors import RemindError, install
from remind.sources.ehr.layouts import Layout
from remind.sources.ehr.records import Expression, Records


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
        raise RemindError(f"PostgreSQL needs its driver: {install('postgres')}.") from None
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
