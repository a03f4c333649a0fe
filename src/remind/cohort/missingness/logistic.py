"""Removal with a probability that depends on something: logistic in a score, with coefficients drawn at random.

Letters: ``n`` samples, ``f`` numbers.
"""

import math

import numpy as np
import polars as pl


def is_number(values: pl.Series) -> bool:
    """Whether a column holds quantities, by its type."""
    return values.dtype.is_numeric() or values.dtype == pl.Boolean


def standardised(values: pl.Series) -> np.ndarray:
    """Numbers with mean 0 and deviation 1, ``float64 [n]``; 0 where the cell is null, or where all are the same."""
    known = values.drop_nulls().cast(pl.Float64).to_numpy()
    if not len(known) or known.min() == known.max():
        return np.zeros(len(values))
    return ((values.cast(pl.Float64) - known.mean()) / known.std()).fill_null(0.0).to_numpy()


def coded(values: pl.Series) -> tuple[np.ndarray, int]:
    """Categories as ``0, 1, ...`` in the order of their names, ``int64 [n]``, and how many; null is one of them."""
    codes = values.cast(pl.String).rank("dense").cast(pl.Int64).fill_null(0).to_numpy()
    codes = codes - codes.min()
    return codes, int(codes.max()) + 1


def score(
    rng: np.random.Generator, numbers: np.ndarray, codes: list[tuple[np.ndarray, int]], strength: float
) -> np.ndarray:
    """A log-odds for each sample, ``float64 [n]``, from numbers ``[n, f]`` and columns of categories.

    Each of ``codes`` is ``(int64 [n], how many categories there are)``, at least two. One coefficient a number and one
    a category, all together of norm ``strength``. Those of a column's categories sum to 0: what they have in common
    would go into the intercept, and nothing would depend on the column.
    """
    loadings = rng.standard_normal(numbers.shape[1])
    weights = [rng.standard_normal(count) for _, count in codes]
    weights = [weight - weight.mean() for weight in weights]
    total = numbers @ loadings + sum(weight[code] for weight, (code, _) in zip(weights, codes, strict=True))
    return strength / np.linalg.norm(np.concatenate([loadings, *weights])) * total


def draw(rng: np.random.Generator, score: np.ndarray, share: float) -> np.ndarray:
    """Who loses it, ``bool [n]``: drawn with the log-odds ``score [n]``, shifted so that ``share`` is expected."""
    return rng.random(len(score)) < sigmoid(score + intercept(score, share))


def intercept(score: np.ndarray, share: float) -> float:
    """What to add to log-odds ``score [n]`` for the mean of their probabilities to be ``share``; by bisection."""
    odds = math.log(share / (1 - share))
    low, high = odds - score.max(), odds - score.min()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if sigmoid(score + middle).mean() > share else (middle, high)
    return low


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of log-odds."""
    return (1 + np.tanh(logits / 2)) / 2  # never overflows
