"""Clinical notes that were there before the window ended."""

from collections.abc import Iterator

import ibis
import polars as pl

from remind.sources.ehr.records import Expression, Records
from remind.sources.ehr.stays import Selection

TABLES = ("discharge", "radiology", "notes")  # of them, those the layout has
SUMMARY = "discharge summary"  # MIMIC-III's name of that kind
LIMIT = 20_000  # characters of a stay
ROWS = 10_000  # of a batch; notes are long


def has_notes(records: Records) -> bool:
    """Whether the database has any table of notes."""
    return any(records.has(name) for name in TABLES)


def noted(records: Records, stays: Selection) -> pl.DataFrame:
    """``stay_id, text``: the patient's notes, newest first, up to the ``LIMIT`` of characters; whole notes only.

    A note counts from when it was stored, if that was after what it is dated by. Otherwise it counts from its chart
    time, or, where that is but a day, from the day's end. The discharge summary of the admission itself never counts,
    whatever its times; those of earlier ones do.
    """
    tables = [_known(records, name, place) for place, name in enumerate(TABLES) if records.has(name)]
    found: Expression = ibis.union(*tables) if len(tables) > 1 else tables[0]
    found = found.join(stays.expression.select("stay_id", "subject_id", "until", this="hadm_id"), "subject_id")
    own = found.summary & (found.hadm_id == found.this).fill_null(False)
    found = found.filter((found.known < found.until) & ~own)
    found = found.order_by("stay_id", ibis.desc("known"), "table", "number")
    rows = records.batches(found.select("stay_id", "text"), rows=ROWS)
    return pl.DataFrame(_joined(rows), schema={"stay_id": pl.Int64, "text": pl.String}, orient="row")


def _known(records: Records, name: str, place: int) -> Expression:
    """``subject_id, hadm_id, number, text``, when it was known, and whether it sums an admission up."""
    table = records.table(name)
    summary: Expression = ibis.literal(name == "discharge")
    if name == "notes":
        table = table.filter(table.iserror.fill_null(0) == 0)
        table = table.mutate(charttime=table.charttime.fill_null(table.chartdate))
        summary = table.category.lower() == SUMMARY
    day = table.charttime.truncate("D")
    dated = ibis.ifelse(table.charttime == day, day + ibis.interval(days=1), table.charttime)
    known = ibis.ifelse((table.storetime > table.charttime).fill_null(False), table.storetime, dated)
    table = table.select(
        *("subject_id", "hadm_id", "number", "text"), known=known, summary=summary.fill_null(False), table=place
    )
    return table.filter(table.known.notnull(), table.text.notnull(), table.text != "")


def _joined(batches: Iterator[pl.DataFrame]) -> Iterator[tuple[int, str]]:
    """Each stay's notes as one text, from rows in order of stays."""
    current, held, full = -1, [], False
    for stay, text in (row for batch in batches for row in batch.iter_rows()):
        if stay != current:
            if held:
                yield current, "\n\n".join(held)
            current, held, full = stay, [], False
        full |= bool(held) and sum(map(len, held)) + len(text) > LIMIT
        if not full:
            held.append(text[:LIMIT])
    if held:
        yield current, "\n\n".join(held)
