"""Do intervals and sets hold what they promise? Writes ``coverage.md``: how often the truth is inside.

Truth is made up: patients with one to three samples each, who share their class and a part of the error. A setting's
true scores are those of 200 000 patients; then so many patients are drawn again and again. Beside our intervals stand
the percentiles of the same replicates. Sets are calibrated on one draw and checked on another, by combination.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.special import softmax

from remind.evaluation.conformal import fit_thresholds
from remind.evaluation.intervals import intervals
from remind.evaluation.resampling import METRICS, subject_weights

SETTINGS = [  # patients, shares of the classes, how far the model tells them apart
    *((count, (0.6, 0.4), 1.0) for count in (50, 100, 300)),
    *((count, (0.5, 0.3, 0.2), 2.0) for count in (60, 150, 300)),
    *((count, (0.85, 0.15), 1.5) for count in (100, 300)),
    *((count, (0.6, 0.4), 2.5) for count in (60, 300)),
]
SIZES = {"large": 1000, "medium": 200, "rare": 15}  # samples of a combination; of rare ones there are twenty


def patients(rng: np.random.Generator, count: int, prior: tuple[float, ...], apart: float) -> tuple[np.ndarray, ...]:
    """Probabilities, classes and patients of their samples."""
    subject = np.repeat(np.arange(count), rng.integers(1, 4, count))
    target = rng.choice(len(prior), p=prior, size=count)[subject]
    noise = rng.normal(0, 0.7, (count, len(prior)))[subject] + rng.normal(0, 0.7, (len(subject), len(prior)))
    return softmax(apart * np.eye(len(prior))[target] + noise, axis=1), target, subject


def of_intervals(draws: int) -> Iterator[str]:
    """A line for each setting and metric."""
    for count, prior, apart in SETTINGS:
        rng = np.random.default_rng(count)
        probability, target, _ = patients(rng, 200_000, prior, apart)
        once = np.ones((1, len(target)))
        truth = {name: metric(probability, target, once).item() for name, metric in METRICS.items()}
        ours: dict[str, list[bool]] = {name: [] for name in METRICS}
        plain: dict[str, list[bool]] = {name: [] for name in METRICS}
        width: dict[str, list[float]] = {name: [] for name in METRICS}
        for _ in range(draws):
            drawn = patients(rng, count, prior, apart)
            weights = np.concatenate(list(subject_weights(drawn[2], 300, 0)))
            for name, said in intervals(*drawn, replicates=300).items():
                if "low" in said:
                    ours[name].append(said["low"] <= truth[name] <= said["high"])
                    width[name].append(said["high"] - said["low"])
                    low, high = np.nanquantile(METRICS[name](*drawn[:2], weights), [0.025, 0.975])
                    plain[name].append(bool(low <= truth[name] <= high))
        for name in METRICS:
            yield (
                f"| {count} | {len(prior)} | {name} | {truth[name]:.3f} | {len(ours[name])} | "
                f"**{np.mean(ours[name]):.3f}** | {np.mean(width[name]):.3f} | {np.mean(plain[name]):.3f} |"
            )


def of_sets(draws: int, coverage: float) -> Iterator[str]:
    """A line for each size of a combination: those of one size differ in how sure the model is of itself."""
    sizes = [SIZES["large"], SIZES["large"], SIZES["medium"], SIZES["medium"], *[SIZES["rare"]] * 20]
    sharp = np.array([0.5, 3.0, 0.5, 3.0, *[0.5, 4.0] * 10])
    group = np.repeat(np.arange(len(sizes)), sizes)

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        logits = rng.normal(0, 1.5, (len(group), 3))
        target = (rng.random((len(group), 1)) > softmax(logits, axis=1).cumsum(axis=1)[:, :2]).sum(axis=1)
        return softmax(logits * sharp[group][:, None], axis=1), target

    held, alike = [], []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        probability, target = draw(rng)
        people = np.arange(len(group))
        fitted = fit_thresholds(probability, target, group, people, coverage=coverage)
        fresh, true = draw(rng)
        held.append(fitted.sets(fresh, group)[people, true])
        alike.append(fitted.sets(fresh, np.full_like(group, -1))[people, true])
    for words, rows in {
        "1000 samples, too unsure": group == 0,
        "1000 samples, too sure": group == 1,
        "200 samples, too unsure": group == 2,
        "200 samples, too sure": group == 3,
        "20 rare ones of 15, together": group > 3,
        "the 10 rare ones that are too unsure": (group > 3) & (group % 2 == 0),
        "the 10 rare ones that are too sure": (group > 3) & (group % 2 == 1),
    }.items():
        ours, one = (np.array([draw[rows].mean() for draw in kind]) for kind in (held, alike))
        yield f"| {words} | **{ours.mean():.3f}** | {ours.std(ddof=1):.3f} | {one.mean():.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    asked = parser.parse_args()
    lines = [
        "# Do intervals and sets hold what they promise?",
        "",
        f"`python benchmarks/coverage.py --draws {asked.draws}`, on made-up truth (see there). 95 % intervals from 300",
        "replicates; `draws` counts those in which there is an interval. Patients have one to three samples each.",
        "Percentiles: of the same replicates.",
        "",
        "| patients | classes | score | truth | draws | ours | width | percentiles |",
        "|---:|---:|---|---:|---:|---:|---:|---:|",
        *of_intervals(asked.draws),
        "",
        "Sets of classes, asked to hold the true one in 90 % of cases; a threshold for each combination of fifty",
        "or more and one for the rare ones together, against a single one for all. Mean over draws of calibration and",
        "test samples, and the deviation of a single calibration; the last two lines are what nobody promises.",
        "",
        "| combinations | ours | deviation | one threshold for all |",
        "|---|---:|---:|---:|",
        *of_sets(max(asked.draws // 10, 2), 0.9),
        "",
    ]
    (asked.out / "coverage.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
