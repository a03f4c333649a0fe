"""Accuracy, macro F1 and macro AUROC under sample weights: what a bootstrap over subjects scores again and again.

Letters: ``r`` replicates, ``n`` samples, ``c`` classes, ``s`` subjects.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Float, Int

Weights = Float[np.ndarray, "r n"]
Replicates = Float[np.ndarray, " r"]  # NaN where a replicate does not allow the metric

_CELLS = 2**24  # weights held at once


def subject_weights(subjects: np.ndarray, replicates: int, seed: int) -> Iterator[Float[np.ndarray, "r n"]]:
    """How often each sample counts in each replicate, a few replicates at a time.

    Subjects are drawn with replacement, as many as there are; all samples of one come together.
    """
    _, which = np.unique(subjects, return_inverse=True)
    count = int(which.max()) + 1
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // max(count, len(which)))
    for start in range(0, replicates, step):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(step, replicates - start))
        yield drawn[:, which].astype(np.float64)


def accuracy(probability: Float[np.ndarray, "n c"], target: Int[np.ndarray, " n"], weights: Weights) -> Replicates:
    """Weighted share of samples whose most probable class is the true one."""
    right = (probability.argmax(axis=1) == target).astype(np.float64)
    return _ratio(weights @ right, weights.sum(axis=1))


def macro_f1(probability: Float[np.ndarray, "n c"], target: Int[np.ndarray, " n"], weights: Weights) -> Replicates:
    """Mean F1 over the classes that occur, with weight, among labels or predictions."""
    predicted = probability.argmax(axis=1)
    each = []
    for place in range(probability.shape[1]):
        true, said = target == place, predicted == place
        both = weights @ (true & said).astype(np.float64)
        each.append(_ratio(2 * both, weights @ (true.astype(np.float64) + said)))
    return _mean_of_known(np.stack(each))


def macro_auroc(probability: Float[np.ndarray, "n c"], target: Int[np.ndarray, " n"], weights: Weights) -> Replicates:
    """Mean AUROC of one class against the rest, over the classes that have members and others, with weight."""
    each = []
    for place, score in enumerate(probability.T):
        order = score.argsort(kind="stable")
        blocks = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # samples of equal score, as one
        sorted_weights, member = weights[:, order], (target[order] == place).astype(np.float64)
        inside = np.add.reduceat(sorted_weights * member, blocks, axis=1)
        outside = np.add.reduceat(sorted_weights * (1 - member), blocks, axis=1)
        below = outside.cumsum(axis=1) - outside / 2
        each.append(_ratio((inside * below).sum(axis=1), inside.sum(axis=1) * outside.sum(axis=1)))
    return _mean_of_known(np.stack(each))


METRICS: Mapping[str, Callable[..., Replicates]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "macro_auroc": macro_auroc,
}


def _ratio(above: Replicates, below: Replicates) -> Replicates:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def _mean_of_known(each: Float[np.ndarray, "c r"]) -> Replicates:
    known = ~np.isnan(each)
    return _ratio(np.where(known, each, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))
