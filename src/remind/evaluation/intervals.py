"""What other patients might have shown: a 95 % interval for each score of a set of samples, or why there is none."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, logit
from scipy.stats import t as student
from statsmodels.stats.proportion import proportion_confint

from remind.evaluation.resampling import METRICS, subject_weights

ENOUGH = 10  # subjects; fewer are shown, and never judged
SMALL = 30  # samples; of fewer, accuracy has Wilson's interval
LEVEL = 0.95

MACRO = ("macro_f1", "macro_auroc")

FARTHEST = 2.5  # standard deviations from its score that a replicate counts, on the logit scale
BOTH = 5  # subjects with something right, and with something wrong, below which accuracy has Wilson's interval
WORK = 2 * 10**7  # weights drawn for a set: of very many samples there are fewer replicates, but not fewer than these
FEWEST = 100


def intervals(
    probability: Float[np.ndarray, "n c"],
    target: Int[np.ndarray, " n"],
    subjects: np.ndarray,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Of every metric ``{low, high, by}``, or ``{reason}``.

    ``bootstrap``: replicates draw subjects with replacement, all samples of one together; their spread on the logit
    scale, with Student's t of as many degrees of freedom as there are subjects less one, around the score. Percentiles
    cover 81 to 95 % of made-up truth from fifty subjects on, this 93 to 98 (``benchmarks/coverage.py``). ``wilson``:
    for accuracy of few samples, or where hardly any is right or hardly any wrong; the samples of one subject are no
    more than one witness. A macro metric has none where a class has fewer than ten subjects, since a bootstrap keeps
    such a class all but fixed; for F1 also a class that is only predicted.
    """
    count = len(np.unique(subjects))
    if count < ENOUGH:
        return {name: too_few(count) for name in METRICS}
    predicted = probability.argmax(axis=1)
    right = predicted == target
    once = np.ones((1, len(target)))
    observed = {name: float(metric(probability, target, once)[0]) for name, metric in METRICS.items()}
    classes = {"macro_auroc": np.unique(target), "macro_f1": np.union1d(target, predicted)}
    reasons = {name: _no_macro(which, target, subjects) for name, which in classes.items()}
    found: dict[str, dict[str, Any]] = {name: {"reason": why} for name, why in reasons.items() if why}
    if len(target) < SMALL or min(len(np.unique(subjects[right])), len(np.unique(subjects[~right]))) < BOTH:
        found["accuracy"] = wilson(right.mean(), witnesses(subjects)) | {"by": "wilson"}
    for name in MACRO:
        if name not in found and observed[name] in (0, 1):
            found[name] = {"reason": "no sample is out of place, and a bootstrap cannot tell how sure that is"}
    wanted = [name for name in METRICS if name not in found]
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    times = min(replicates, max(FEWEST, WORK // len(target)))
    for weights in subject_weights(subjects, times, seed) if wanted else ():
        for name in wanted:
            drawn[name].append(METRICS[name](probability, target, weights))
    for name in wanted:
        low, high = _around(observed[name], np.concatenate(drawn[name]), count)
        found[name] = {"low": low, "high": high, "by": "bootstrap"}
    return {name: found[name] for name in METRICS}


def too_few(subjects: int) -> dict[str, Any]:
    """The reason why so few have no number that could be judged."""
    return {"reason": f"too few to judge ({subjects} of {ENOUGH} subjects)"}


def wilson(share: float, count: float | int) -> dict[str, Any]:
    """``{low, high}`` of a share seen among so many."""
    low, high = np.asarray(proportion_confint(share * count, count, alpha=1 - LEVEL, method="wilson")).tolist()
    return {"low": low, "high": high}


def witnesses(subjects: np.ndarray) -> float:
    """As how many independent ones samples count if those of a subject are all alike (Kish): at most the subjects."""
    _, size = np.unique(subjects, return_counts=True)
    return float(size.sum() ** 2 / (size**2).sum())


def _around(observed: float, drawn: Float[np.ndarray, " r"], subjects: int) -> tuple[float, float]:
    """Student's t interval on the logit scale; as wide as a variance of so many subjects makes it.

    The spread there is that of the replicates, which near 0 and 1 are infinitely far out: none counts as farther from
    the score than 2.5 times what the delta method makes of their spread as they are, and this is the least.
    """
    known, middle = drawn[~np.isnan(drawn)], logit(observed)
    least = np.std(known, ddof=1) / (observed * (1 - observed))
    with np.errstate(divide="ignore"):
        there = logit(known).clip(middle - FARTHEST * least, middle + FARTHEST * least)
    spread = max(np.std(there, ddof=1), least) * np.sqrt(subjects / (subjects - 1))
    width = student.ppf((1 + LEVEL) / 2, subjects - 1) * spread
    return float(expit(middle - width)), float(expit(middle + width))


def _no_macro(classes: np.ndarray, target: np.ndarray, subjects: np.ndarray) -> str | None:
    """Why a mean over these classes has no interval; None if it has one."""
    sizes = [len(np.unique(subjects[target == one])) for one in classes]
    if len(np.unique(target)) == 1:
        return "all samples are of one class"
    if min(sizes) < ENOUGH:
        return f"a class has {min(sizes)} subjects, fewer than {ENOUGH}"
    return None


def of_mean(
    values: Float[np.ndarray, "n k"], subjects: np.ndarray, weight: Float[np.ndarray, " n"], *, seed: int = 0
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Weighted means of columns, and the ends of their intervals: Student's t, with the bootstrap's spread."""
    count = len(np.unique(subjects))
    mean = weight @ values / weight.sum()
    times = max(FEWEST, min(1000, WORK // len(values)))
    parts = [drawn * weight for drawn in subject_weights(subjects, times, seed)]
    spread = np.concatenate([part @ values / part.sum(axis=1, keepdims=True) for part in parts]).std(axis=0, ddof=1)
    width = student.ppf((1 + LEVEL) / 2, max(count - 1, 1)) * spread * np.sqrt(count / max(count - 1, 1))
    return mean, mean - width, mean + width
