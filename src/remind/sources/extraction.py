"""``extraction.json``: what a source found in its owner's files, kept and dropped, beside the paper's shares."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from remind.cohort.check import problems
from remind.cohort.combination import Combination, distinct
from remind.cohort.missingness.shares import paper_shares
from remind.cohort.spec import as_spec
from remind.cohort.table import availability
from remind.errors import RemindError


def extraction(
    source: str,
    spec: Mapping[str, Any],
    samples: pl.DataFrame,
    *,
    steps: Iterable[tuple[str, int]],
    warnings: Iterable[str],
    paper: str,
    says: str | None = None,
    **more: Any,
) -> str:
    """The document, as text.

    Args:
        source: its name.
        spec: the cohort's.
        samples: the cohort's.
        steps: what was counted, from the first table to the samples: ``(words, count)``.
        warnings: sentences a user must see.
        paper: which of the paper's cohorts it is.
        says: a remark on the paper's shares.
        more: further counts.

    Raises:
        RemindError: if the samples are none that can be loaded, such as ids that stand twice.
    """
    checked = as_spec(spec)
    if wrong := problems(checked, samples, source):
        raise RemindError(f"{wrong[0].removesuffix('.')}; mend the tables that {source} was made from.")
    masks, _, counts = distinct(availability(checked, samples))
    labels = [Combination.of(mask.tolist()).label(list(checked.modalities)) for mask in masks]
    shares = dict(zip(labels, (counts / samples.height).tolist(), strict=True))
    beside = {combination: share / 100 for combination, share in paper_shares(paper).items()}
    document = {"source": source, "steps": list(steps), "warnings": list(warnings), **more, "shares": shares}
    return json.dumps({**document, "paper": {"shares": beside, "says": says}}, indent=1)
