"""Exact shares of combinations, one's own or the paper's."""

from collections.abc import Sequence

import numpy as np

from remind.cohort.cohort import Cohort
from remind.cohort.missingness.masked import ASSIGN, Masked, Names, Shares, generator, members
from remind.errors import RemindError, unknown

# The paper's modalities in order, and percent of its samples by the numbers of the modalities they have.
PAPER: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {
    "mimic-iv": (
        ("text", "labs", "icd"),
        {"1": 4.8, "2": 5.2, "1+2": 14.3, "3": 5.2, "1+3": 15.5, "2+3": 14.7, "1+2+3": 40.3},
    ),
    "embed": (
        ("cview_cc", "cview_mlo", "ffdm_cc", "ffdm_mlo"),
        {"3": 3.0, "1+3": 0.6, "4": 1.2, "3+4": 57.8, "1+3+4": 0.3, "1+2+3+4": 37.1},
    ),
    "fprm": (
        ("fundus", "flow", "oxygen", "table"),
        {"1+4": 59.9, "1": 17.7, "1+2+3+4": 16.2, "1+2+3": 5.3, "1+3+4": 0.8},
    ),
}


def shares(cohort: Cohort, seed: int, *, shares: Shares, modalities: Names | None = None) -> Masked:
    """Give each combination its exact share, ``{"labs+text": 0.6, "labs": 0.4}``, rounded by largest remainder.

    ``shares`` may be the name of one of the paper's cohorts: its first modality is then the first of ours, and so on.
    ``modalities`` chooses and orders ours; by default all of them for the paper's shares, else those that the
    combinations name. The new cohort has these modalities, and of the samples those that have all of them.
    """
    names = tuple(modalities or cohort.modalities)
    wanted = _paper(cohort, shares, names) if isinstance(shares, str) else shares
    masks = np.array([members(cohort, combination) for combination in wanted]).reshape(-1, len(cohort.modalities))
    share = np.array(list(wanted.values()))
    used = {cohort.modalities[column] for column in np.flatnonzero(masks.any(axis=0))}
    if modalities is None:
        names = tuple(name for name in cohort.modalities if name in used)
    if len(set(names)) < len(names) or set(names) != used:
        raise RemindError(
            f"{cohort.spec.name}: 'modalities' ({', '.join(names)}) must name each modality of the combinations "
            f"({', '.join(sorted(used))}) once, and no other."
        )
    _sound(cohort, masks, share)
    full = np.flatnonzero(cohort.available[:, masks.any(axis=0)].all(axis=1))
    if not len(full):
        raise RemindError(f"{cohort.spec.name}: no sample has all of {', '.join(names)}; choose others.")
    counts = largest_remainder(share, len(full))
    keep = np.zeros_like(cohort.available)
    keep[full] = generator(seed, ASSIGN).permutation(np.repeat(masks, counts, axis=0))
    return Masked(keep, names, cohort.split)


def _paper(cohort: Cohort, name: str, names: tuple[str, ...]) -> dict[str, float]:
    """The paper's shares in terms of our modalities, summing to 1."""
    if name not in PAPER:
        raise RemindError(unknown("name of shares", name, PAPER))
    theirs, percent = PAPER[name]
    if len(names) != len(theirs):
        raise RemindError(
            f"{cohort.spec.name}: has {len(names)} modalities where {name} has {len(theirs)} ({', '.join(theirs)}); "
            f"choose as many, in that order: --modalities {','.join('abcd'[: len(theirs)])}."
        )
    total = sum(percent.values())
    return {combination: share / total for combination, share in paper_shares(name, names).items()}


def paper_shares(name: str, modalities: Sequence[str] | None = None) -> dict[str, float]:
    """The shares that the paper prints for one of its cohorts, in percent; ``modalities`` in the place of its names."""
    theirs, percent = PAPER[name]
    names = modalities or theirs
    return {"+".join(names[int(n) - 1] for n in numbers.split("+")): share for numbers, share in percent.items()}


def _sound(cohort: Cohort, masks: np.ndarray, share: np.ndarray) -> None:
    if len(np.unique(masks, axis=0)) < len(masks):
        raise RemindError(f"{cohort.spec.name}: 'shares' names a combination twice; name each once.")
    if not (share > 0).all():
        raise RemindError(f"{cohort.spec.name}: 'shares' holds a number that is not above 0; mend it.")
    if not abs(share.sum() - 1) < 1e-6:
        raise RemindError(f"{cohort.spec.name}: 'shares' sum to {share.sum():.6g}; they must sum to 1.")


def largest_remainder(share: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to ``share [k]`` that sum to ``total``, ``int64 [k]``."""
    quota = total * share / share.sum()
    counts = np.floor(quota).astype(np.int64)
    counts[np.argsort(counts - quota, kind="stable")[: total - counts.sum()]] += 1
    return counts
