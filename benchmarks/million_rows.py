"""A cohort of a million rows, checked and described: seconds and resident memory, against what we promise.

900 000 subjects, 8 modalities of 3 columns (a decimal number, a whole one, a category), 3 classes, a drawn split. Each
command runs in a process of its own, as a user would start it. The cohort too is written by a process of its own: on
Linux a child's peak is never told as lower than what its parent held when it was started.
"""

import json
import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from timing import measured

from remind.cohort.table import write_cohort

ROWS, SUBJECTS, MODALITIES = 1_000_000, 900_000, 8
SECONDS, GIB = 60.0, 2.0  # the limits, for each command


def write(out: Path) -> None:
    """Most visits have most modalities; the label is independent of which."""
    rng = np.random.default_rng(0)
    available = rng.random((ROWS, MODALITIES)) < 0.95 * 0.9 ** np.arange(MODALITIES)
    available[:, 0] |= ~available.any(axis=1)
    subject = np.concatenate([np.arange(SUBJECTS), rng.integers(SUBJECTS, size=ROWS - SUBJECTS)])
    table = {
        "visit": pl.select(pl.lit("v") + pl.int_range(ROWS).shuffle(seed=0).cast(pl.String).str.zfill(7)).to_series(),
        "patient": pl.select(pl.lit("p") + pl.lit(pl.Series(subject)).cast(pl.String).str.zfill(6)).to_series(),
        "grade": pl.Series(["none", "mild", "severe"]).gather(rng.integers(3, size=ROWS)),
    }
    modalities = {}
    for place, there in enumerate(available.T):
        columns = {
            f"m{place}_number": pl.Series(rng.normal(100, 15, ROWS)),
            f"m{place}_count": pl.Series(rng.poisson(40, ROWS)),
            f"m{place}_kind": pl.Series(["never", "former", "current"]).gather(rng.integers(3, size=ROWS)),
        }
        modalities[f"m{place}"] = {"kind": "tabular", "columns": list(columns)}
        table |= {
            name: pl.select(pl.when(pl.lit(pl.Series(there))).then(pl.lit(values))).to_series()
            for name, values in columns.items()
        }
    label = {"column": "grade", "classes": ["none", "mild", "severe"]}
    spec = {"name": "million", "id": "visit", "subject": "patient", "label": label, "modalities": modalities}
    write_cohort(out, spec, pl.DataFrame(table))


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "cohort"
        writer = multiprocessing.get_context("spawn").Process(target=write, args=(folder,))
        writer.start()
        writer.join()
        raw = {command: measured("cohort", command, str(folder)) for command in ("check", "describe")}
    ratio = min(min(SECONDS / one["seconds"], GIB / one["gib"]) for one in raw.values())
    print(
        json.dumps(
            {
                "claim": f"check and describe of {ROWS:,} rows, {MODALITIES} modalities",
                "reference": f"{SECONDS:g} s and {GIB:g} GiB each",
                "ratio": round(ratio, 3),
                "target": 1.0,
                "measured": raw,
            }
        )
    )


if __name__ == "__main__":
    main()
