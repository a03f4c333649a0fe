"""A simulator of concept shift between combinations: what a modality says of the class depends on what else is there.

With the class y uniform and the combination S independent of it, modality i shows
``x_i | y, S ~ N(mu_i[(y + s) mod c], 1)`` with ``s = s(i, S)``: zero, or a shift drawn for that i and that S. As the
law is known, so is the best that any predictor can do. Letters: ``n`` samples, ``m`` modalities, ``f`` features, ``c``
classes.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from remind.cohort.combination import Combination, distinct
from remind.cohort.missingness.shares import largest_remainder
from remind.cohort.table import write_cohort
from remind.errors import RemindError, unknown

MEANS, SHIFTS, SAMPLES, FRESH = range(4)  # independent streams of one seed


def _rng(seed: int, *stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))


@dataclass(frozen=True)
class Law:
    """The law of the inputs given class and combination; ``Law(**truth["law"])`` is that of a written cohort.

    A class mean has norm ``signal``. With at least as many features as classes, the means of a modality are orthogonal
    and all classes equally far apart: a shift then changes what an input means, never how much it tells.
    """

    modalities: int
    classes: int
    features: int
    shift: float
    signal: float
    seed: int

    @cached_property
    def means(self) -> np.ndarray:
        """The class means of each modality, ``float64 [m, c, f]``."""
        directions = _rng(self.seed, MEANS).standard_normal((self.modalities, self.features, self.classes))
        if self.features >= self.classes:
            directions, _ = np.linalg.qr(directions)
        return self.signal * (directions / np.linalg.norm(directions, axis=1, keepdims=True)).swapaxes(1, 2)

    def shifts(self, available: np.ndarray) -> np.ndarray:
        """The shift of each modality in each row's combination, ``int64 [n, m]``; zero where it is missing.

        Every combination has its shifts, drawn or not. With two classes the only shift is a swap, so that at
        ``shift`` 1 all combinations agree again; 0.5 is then the most they can differ.
        """
        masks, which, _ = distinct(available)
        table = np.zeros(masks.shape, dtype=np.int64)
        for row, mask in enumerate(masks):
            bits = Combination.of(mask.tolist()).bits
            for modality in np.flatnonzero(mask).tolist():
                rng = _rng(self.seed, SHIFTS, modality, bits)
                table[row, modality] = rng.integers(1, self.classes) if rng.random() < self.shift else 0
        return table[which]

    def centres(self, available: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The mean of each row's inputs, ``float64 [n, m, f]``, if its class is ``target [n]``."""
        shown = (target[:, None] + self.shifts(available)) % self.classes
        return self.means[np.arange(self.modalities), shown]


def posterior(law: Law, x: np.ndarray, available: np.ndarray) -> np.ndarray:
    """P(y | x, S) of inputs ``[n, m, f]`` with availability ``[n, m]``, ``float64 [n, c]``: what no predictor can beat.

    What stands in ``x`` for a missing modality is not read.
    """
    log_likelihood = np.empty((len(x), law.classes))
    for y in range(law.classes):
        off = x - law.centres(available, np.full(len(x), y))
        log_likelihood[:, y] = -0.5 * np.sum(off**2, axis=(1, 2), where=available[:, :, None])
    return _softmax(log_likelihood)


def _softmax(logits: np.ndarray) -> np.ndarray:
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def write(
    out: Path,
    *,
    samples: int = 4000,
    modalities: int = 4,
    classes: int = 3,
    features: int = 8,
    available: list[float] | None = None,
    shares: dict[str, float] | None = None,
    shift: float = 0.5,
    signal: float = 1.1,
    seed: int = 0,
) -> Path:
    """Draw a cohort, and write beside it ``truth.parquet`` (each sample's posterior) and ``truth.json`` (accuracies).

    ``available`` gives the probability that each modality is there, independently, given that one is; by default it
    falls from modality to modality and leaves a long tail of combinations. ``shares`` gives instead the exact share of
    each combination, ``{"m1+m2": 0.6, "m1": 0.4}``. ``shift`` is the probability that a modality is shifted in a
    combination.

    Raises:
        RemindError: if a setting is out of its range, or the folder is there already.
    """
    _within(math.inf, samples=(1, samples), modalities=(1, modalities), classes=(2, classes), features=(1, features))
    _within(math.inf, signal=(0, signal), seed=(0, seed))
    _within(1, shift=(0, shift))
    if available is not None and shares is not None:
        raise RemindError("synthetic: give 'available' or 'shares', not both; each says which combinations there are.")
    law = Law(modalities, classes, features, float(shift), float(signal), seed)
    rng, names = _rng(seed, SAMPLES), [f"m{i + 1}" for i in range(modalities)]
    mask = _exact(rng, samples, names, shares) if shares is not None else _independent(rng, samples, names, available)
    target = rng.integers(classes, size=samples)
    x = (law.centres(mask, target) + rng.standard_normal((samples, modalities, features))).astype(np.float32)
    truth = posterior(law, x, mask)
    ids = pl.Series("sample", [f"s{n:0{len(str(samples))}d}" for n in range(1, samples + 1)])
    spec, table = _cohort(law, names, np.where(mask[:, :, None], x, np.float32("nan")), target)
    beside = {
        "truth.parquet": pl.DataFrame(truth, [f"p_c{y}" for y in range(classes)], orient="row").insert_column(0, ids),
        "truth.json": json.dumps({"law": asdict(law), **_accuracies(law, names, mask, truth)}, indent=1),
    }
    return write_cohort(out, spec, table.insert_column(0, ids), beside)


