"""Many runs, one comparison: scores over seeds, and paired differences to one method with what chance leaves open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from remind.cohort.combination import GroupTable
from remind.engine.fitted import probability_columns
from remind.errors import RemindError
from remind.evaluation.intervals import ENOUGH
from remind.evaluation.report import evaluate_predictions
from remind.evaluation.resampling import METRICS, subject_weights

LEVEL = 0.95
PARTS = ("head", "tail", "unseen", "overall")


@dataclass(frozen=True)
class Run:
    """What a method predicts, under one seed, of the test samples."""

    method: str
    seed: int
    predictions: pl.DataFrame  # as ``FittedModel.predictions`` gives them


@dataclass(frozen=True)
class Row:
    """A set of test samples that is scored: a combination, or a part of all of them."""

    name: str
    kind: str | None  # of a combination: head, tail or unseen; of a part: None
    share: float  # of the training samples
    samples: np.ndarray
    subjects: int

    @property
    def few(self) -> bool:
        """Whether there are too few subjects to be judged."""
        return self.subjects < ENOUGH


def compare_runs(
    runs: Sequence[Run],
    groups: GroupTable,
    classes: Sequence[str],
    *,
    reference: str,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare methods on the test samples they share; everything is made from predictions alone.

    For each row and metric: mean and standard deviation over the seeds, and the mean over the seeds of the difference
    to ``reference``, with a 95 % interval: percentiles over replicates in which subjects are drawn with replacement,
    the same subjects for all methods and seeds. ``p`` is two-sided; ``p_holm`` is corrected for the methods compared in
    that row and metric. The verdict is a tie unless the corrected p is below 0.05. Rows of fewer than ten subjects have
    scores and no verdict; nor has a macro metric where a class has fewer than ten, since a bootstrap keeps such a
    class all but fixed. The intervals say what other patients might have shown, not what other seeds might.

    Raises:
        RemindError: if there is no run, or runs have not the same test samples.
    """
    if not runs:
        raise RemindError("there is no finished run to compare.")
    runs = [Run(run.method, run.seed, run.predictions.sort("id")) for run in runs]
    _refuse_unpaired(runs)
    scored = [evaluate_predictions(run.predictions, groups, list(classes), with_intervals=False) for run in runs]
    rows = _rows(runs[0].predictions, scored[0])
    methods = list(dict.fromkeys(run.method for run in runs))
    found = _differences(runs, rows, classes, reference, replicates, seed)
    lines = [_line(row, methods, runs, scored, found.get(place, {})) for place, row in enumerate(rows)]
    return {
        "methods": methods,
        "seeds": sorted({run.seed for run in runs}),
        "reference": reference if reference in methods else None,
        "replicates": replicates,
        "level": LEVEL,
        "rows": [*lines[:-1], _worst(methods, runs, scored), lines[-1]],
    }


def _refuse_unpaired(runs: Sequence[Run]) -> None:
    first = runs[0].predictions.select("id", "target")
    for run in runs[1:]:
        if not run.predictions.select("id", "target").equals(first):
            raise RemindError(
                f"{run.method}, seed {run.seed}: has other test samples than {runs[0].method}, seed {runs[0].seed}; "
                "compare runs of one cohort and one split."
            )


def _rows(table: pl.DataFrame, metrics: Mapping[str, Any]) -> list[Row]:
    """Combinations, most frequent in training first; then head, tail, unseen (where there are any) and all."""
    combination, subjects = table["combination"].to_numpy(), table["subject"].to_numpy()

    def row(name: str, kind: str | None, share: float, samples: np.ndarray) -> Row:
        return Row(name, kind, share, samples, len(np.unique(subjects[samples])))

    single = [
        row(line["combination"], line["kind"], line["share"], np.flatnonzero(combination == line["combination"]))
        for line in metrics["combinations"]
    ]
    together = []
    for part in PARTS:
        members = [one for one in single if part in ("overall", one.kind)]
        if members:
            samples = np.sort(np.concatenate([one.samples for one in members]))
            together.append(row(part, None, sum(one.share for one in members), samples))
    return [*single, *together]


def _line(
    row: Row,
    methods: Sequence[str],
    runs: Sequence[Run],
    scored: Sequence[Mapping[str, Any]],
    differences: Mapping[str, Any],
) -> dict[str, Any]:
    by_run = [
        metrics[row.name]
        if row.kind is None
        else next(line for line in metrics["combinations"] if line["combination"] == row.name)
        for metrics in scored
    ]
    return {
        "row": row.name,
        "kind": row.kind,
        "n": len(row.samples),
        "subjects": row.subjects,
        "share": row.share,
        "few": row.few,
        "scores": {method: _over_seeds(method, runs, by_run) for method in methods},
        "differences": differences,
    }


