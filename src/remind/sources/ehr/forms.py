"""The forms in which labs and vitals become cells: events in files, a table of summaries, or words."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from remind.sources.ehr.measurements import UNITS

COLUMN = FOLDER = "labs"  # a stay's file is FOLDER/STAY.parquet
STATISTICS = ("first", "last", "lowest", "mean", "highest")


def as_events(stays: Iterable[pl.DataFrame], folder: Path) -> Iterator[pl.DataFrame]:
    """``stay_id, labs``: writes a Parquet file of ``time, variable, value`` for each stay."""
    (folder / FOLDER).mkdir()
    for frame in stays:
        cells = []
        for (stay,), events in frame.group_by("stay_id", maintain_order=True):
            place = f"{FOLDER}/{stay}.parquet"
            events.drop("stay_id").write_parquet(folder / place)
            cells.append({"stay_id": stay, COLUMN: place})
        yield pl.DataFrame(cells, schema={"stay_id": pl.Int64, COLUMN: pl.String})


def as_summaries(stays: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """``stay_id`` and, for each variable, ``VARIABLE first``, ``last``, ``lowest``, ``mean`` and ``highest``."""
    columns = [f"{name} {statistic}" for name in UNITS for statistic in STATISTICS]
    for frame in stays:
        summed = _summed(frame)
        long = summed.unpivot(STATISTICS, index=["stay_id", "variable"], variable_name="statistic")
        long = long.with_columns(column=pl.format("{} {}", "variable", "statistic"))
        wide = long.pivot("column", index="stay_id", values="value")
        absent = [pl.lit(None, pl.Float64).alias(column) for column in columns if column not in wide.columns]
        yield wide.with_columns(absent).select("stay_id", *columns)


def as_words(stays: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """``stay_id, labs``: one clause a variable, as ``sodium 138 to 141, last 140 mEq/L``."""
    for frame in stays:
        number = {name: pl.col(name).round_sig_figs(4).map_elements(_short, pl.String) for name in STATISTICS}
        span = pl.when(pl.col("lowest") < pl.col("highest")).then(
            pl.format(" {} to {}, last {}", number["lowest"], number["highest"], number["last"])
        )
        words = pl.format(
            "{}{} {}",
            "variable",
            span.otherwise(pl.format(" {}", number["last"])),
            pl.col("variable").replace_strict(UNITS, return_dtype=pl.String),
        )
        yield _summed(frame).group_by("stay_id", maintain_order=True).agg(words.str.join("; ").alias(COLUMN))


def _summed(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each stay and variable, in order; a frame's rows are in order of time."""
    value, order = pl.col("value"), {name: place for place, name in enumerate(UNITS)}
    summed = frame.group_by("stay_id", "variable").agg(
        first=value.first(), last=value.last(), lowest=value.min(), mean=value.mean(), highest=value.max()
    )
    rank = pl.col("variable").replace_strict(order, return_dtype=pl.Int64)
    return summed.sort("stay_id", rank)


def _short(value: float) -> str:
    return f"{value:g}"
