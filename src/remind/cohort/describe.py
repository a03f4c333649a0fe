"""A cohort in numbers: the atlas of which modalities its samples have."""

from typing import Any

import numpy as np
import polars as pl

from remind.cohort.association import co_missing, combination_and_label
from remind.cohort.cohort import Cohort
from remind.cohort.combination import Combination, distinct
from remind.cohort.shortcut import mask_alone
from remind.cohort.splits import SPLITS


def describe_cohort(cohort: Cohort) -> dict[str, Any]:
    """Everything that can be said of a cohort without looking at a value: plain data, ready for JSON.

    - ``combinations``: of each, the most frequent first, how often it occurs, in which classes and splits, and whether
      the training split makes it ``head``, ``tail`` or ``unseen``;
    - ``co_missing``: which modalities are missing together (see ``co_missing``);
    - ``combination_and_label``: whether the combination goes with the label (see ``combination_and_label``);
    - ``mask_alone``: whether who was measured tells who is ill (see ``mask_alone``).
    """
    masks, which, n = distinct(cohort.available)
    owner = cohort.samples[cohort.spec.subject_column].cast(pl.String).rank("dense").to_numpy().astype(np.int64) - 1
    shape = (len(SPLITS), len(masks), len(cohort.classes))
    counts = np.bincount(
        np.ravel_multi_index((cohort.split, which, cohort.target), shape), minlength=np.prod(shape)
    ).reshape(shape)
    splits = {
        name: {
            "samples": int(counts[place].sum()),
            "subjects": len(np.unique(owner[cohort.split == place])),
            "classes": dict(zip(cohort.classes, counts[place].sum(axis=0).tolist(), strict=True)),
        }
        for place, name in enumerate(SPLITS)
    }
    return {
        "name": cohort.spec.name,
        "samples": len(cohort),
        "subjects": int(owner.max()) + 1,
        "modalities": dict(zip(cohort.modalities, cohort.available.mean(axis=0).tolist(), strict=True)),
        "combinations": _combinations(cohort, masks, counts),
        "splits": splits,
        "co_missing": co_missing(masks, n, cohort.modalities),
        "combination_and_label": combination_and_label(counts.sum(axis=0)),
        "mask_alone": mask_alone(masks, which, cohort.target, owner, cohort.classes),
    }


def _combinations(cohort: Cohort, masks: np.ndarray, counts: np.ndarray) -> list[dict[str, Any]]:
    """A line for each combination, from its mask ``[k, m]`` and its counts by split and class ``[s, k, c]``."""
    by_split, by_class = counts.sum(axis=2).T, counts.sum(axis=0)
    shares = by_split / np.maximum(by_split.sum(axis=0), 1)
    lines = []
    for mask, in_split, share, in_class in zip(masks, by_split, shares, by_class, strict=True):
        training = SPLITS.index("train")
        kind = "unseen" if not in_split[training] else "tail" if share[training] < cohort.spec.tail_below else "head"
        lines.append(
            {
                "combination": Combination.of(mask).label(cohort.modalities),
                "n": int(in_class.sum()),
                "share": int(in_class.sum()) / len(cohort),
                "kind": kind,
                "classes": dict(zip(cohort.classes, in_class.tolist(), strict=True)),
                "splits": {
                    name: {"n": n, "share": part}
                    for name, n, part in zip(SPLITS, in_split.tolist(), share.tolist(), strict=True)
                },
            }
        )
    return sorted(lines, key=lambda line: (-line["n"], line["combination"]))
