"""A cohort in numbers."""

from typing import Any

from remind.cohort.cohort import Cohort
from remind.cohort.combination import Combination, distinct
from remind.cohort.splits import SPLITS


def describe_cohort(cohort: Cohort) -> dict[str, Any]:
    """Sizes, availability of each modality, frequency of each combination, classes of each split."""
    masks, _, counts = distinct(cohort.available)
    combinations = [
        {"combination": Combination.of(mask).label(cohort.modalities), "n": int(n), "share": int(n) / len(cohort)}
        for mask, n in zip(masks, counts, strict=True)
    ]
    combinations.sort(key=lambda line: (-line["n"], line["combination"]))
    splits = {
        name: {
            "samples": int((cohort.split == place).sum()),
            "subjects": len(set(cohort.subjects[cohort.split == place])),
            "classes": {
                label: int(((cohort.split == place) & (cohort.target == index)).sum())
                for index, label in enumerate(cohort.classes)
            },
        }
        for place, name in enumerate(SPLITS)
    }
    return {
        "name": cohort.spec.name,
        "samples": len(cohort),
        "subjects": len(set(cohort.subjects)),
        "modalities": dict(zip(cohort.modalities, cohort.available.mean(axis=0).tolist(), strict=True)),
        "combinations": combinations,
        "splits": splits,
    }
