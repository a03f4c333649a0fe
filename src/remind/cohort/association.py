"""Which modalities are missing together, and whether the combination goes with the label: statistics of counts."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import chi2
from scipy.stats.contingency import expected_freq

ENOUGH = 5  # the smallest expected count with which the chi-square test can be trusted


def co_missing(masks: np.ndarray, counts: np.ndarray, modalities: Sequence[str]) -> list[dict[str, Any]]:
    """Of every pair: the share of samples that lack both, and the phi coefficient of lacking one and lacking the other.

    Takes the distinct masks ``[k, m]`` and how often each occurs ``[k]``. Phi is the correlation of the two
    indicators: 1 where they are always missing together, 0 where independently, -1 where exactly one is always
    missing; None where one of them is never or always missing. The pairs stand in the order of ``modalities``.
    """
    missing, n = (~masks).astype(np.int64), int(counts.sum())
    both = missing.T @ (missing * counts[:, None])  # [m, m]; on the diagonal: how many lack this one
    lacking = np.diag(both).astype(float)
    spread = np.sqrt(lacking * (n - lacking))
    lines = []
    for a, b in combinations(range(len(modalities)), 2):
        scale = spread[a] * spread[b]
        phi = float((n * both[a, b] - lacking[a] * lacking[b]) / scale) if scale else None
        lines.append({"modalities": [modalities[a], modalities[b]], "both": int(both[a, b]) / n, "phi": phi})
    return lines


def combination_and_label(counts: np.ndarray) -> dict[str, Any]:
    """Cramer's V of a table of combinations by classes ``[k, c]``, bias-corrected, and its chi-square p-value.

    V is 0 where the class is independent of the combination and 1 where either gives away the other; the correction
    (Bergsma 2013) takes off what a table of so many lines shows by chance. Combinations of which some class is
    expected fewer than five times are pooled into one line; ``pooled`` says how many. The p-value takes samples for
    independent: where subjects have several, ``mask_alone`` is the test to believe.
    """
    nothing = {"cramers_v": None, "p": None, "pooled": 0}
    counts = counts[:, counts.any(axis=0)]
    if counts.shape[1] < 2:
        return {**nothing, "reason": "all samples are of one class"}
    if len(counts) < 2:
        return {**nothing, "reason": "all samples have the same combination"}
    table, pooled = _pool(counts)
    if len(table) < 2:
        return {**nothing, "pooled": pooled, "reason": "every combination is too rare for the test"}
    expected, n = expected_freq(table), table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    rows, columns = (size - (size - 1) ** 2 / (n - 1) for size in table.shape)
    v = np.sqrt(max(0.0, statistic / n - freedom / (n - 1)) / (min(rows, columns) - 1))
    return {"cramers_v": min(float(v), 1.0), "p": float(chi2.sf(statistic, freedom)), "pooled": pooled, "reason": None}


def _pool(counts: np.ndarray) -> tuple[np.ndarray, int]:
    """The table with its rare lines made one, itself not rare unless it is all there is; and how many those were."""
    lines = counts[np.argsort(-counts.sum(axis=1), kind="stable")]
    rarest = counts.sum(axis=0).min() / counts.sum()
    kept = int((lines.sum(axis=1) * rarest >= ENOUGH).sum())
    if kept == len(lines):
        return lines, 0
    if lines[kept:].sum() * rarest < ENOUGH:
        kept = max(kept - 1, 0)
    return np.concatenate([lines[:kept], lines[kept:].sum(axis=0, keepdims=True)]), len(lines) - kept
