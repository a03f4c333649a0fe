"""Events in time: measurements, each with its time and the variable that was measured."""

import io
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pyarrow.parquet

from remind.documents import NULL_WORDS
from remind.reading import Unreadable
from remind.reading.files import guarded, kind

SCHEMA = {"time": pl.Float64, "variable": pl.String, "value": pl.Float64}
_MOST = 2**24  # rows
_HOUR = 3_600_000_000  # microseconds


def read_events(path: Path) -> pl.DataFrame:
    """Events of a Parquet or CSV file, in order of time, variable and value; ``time`` is in hours.

    Times that are numbers are hours, and durations become hours; dates count from the file's first event. A row
    without a value is none; without any row, the frame is empty, which is no error.

    Raises:
        Unreadable: if it is not a sound table with the columns ``time``, ``variable`` and ``value``.
    """
    with guarded():
        try:
            frame = _table(path)
        except pl.exceptions.PanicException:  # no Exception to Python
            raise Unreadable("cannot be read as a table") from None
        frame = frame.with_columns(pl.selectors.float().fill_nan(None)).drop_nulls("value")
        if frame.is_empty():
            return pl.DataFrame(schema=SCHEMA)
        for name, column in (("time", frame["time"]), ("variable", frame["variable"])):
            if missing := column.null_count():
                raise Unreadable(f"holds {missing} rows without {name}")
        events = pl.DataFrame(
            {"time": _hours(frame["time"]), "variable": _names(frame["variable"]), "value": _numbers(frame["value"])}
        )
        if beyond := events.filter(~pl.all_horizontal(pl.selectors.float().is_finite())).height:
            raise Unreadable(f"holds {beyond} rows with an infinite time or value")
        return events.sort("time", "variable", "value")


def _table(path: Path) -> pl.DataFrame:
    found = kind(path)
    content = path.read_bytes()  # not the path, in which polars would read * and [ as patterns
    if found == "parquet":
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))  # polars can abort the process over a damaged page
        if (rows := file.metadata.num_rows) > _MOST:
            raise Unreadable(f"claims {rows} rows; at most 2^24 are read")
        _judge_columns(file.schema_arrow.names)
        table = pl.from_arrow(file.read(columns=list(SCHEMA)))
        assert isinstance(table, pl.DataFrame)
        return table.select(*SCHEMA)
    if path.suffix.lower() != ".csv":
        raise Unreadable("is not a Parquet or CSV file")
    frame = pl.read_csv(
        content,
        null_values=NULL_WORDS,
        infer_schema_length=None,
        schema_overrides={"variable": pl.String},
        try_parse_dates=True,
    )
    _judge_columns(frame.columns)
    return frame.select(*SCHEMA)


def _judge_columns(names: Iterable[str]) -> None:
    present = set(names)
    if absent := [name for name in SCHEMA if name not in present]:
        raise Unreadable(f"has no column {' and no column '.join(absent)}")


def _hours(times: pl.Series) -> pl.Series:
    if times.dtype.is_numeric():
        return times.cast(pl.Float64)
    if times.dtype in (pl.Datetime, pl.Date):
        moments = times.cast(pl.Datetime("us"))
        times = moments - moments.min()
    if times.dtype == pl.Duration:
        return times.dt.total_microseconds() / _HOUR
    raise Unreadable(f"has times of type {times.dtype.base_type().__name__}; use hours, dates or durations")


def _names(variables: pl.Series) -> pl.Series:
    if not (variables.dtype.is_integer() or variables.dtype in (pl.String, pl.Categorical, pl.Enum)):
        raise Unreadable(f"has variables of type {variables.dtype.base_type().__name__}; use text")
    return variables.cast(pl.String)


def _numbers(values: pl.Series) -> pl.Series:
    if not values.dtype.is_numeric():
        raise Unreadable(f"has values of type {values.dtype.base_type().__name__}; use numbers")
    return values.cast(pl.Float64)
