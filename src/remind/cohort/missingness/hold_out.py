"""Combinations that no training ever sees."""

import numpy as np

from remind.cohort.cohort import Cohort
from remind.cohort.combination import Combination, distinct
from remind.cohort.missingness.masked import Masked, Names, members
from remind.cohort.splits import SPLITS
from remind.errors import RemindError, unknown


def hold_out(cohort: Cohort, seed: int, *, combinations: Names) -> Masked:
    """Move every subject that has a sample of one of the combinations to the test split, with all its samples.

    No cell is removed, and nothing is drawn: the seed has no part in it.
    """
    masks, which, _ = distinct(cohort.available)
    known = [Combination.of(mask).label(cohort.modalities) for mask in masks]
    held = set()
    for combination in combinations:
        label = Combination.of(members(cohort, combination)).label(cohort.modalities)
        if label not in known:
            raise RemindError(f"{cohort.spec.name}: {unknown('combination', label, known)}")
        held.add(known.index(label))
    moved = np.isin(cohort.subjects, cohort.subjects[np.isin(which, sorted(held))])
    return Masked(cohort.available, cohort.modalities, np.where(moved, SPLITS.index("test"), cohort.split))
