"""Labs and vitals of a stay's first hours: known before the window ends, in one unit, plausible."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import ibis
import polars as pl
from pyarrow.parquet import ParquetWriter

from remind.sources.ehr.records import Expression, Records
from remind.sources.ehr.stays import Selection
from remind.sources.ehr.variables import VARIABLES, conversions, plain

PARTS = 32  # of the stays, held in memory one after the other
UNITS = {variable.name: variable.unit for variable in VARIABLES}


def measured(records: Records, stays: Selection) -> Expression:
    """The rows of both tables as ``stay_id, hour, itemid, value, unit, stored``, in any order.

    A value counts if it was taken in the window and was in the record before its end: a lab drawn at hour 47 whose
    result came at hour 49 was not known. Where no one wrote when it was stored, it counts from when it was taken.
    """
    chosen = stays.expression
    labs = records.table("labevents").join(chosen, "subject_id")
    chart = records.table("chartevents")
    if "error" in chart.columns:
        chart = chart.filter(chart.error.fill_null(0) == 0)
    chart = chart.join(chosen, "stay_id")
    items = {
        "labs": [item for variable in VARIABLES for item in variable.labs],
        "chart": [item for variable in VARIABLES for item in variable.chart],
    }
    parts = [_within(labs, items["labs"]), _within(chart, items["chart"])]
    return ibis.union(*parts)


def _within(events: Expression, items: list[int]) -> Expression:
    known = ibis.greatest(events.charttime, events.storetime.fill_null(events.charttime))
    kept = events.filter(
        events.itemid.isin(items),
        events.valuenum.notnull(),
        events.charttime >= events.intime,
        known < events.until,
    )
    seconds = kept.charttime.epoch_seconds() - kept.intime.epoch_seconds()
    return kept.select(
        "stay_id",
        hour=seconds.cast("float64") / 3600,
        itemid=kept.itemid,
        value=kept.valuenum,
        unit=kept.valueuom,
        stored=kept.storetime.notnull(),
    )


@dataclass
class Cleaner:
    """Items to variables, units to one, what cannot be true out; counts what it has kept and dropped."""

    counts: dict[str, dict[str, int]] = field(
        default_factory=lambda: {name: {"kept": 0, "wrong_unit": 0, "implausible": 0} for name in UNITS}
    )
    never_stored: int = 0  # of those kept

    def clean(self, raw: pl.DataFrame) -> pl.DataFrame:
        """``stay_id, time, variable, value`` of raw rows, in that order; ``time`` in hours."""
        written = pl.col("unit").str.replace_all(" ", "", literal=True).str.to_lowercase()
        unit = pl.when(written != "").then(written).otherwise("default")
        judged = raw.join(_ITEMS, on="itemid").with_columns(unit=unit)
        judged = judged.join(_CONVERSIONS, on=["variable", "unit"], how="left")
        given = pl.col("value")
        share = pl.col("shares") & (given <= 1)
        judged = judged.with_columns(
            value=pl.when(share).then(given * 100).otherwise(given * pl.col("factor") + pl.col("offset")),
            wrong_unit=pl.col("factor").is_null(),
        )
        plausible = pl.col("value").is_between("low", "high").fill_null(False)
        judged = judged.with_columns(
            kept=plausible & ~pl.col("wrong_unit"), implausible=~plausible & ~pl.col("wrong_unit")
        )
        sums = judged.group_by("variable").agg(pl.col("kept", "wrong_unit", "implausible").sum())
        for row in sums.iter_rows(named=True):
            counts = self.counts[row.pop("variable")]
            for key, count in row.items():
                counts[key] += count
        kept = judged.filter("kept")
        self.never_stored += int((~kept["stored"]).sum())
        return kept.select("stay_id", pl.col("hour").alias("time"), "variable", "value").sort(pl.all())


def _item_table() -> pl.DataFrame:
    """A row for each item id, with all that cleaning needs of it."""
    rows = [
        {
            "itemid": item,
            "variable": variable.name,
            "low": variable.low,
            "high": variable.high,
            "shares": variable.shares,
            "default": plain(variable.items.get(item, variable.unit)),
        }
        for variable in VARIABLES
        for item in (*variable.labs, *variable.chart)
    ]
    return pl.DataFrame(rows, schema_overrides={"low": pl.Float64, "high": pl.Float64})


def _conversion_table() -> pl.DataFrame:
    """A row for each unit that a variable may come in."""
    rows = [
        {"variable": variable.name, "unit": unit, "factor": factor, "offset": offset}
        for variable in VARIABLES
        for unit, (factor, offset) in conversions(variable).items()
    ]
    return pl.DataFrame(rows)


_ITEMS, _CONVERSIONS = _item_table(), _conversion_table()


def by_stay(batches: Iterable[pl.DataFrame], stays: pl.Series, spill: Path) -> Iterator[pl.DataFrame]:
    """The same rows in whatever order they come, all those of some stays at a time, in order of stays.

    They are dealt out to ``PARTS`` files below ``spill``: a database that sorts them needs memory for all of them.
    """
    order = stays.unique().sort()
    parts = pl.DataFrame({"stay_id": order}).with_columns(part=pl.int_range(pl.len()) * PARTS // pl.len())
    writers: dict[int, ParquetWriter] = {}
    for batch in batches:
        for (part,), rows in batch.join(parts, on="stay_id").group_by("part"):
            table = rows.drop("part").to_arrow()
            if part not in writers:
                writers[part] = ParquetWriter(spill / f"{part}.parquet", table.schema)
            writers[part].write_table(table)
    for writer in writers.values():
        writer.close()
    for part in sorted(writers):
        yield pl.read_parquet(spill / f"{part}.parquet").sort("stay_id", maintain_order=True)