def _worst(methods: Sequence[str], runs: Sequence[Run], scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The combination that fares worst by accuracy, which may be another one in each run; so there is no pairing."""
    by_run = [metrics["worst"] or dict.fromkeys(METRICS) for metrics in scored]
    scores = {method: _over_seeds(method, runs, by_run) for method in methods}
    nothing = dict.fromkeys(("kind", "n", "subjects", "share"))
    return {"row": "worst", **nothing, "few": False, "scores": scores, "differences": {}}


def _over_seeds(method: str, runs: Sequence[Run], by_run: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation and the single values of each metric; null where no seed allows it."""
    found = {}
    for metric in METRICS:
        values = {
            run.seed: scores[metric]
            for run, scores in zip(runs, by_run, strict=True)
            if run.method == method and scores[metric] is not None
        }
        known = list(values.values())
        found[metric] = {
            "mean": float(np.mean(known)) if known else None,
            "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
            "seeds": {str(seed): value for seed, value in values.items()},
        }
    return found


def _differences(
    runs: Sequence[Run], rows: Sequence[Row], classes: Sequence[str], reference: str, replicates: int, seed: int
) -> dict[int, dict[str, Any]]:
    """By place of the row, method and metric: the difference to the reference and what chance leaves open."""
    others = list(dict.fromkeys(run.method for run in runs if run.method != reference))
    shared = {
        method: sorted({run.seed for run in runs if run.method == method} & _seeds(runs, reference))
        for method in others
    }
    target = runs[0].predictions["target"].to_numpy()
    subjects = runs[0].predictions["subject"].to_numpy()
    columns = probability_columns(list(classes))
    probability = {(run.method, run.seed): run.predictions.select(columns).to_numpy() for run in runs}
    judged = [
        (place, metric)
        for (place, row), metric in product(enumerate(rows), METRICS)
        if _judgeable(row, metric, target, subjects)
    ]
    if not any(shared.values()):
        return {}

    def differences(weights: np.ndarray, place: int, metric: str) -> dict[str, np.ndarray]:
        here, score = rows[place].samples, METRICS[metric]
        on_these = weights[:, here]
        scores = {run: score(table[here], target[here], on_these) for run, table in probability.items()}
        return _paired(scores, shared, reference)

    drawn: dict[tuple[int, str], list[dict[str, np.ndarray]]] = {what: [] for what in judged}
    for weights in subject_weights(subjects, replicates, seed):
        for what in judged:
            drawn[what].append(differences(weights, *what))
    found: dict[int, dict[str, Any]] = {
        place: {method: {} for method in others} for place, row in enumerate(rows) if not row.few
    }
    for (place, metric), parts in drawn.items():
        observed = differences(np.ones((1, len(target))), place, metric)
        resampled = {method: np.concatenate([part[method] for part in parts]) for method in observed}
        for method, said in _judge({name: float(one[0]) for name, one in observed.items()}, resampled).items():
            found[place][method][metric] = said
    return found


def _judgeable(row: Row, metric: str, target: np.ndarray, subjects: np.ndarray) -> bool:
    """Whether there are subjects enough, of every class where classes are averaged."""
    if row.few or metric == "accuracy":
        return not row.few
    here = target[row.samples]
    sizes = [len(np.unique(subjects[row.samples][here == one])) for one in np.unique(here)]
    return len(sizes) > 1 and min(sizes) >= ENOUGH


def _seeds(runs: Sequence[Run], method: str) -> set[int]:
    return {run.seed for run in runs if run.method == method}


def _paired(
    scores: Mapping[tuple[str, int], np.ndarray], shared: Mapping[str, Sequence[int]], reference: str
) -> dict[str, Float[np.ndarray, " r"]]:
    """Each method's mean difference to the reference over the seeds that both have."""
    return {
        method: np.mean([scores[method, seed] - scores[reference, seed] for seed in seeds], axis=0)
        for method, seeds in shared.items()
        if seeds
    }


def _judge(observed: Mapping[str, float], resampled: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Interval, p and verdict of each method; null where the samples do not allow the metric."""
    said: dict[str, dict[str, Any]] = {}
    for method, difference in observed.items():
        known = resampled[method][~np.isnan(resampled[method])]
        if np.isnan(difference) or len(known) < len(resampled[method]) / 2:
            continue
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        beyond = min((known <= 0).sum(), (known >= 0).sum())
        p = min(1.0, 2 * (beyond + 1) / (len(known) + 1))
        said[method] = {"difference": difference, "low": float(low), "high": float(high), "p": float(p)}
    if said:
        for line, p in zip(said.values(), holm([line["p"] for line in said.values()]), strict=True):
            sure = p < 1 - LEVEL
            line |= {"p_holm": p, "verdict": "tie" if not sure else "better" if line["difference"] > 0 else "worse"}
    return said


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p-values. By hand: ``statsmodels`` collects garbage at each call, which takes 0.3 s here."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(np.arange(len(p), 0, -1) * np.asarray(p)[order]).clip(max=1.0)
    corrected = np.empty(len(p))
    corrected[order] = steps
    return corrected.tolist()
