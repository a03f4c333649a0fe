"""What an analysis finds, and how it is written down."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import polars as pl
from matplotlib.figure import Figure

from remind.engine.bundle import write_text
from remind.report.figures import save_figure


class Finding(NamedTuple):
    """A table, a picture of it, and what it says in words."""

    name: str
    table: pl.DataFrame
    figure: Figure
    says: list[str]  # sentences
    of: Mapping[str, str] = MappingProxyType({})  # the runs it is of, by name: the checksums of their predictions
    more: Mapping[str, pl.DataFrame] = MappingProxyType({})  # other tables, by name

    def save(self, folder: Path) -> list[Path]:
        """Write ``NAME.parquet``, ``.json`` (rows and sentences), ``.png`` and ``.svg``, each whole or not at all.

        Other tables go into ``NAME-THEIRS.parquet``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tables = [_written(folder / f"{self.name}-{name}.parquet", table) for name, table in self.more.items()]
        tables.append(_written(folder / f"{self.name}.parquet", self.table))
        document = folder / f"{self.name}.json"
        rows = self.table.write_json()
        says = pl.DataFrame({"says": self.says}, schema={"says": pl.String}).write_json()
        write_text(document, f'{{"of": {json.dumps(dict(self.of))}, "says": {says}, "rows": {rows}}}')
        return [*tables, document, *save_figure(self.figure, folder / self.name)]


def _written(path: Path, table: pl.DataFrame) -> Path:
    staging = path.with_name(f".{path.name}.tmp")
    table.write_parquet(staging)
    return staging.replace(path)
