"""Complete samples of which most lose one modality (the paper's Q3, Table 5)."""

from typing import Annotated

import numpy as np
from pydantic import Field

from remind.cohort.cohort import Cohort
from remind.cohort.missingness.masked import ASSIGN, Masked, generator, place
from remind.errors import RemindError


def extreme(cohort: Cohort, seed: int, *, modality: str, share: Annotated[float, Field(gt=0, le=1)] = 0.8) -> Masked:
    """Of the samples that have everything, let an exact share, drawn blindly, lose this modality."""
    column, full = place(cohort, modality), np.flatnonzero(cohort.available.all(axis=1))
    if len(cohort.modalities) < 2:
        raise RemindError(f"{cohort.spec.name}: has one modality; a sample that loses it would keep nothing.")
    if not len(full):
        raise RemindError(f"{cohort.spec.name}: no sample has every modality; use the rule shares, which chooses some.")
    keep = np.zeros_like(cohort.available)
    keep[full] = True
    keep[generator(seed, ASSIGN).permutation(full)[: int(share * len(full) + 0.5)], column] = False
    return Masked(keep, cohort.modalities, cohort.split)