def _within(highest: int | float, **settings: tuple[int, int | float]) -> None:
    for name, (lowest, value) in settings.items():
        if not (lowest <= value <= highest and math.isfinite(value)):
            limit = f" and at most {highest}" if highest < math.inf else ""
            raise RemindError(f"synthetic: {name} is {value}; it must be at least {lowest}{limit}.")


def _independent(rng: np.random.Generator, samples: int, names: list[str], available: list[float] | None) -> np.ndarray:
    """Masks ``[n, m]`` of independent modalities, given that at least one is there; no draw is thrown away."""
    p = np.maximum(0.95 * 0.85 ** np.arange(len(names)), 0.02) if available is None else np.array(available, float)
    if len(p) != len(names):
        raise RemindError(f"synthetic: 'available' has {len(p)} numbers for {len(names)} modalities; give one each.")
    _probabilities("available", p)
    first = p * np.cumprod(np.append(1.0, 1 - p[:-1]))  # it is there, and none before it
    lead = rng.choice(len(p), size=samples, p=first / first.sum())[:, None]
    place = np.arange(len(p))
    return (place == lead) | ((place > lead) & (rng.random((samples, len(p))) < p))


def _exact(rng: np.random.Generator, samples: int, names: list[str], shares: Mapping[str, float]) -> np.ndarray:
    """Masks ``[n, m]`` with given shares of each combination, rounded by largest remainder, in random order."""
    parts = [combination.split("+") for combination in shares]
    for modality in (modality for part in parts for modality in part):
        if modality not in names:
            raise RemindError(f"synthetic: 'shares' names an {unknown('modality', modality, names)}")
    if len({frozenset(part) for part in parts}) < len(parts):
        raise RemindError("synthetic: 'shares' names a combination twice; name each once.")
    share = np.array(list(shares.values()), float)
    _probabilities("shares", share)
    if abs(share.sum() - 1) > 1e-6:
        raise RemindError(f"synthetic: 'shares' sum to {share.sum():.6g}; they must sum to 1.")
    counts = largest_remainder(share, samples)
    return rng.permutation(np.repeat([[name in part for name in names] for part in parts], counts, axis=0))


def _probabilities(name: str, values: np.ndarray) -> None:
    if not ((values > 0) & (values <= 1)).all():
        raise RemindError(f"synthetic: {name!r} holds a number that is not above 0 and at most 1; mend it.")


def _cohort(law: Law, names: list[str], cells: np.ndarray, target: np.ndarray) -> tuple[dict[str, Any], pl.DataFrame]:
    """The spec, and the table but for its ids, from inputs ``[n, m, f]`` with NaN for missing."""
    columns = {name: [f"{name}_{f + 1}" for f in range(law.features)] for name in names}
    table = pl.DataFrame(cells.reshape(len(cells), -1), list(chain(*columns.values())), orient="row").fill_nan(None)
    classes = [f"c{y}" for y in range(law.classes)]
    spec = {
        "name": "synthetic",
        "id": "sample",
        "label": {"column": "outcome", "classes": classes},
        "modalities": {name: {"kind": "tabular", "columns": columns[name]} for name in names},
        "split": {"train": 0.7, "validation": 0.1, "test": 0.2, "seed": law.seed},
    }
    return spec, table.insert_column(0, pl.Series("outcome", classes).gather(target))


def _accuracies(law: Law, names: list[str], mask: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Means of the largest posterior, over fresh draws (``bayes_accuracy``) and over the cohort (``on_samples``).

    For each combination of the cohort, and for all of them, each as often as it stands there.
    """
    masks, which, counts = distinct(mask)
    draws = int(np.clip(1_000_000 // len(masks), 1000, 50_000))
    best = [_fresh(law, one, draws) for one in masks]
    table = pl.DataFrame(
        {
            "combination": [Combination.of(one).label(names) for one in masks.tolist()],
            "samples": counts,
            "bayes_accuracy": [float(b.mean()) for b in best],
            "standard_error": [float(b.std(ddof=1)) / math.sqrt(draws) for b in best],
            "on_samples": np.bincount(which, truth.max(axis=1)) / counts,
        }
    ).sort("samples", descending=True, maintain_order=True)
    share = table["samples"] / len(mask)
    return {
        "bayes_accuracy": share.dot(table["bayes_accuracy"]),
        "standard_error": float(np.linalg.norm(share * table["standard_error"])),
        "on_samples": share.dot(table["on_samples"]),
        "combinations": {row.pop("combination"): row for row in table.to_dicts()},
    }


def _fresh(law: Law, mask: np.ndarray, draws: int) -> np.ndarray:
    """The largest posterior of fresh samples of one combination ``[m]``, classes in equal parts, ``[draws]``.

    Draws not inputs but class logits, ``x . centre[y]``: the centres have equal norms. With G their Gram matrix, the
    logits of a sample of class y are normal, with mean ``G[y]`` and covariance G.
    """
    centres = law.centres(np.tile(mask, (law.classes, 1)), np.arange(law.classes))[:, mask].reshape(law.classes, -1)
    gram = centres @ centres.T
    values, vectors = np.linalg.eigh(gram)
    noise = _rng(law.seed, FRESH, Combination.of(mask.tolist()).bits).standard_normal((draws, law.classes))
    noise = noise @ (vectors * np.sqrt(values.clip(min=0))).T
    return _softmax(gram[np.arange(draws) % law.classes] + noise).max(axis=1)
