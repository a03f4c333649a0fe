"""Missing completely at random."""

import numpy as np

from remind.cohort.cohort import Cohort
from remind.cohort.missingness.masked import Masked, Remove, removal


def mcar(cohort: Cohort, seed: int, *, remove: Remove) -> Masked:
    """Remove each modality from an exact share of the samples that have it, drawn blindly: ``{"labs": 0.3}``."""

    def lose(rng: np.random.Generator, modality: str, having: np.ndarray, share: float) -> np.ndarray:
        return rng.permutation(len(having)) < int(share * len(having) + 0.5)

    return removal(cohort, seed, remove, lose)
