"""Clinical notes that were there before the window ended."""

import ibis
import polars as pl

from remind.sources.ehr.records import Expression, Records
from remind.sources.ehr.stays import Selection

TABLES = ("discharge", "radiology", "notes")  # of them, those the layout has
LIMIT = 20_000  # characters of a stay


def has_notes(records: Records) -> bool:
    """Whether the database has any table of notes."""
    return any(records.has(name) for name in TABLES)


def noted(records: Records, stays: Selection) -> pl.DataFrame:
    """``stay_id, text``: the patient's notes, newest first, up to the ``LIMIT`` of characters; whole notes only.

    A note counts from when it was stored. One without that time counts from its chart time, and one that has but a day
    from the day's end: a discharge summary carries midnight of its day. So the summary of the stay itself never
    counts, those of earlier stays do.
    """
    tables = [_known(records, name) for name in TABLES if records.has(name)]
    chosen = stays.expression.select("stay_id", "subject_id", "until")
    found = ibis.union(*tables) if len(tables) > 1 else tables[0]
    found = found.join(chosen, "subject_id")
    found = found.filter(found.known < found.until).select("stay_id", "known", "text")
    texts: dict[int, list[str]] = {}
    full = set()
    for batch in records.batches(found.order_by("stay_id", ibis.desc("known"), "text")):
        for stay, _, text in batch.iter_rows():
            held = texts.setdefault(stay, [])
            if held and sum(map(len, held)) + len(text) > LIMIT:
                full.add(stay)
            if stay not in full:
                held.append(text[:LIMIT])
    joined = [{"stay_id": stay, "text": "\n\n".join(parts)} for stay, parts in texts.items()]
    return pl.DataFrame(joined, schema={"stay_id": pl.Int64, "text": pl.String})


def _known(records: Records, name: str) -> Expression:
    """``subject_id, known, text`` of a table of notes."""
    table = records.table(name)
    if "iserror" in table.columns:  # MIMIC-III
        table = table.filter(table.iserror.fill_null(0) == 0)
        table = table.mutate(charttime=table.charttime.fill_null(table.chartdate))
    day = table.charttime.truncate("D")
    written = ibis.ifelse(table.charttime == day, day + ibis.interval(days=1), table.charttime)
    stored = table.storetime.fill_null(written)
    known = ibis.greatest(stored, table.charttime)
    table = table.select("subject_id", "text", known=known)
    return table.filter(table.known.notnull(), table.text.notnull(), table.text != "")
