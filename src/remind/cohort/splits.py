"""Splits that never cut through a subject and keep every label and combination in proportion."""

import numpy as np

from remind.cohort.spec import SplitShares

SPLITS = ("train", "validation", "test")


def draw(subject: np.ndarray, label: np.ndarray, combination: np.ndarray, shares: SplitShares) -> np.ndarray:
    """Assign every sample ``[n]`` to a split, as an index into ``SPLITS``; a subject's samples stay together.

    Subjects are laid out stratum by stratum (label and combination of their most frequent kind of sample), in random
    order within a stratum, and dealt one after the other to the split that lags furthest behind its share. Strata of
    every size are so divided in proportion, singletons included. Depends on the seed and on the values, never on the
    order of the rows.
    """
    rng = np.random.default_rng(shares.seed)
    names, owner = np.unique(subject, return_inverse=True)
    pairs = label * (combination.max() + 1) + combination
    kinds, kind = np.unique(pairs, return_inverse=True)
    stratum = majority(owner, kind)
    order = np.lexsort((rng.permutation(len(names)), rng.permutation(len(kinds))[stratum]))
    order = order[np.argsort((kinds // (combination.max() + 1))[stratum[order]], kind="stable")]  # a stratum's label
    return _deal(np.bincount(owner)[order], [shares.train, shares.validation, shares.test])[np.argsort(order)][owner]


def majority(owner: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """The most frequent kind among each owner's samples, the lowest where several tie."""
    pairs, counts = np.unique(owner * (kind.max() + 1) + kind, return_counts=True)
    owners, kinds = np.divmod(pairs, kind.max() + 1)
    order = np.lexsort((kinds, -counts, owners))
    _, first = np.unique(owners[order], return_index=True)
    return kinds[order][first]


def _deal(sizes: np.ndarray, shares: list[float]) -> np.ndarray:
    """Deal items of these sizes, in this order, each to the split whose count lags its share the most.

    Where an item goes does not depend on its size: else patients of many visits would gather in the largest split.
    """
    dealt, assigned = [0.0] * len(shares), np.empty(len(sizes), dtype=np.int64)
    total = 0
    for place, size in enumerate(sizes.tolist()):
        lag = [share * (total + 1) - count for share, count in zip(shares, dealt, strict=True)]
        assigned[place] = lag.index(max(lag))
        dealt[assigned[place]] += size
        total += size
    return assigned
