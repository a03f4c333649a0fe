"""Whether probabilities mean what they say, and temperatures that make them: one for each combination, or nearly.

Letters: ``n`` samples, ``c`` classes, ``g`` combinations.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss

from remind.evaluation.intervals import LEVEL, wilson, witnesses

BINS = 10
DEALS = 200  # of labels, to see how far off a model would seem that is not off at all
WEAK = 0.5  # deviation of the prior of the pooled temperature's logarithm
HOTTEST = 5.0  # the largest logarithm of a temperature, and the least below


class Temperatures(NamedTuple):
    """What divides the logits."""

    pooled: float
    groups: dict[int, float]  # of a group; one that is not here has the pooled one
    between: float  # standard deviation, between groups, of the logarithm; 0: nothing tells them apart

    def of(self, group: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The temperature of each sample."""
        return np.array([self.groups.get(one, self.pooled) for one in group.tolist()])

    def applied(self, probability: Float[np.ndarray, "n c"], group: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n c"]:
        """Calibrated probabilities; which class is most probable does not change."""
        return softmax(_logits(probability) / self.of(group)[:, None], axis=1)


def fit_temperatures(
    probability: Float[np.ndarray, "n c"],
    target: Int[np.ndarray, " n"],
    group: Int[np.ndarray, " n"],
    subjects: np.ndarray,
) -> Temperatures:
    """Temperatures of the combinations, shrunk towards the pooled one as far as chance may have set them apart.

    The pooled one makes the labels most likely (Guo et al. 2017), under a weak prior around 1, without which a model
    that is always right would be made sure of everything. A group's has a normal prior on its logarithm around the
    pooled one, whose variance is what DerSimonian and Laird's estimate leaves of the differences between groups once
    chance is taken off; at 0 all have the pooled one. Samples of a subject weigh one together. Samples of ``group`` -1
    count for the pooled one alone.
    """
    logits, weight = _logits(probability), subject_shares(subjects)
    pooled = _most_likely(logits, target, weight, around=0.0, variance=WEAK**2)
    alone, information = [], []
    members = {one: group == one for one in np.unique(group[group >= 0]).tolist()}
    for rows in members.values():
        own = _most_likely(logits[rows], target[rows], weight[rows], around=0.0, variance=np.inf)
        alone.append(own)
        information.append(_information(logits[rows], weight[rows], own))
    between = _variance_between(np.array(alone), np.array(information))
    if between == 0:
        return Temperatures(float(np.exp(pooled)), {}, 0.0)
    shrunk = {
        one: float(np.exp(_most_likely(logits[rows], target[rows], weight[rows], around=pooled, variance=between)))
        for one, rows in members.items()
    }
    return Temperatures(float(np.exp(pooled)), shrunk, float(np.sqrt(between)))


def subject_shares(subjects: np.ndarray) -> Float[np.ndarray, " n"]:
    """So that the samples of a subject weigh one together."""
    _, which, size = np.unique(subjects, return_inverse=True, return_counts=True)
    return 1 / size[which]


def reliability(
    probability: Float[np.ndarray, "n c"], target: Int[np.ndarray, " n"], subjects: np.ndarray
) -> dict[str, Any]:
    """How often the most probable class is the true one, by how probable it was said to be; of one sample or more.

    ``ece``: the expected calibration error, over ten bins of equal width. A model that is not off at all has
    ``ece_by_chance`` on as many samples, in the mean, and one in twenty times more than where ``beyond_chance`` begins
    to be true; there the samples of a subject are right or wrong together, which takes them for one witness, as the
    intervals of the bins do. ``brier``: half the squared distance to the true class, 0 to 1.
    """
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == target
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)  # confidence 1 is in the last bin
    size = np.bincount(place, minlength=BINS)
    said = np.bincount(place, weights=confidence, minlength=BINS)
    whose = np.unique(subjects, return_inverse=True)[1]

    def error(true: Any) -> float:
        return float(np.abs(np.bincount(place, weights=true, minlength=BINS) - said).sum() / len(place))

    rng, found = np.random.default_rng(0), error(right)
    chance = np.array([error(rng.random(whose.max() + 1)[whose] < confidence) for _ in range(DEALS)])
    bins = [
        {
            "from": one / BINS,
            "to": (one + 1) / BINS,
            "n": int(size[one]),
            "confidence": float(said[one] / size[one]),
            "accuracy": float(right[place == one].mean()),
            **wilson(right[place == one].mean(), witnesses(subjects[place == one])),
        }
        for one in np.flatnonzero(size).tolist()
    ]
    return {
        "ece": found,
        "ece_by_chance": float(chance.mean()),
        "beyond_chance": bool(found > np.quantile(chance, LEVEL)),
        "brier": brier(probability, target),
        "bins": bins,
    }


def brier(probability: Float[np.ndarray, "n c"], target: Int[np.ndarray, " n"]) -> float:
    """Half the mean squared distance between the probabilities and the true class: 0 to 1."""
    labels = list(range(probability.shape[1]))
    half: Any = True  # its annotation says text
    return float(brier_score_loss(target, probability, labels=labels, scale_by_half=half))


def _logits(probability: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    return np.log(probability.clip(1e-300))


def _most_likely(
    logits: Float[np.ndarray, "n c"],
    target: Int[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"],
    *,
    around: float,
    variance: float,
) -> float:
    """The logarithm of the temperature that fits best, under a normal prior."""

    def cost(log: float) -> float:
        likelihood = log_softmax(logits * np.exp(-log), axis=1)[np.arange(len(target)), target]
        return float(-weight @ likelihood + (log - around) ** 2 / (2 * variance))

    found: Any = minimize_scalar(cost, bounds=(-HOTTEST, HOTTEST), method="bounded")
    return float(found.x)


def _information(logits: Float[np.ndarray, "n c"], weight: Float[np.ndarray, " n"], log: float) -> float:
    """Fisher's, of the logarithm of the temperature: the variance of the scaled logits under the model, summed."""
    scaled = logits * np.exp(-log)
    p = softmax(scaled, axis=1)
    return float(weight @ (p * (scaled - (p * scaled).sum(axis=1, keepdims=True)) ** 2).sum(axis=1))


def _variance_between(found: Float[np.ndarray, " g"], information: Float[np.ndarray, " g"]) -> float:
    """DerSimonian and Laird's estimate from the groups' own values and their weights."""
    total = information.sum()
    if len(found) < 2 or total == 0:
        return 0.0
    spread = information @ (found - information @ found / total) ** 2
    scale = total - (information**2).sum() / total
    return float(max(0.0, spread - (len(found) - 1)) / scale) if scale > 0 else 0.0
