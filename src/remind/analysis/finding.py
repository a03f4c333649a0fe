"""What an analysis finds, and how it is written down."""

from pathlib import Path
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

    def save(self, folder: Path) -> list[Path]:
        """Write ``NAME.parquet``, ``.json`` (rows and sentences), ``.png`` and ``.svg``, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        table = folder / f"{self.name}.parquet"
        staging = table.with_name(f".{table.name}.tmp")
        self.table.write_parquet(staging)
        staging.replace(table)
        document = folder / f"{self.name}.json"
        rows = self.table.write_json()
        says = pl.DataFrame({"says": self.says}, schema={"says": pl.String}).write_json()
        write_text(document, f'{{"says": {says}, "rows": {rows}}}')
        return [table, document, *save_figure(self.figure, folder / self.name)]
