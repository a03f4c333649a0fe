"""Sets of classes that hold the true one as often as was asked for, in every combination that is large enough.

Letters: ``n`` samples, ``c`` classes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from remind.evaluation.calibration import subject_shares

LARGE = 50  # subjects with which a combination has a threshold of its own


class Thresholds(NamedTuple):
    """How improbable a class may be and still be in the set; 1, which lets all in, where too few subjects speak."""

    coverage: float
    groups: dict[int, float]  # of combinations that are large enough
    rare: float | None  # of the others together, where those are enough
    rare_groups: list[int]  # which those are
    pooled: float  # of all samples together

    def of(self, group: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The threshold of each sample; one of a combination that was not there to calibrate on has that of all."""
        own = self.groups | (dict.fromkeys(self.rare_groups, self.rare) if self.rare is not None else {})
        return np.array([own.get(one, self.pooled) for one in group.tolist()])

    def by(self, group: int) -> str:
        """Whose coverage is held where this group is a part: that of none for one unseen in training."""
        if group in self.groups:
            return "combination"
        if group in self.rare_groups and self.rare is not None:
            return "rare combinations"
        return "all" if group >= 0 else "none"

    def sets(self, probability: Float[np.ndarray, "n c"], group: Int[np.ndarray, " n"]) -> Bool[np.ndarray, "n c"]:
        """The classes that are left; the most probable one always is."""
        best = probability == probability.max(axis=1, keepdims=True)
        return best | (1 - probability <= self.of(group)[:, None])


def fit_thresholds(
    probability: Float[np.ndarray, "n c"],
    target: Int[np.ndarray, " n"],
    group: Int[np.ndarray, " n"],
    subjects: np.ndarray,
    *,
    coverage: float,
) -> Thresholds:
    """Split conformal prediction, Mondrian over the combinations (Vovk et al. 2005), by ``1 - p`` of the true class.

    A combination with fewer than ``LARGE`` subjects shares a threshold with its like, or, if all of those are not
    enough either, with everyone: then its own coverage is not held, only that of those it shares with. Samples of a
    subject weigh one together, so that what is held is the coverage of a new subject's sample (Lee et al. 2023).
    """
    score = 1 - probability[np.arange(len(target)), target]

    def threshold(rows: Bool[np.ndarray, " n"]) -> float:
        return _quantile(score[rows], subjects[rows], coverage)

    sizes = {one: len(np.unique(subjects[group == one])) for one in np.unique(group[group >= 0]).tolist()}
    large = [one for one, size in sizes.items() if size >= LARGE]
    rare = (group >= 0) & ~np.isin(group, large)
    return Thresholds(
        coverage,
        {one: threshold(group == one) for one in large},
        threshold(rare) if len(np.unique(subjects[rare])) >= LARGE else None,
        [one for one in sizes if one not in large],
        threshold(np.ones_like(rare)),
    )


def _quantile(score: Float[np.ndarray, " n"], subjects: np.ndarray, coverage: float) -> float:
    """The least score at or below which lies the asked share of all subjects and one more, who has the worst: 1."""
    order = score.argsort(kind="stable")
    below = subject_shares(subjects)[order].cumsum() / (len(np.unique(subjects)) + 1)
    enough = np.flatnonzero(below >= coverage - 1e-12)
    return float(score[order[enough[0]]]) if len(enough) else 1.0
