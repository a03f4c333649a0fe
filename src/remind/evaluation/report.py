"""``metrics.json``: what the predictions of a run are worth, overall, head, tail, worst, and each combination."""

from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from remind.cohort.combination import GroupTable
from remind.engine.fitted import probability_columns
from remind.errors import RemindError
from remind.evaluation.intervals import ENOUGH, intervals
from remind.evaluation.metrics import score


def evaluate_predictions(
    predictions: pl.DataFrame, groups: GroupTable, classes: list[str], *, with_intervals: bool = True
) -> dict[str, Any]:
    """Score a table of predictions: of each part ``n``, ``subjects``, the metrics and (see there) their ``intervals``.

    Head, tail and unseen partition the samples: an unseen combination was not in the training data, so it is neither
    head nor tail. ``few``: of fewer than ten subjects, too few to judge. ``worst`` is the combination with the lowest
    accuracy among the others.

    Raises:
        RemindError: if the table is empty.
    """
    if predictions.is_empty():
        raise RemindError("there is no sample to score; choose a split that has some.")
    probability = predictions.select(probability_columns(classes)).to_numpy()
    target, group = predictions["target"].to_numpy(), predictions["group"].to_numpy()
    subjects = predictions["subject"].to_numpy()
    rows_of = parts_of(group, groups)

    def part(rows: np.ndarray) -> dict[str, Any]:
        about = probability[rows], target[rows]
        found = {"subjects": len(np.unique(subjects[rows])), **score(*about)._asdict()}
        return found | ({"intervals": intervals(*about, subjects[rows])} if with_intervals else {})

    combinations = [
        {
            "combination": name,
            "group": int(group[rows[0]]),
            "share": float(groups.shares[group[rows[0]]]) if group[rows[0]] >= 0 else 0.0,
            "kind": groups.kind(int(group[rows[0]])),
            "few": len(np.unique(subjects[rows])) < ENOUGH,
            **part(rows),
        }
        for name, rows in _by_combination(predictions)
    ]
    combinations.sort(key=lambda line: (-line["share"], -line["n"], line["combination"]))
    judged = [line for line in combinations if not line["few"]]
    return {
        **{name: part(rows) for name, rows in rows_of.items() if name != "unseen"},
        "unseen": part(rows_of["unseen"]) | {"combinations": sum(line["kind"] == "unseen" for line in combinations)},
        "worst": min(judged, key=lambda line: line["accuracy"]) if judged else None,
        "gate_open": float(predictions["opened"].to_numpy().mean()),
        "combinations": combinations,
    }


def parts_of(group: Int[np.ndarray, " n"], groups: GroupTable) -> dict[str, Bool[np.ndarray, " n"]]:
    """Which samples are in each part: overall, and head, tail and unseen, which divide it."""
    tail, unseen = np.append(groups.tail, False)[group], group < 0
    return {"overall": np.ones_like(unseen), "head": ~tail & ~unseen, "tail": tail, "unseen": unseen}


def _by_combination(predictions: pl.DataFrame) -> list[tuple[str, np.ndarray]]:
    numbered = predictions.with_row_index("row")
    gathered = numbered.group_by("combination", maintain_order=True).agg(pl.col("row"))
    return [(name, np.array(rows)) for name, rows in gathered.iter_rows()]
