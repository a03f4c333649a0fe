"""Does REMIND come closer than Soft MoE to the best accuracy there is, on rare combinations?

Five cohorts of the simulator, each with its own law, split and seed. Soft MoE once as it is, and once with REMIND's
vector of the group in place of what is missing, which tells it the combination. Writes ``simulator-tail.md``.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from remind.cohort.cohort import load
from remind.engine.run_folder import RunFolder
from remind.sources import synthetic
from remind.suite.compare import compare
from remind.suite.progress import suite_progress

SEEDS = range(5)
ARMS = {  # method, and what is set for it
    "remind": ("remind", ()),
    "soft-moe": ("soft-moe", ()),
    "soft-moe with B_k": ("soft-moe", ("fusions.soft_moe.imputation=group",)),
}


def tail_of(run: Path, tail: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Whether each test sample of a tail group is predicted rightly, in order of the ids; and its combination."""
    table = RunFolder(run).read_table("predictions").filter(pl.col("split") == "test").sort("id")
    table = table.filter(pl.col("group") >= 0)
    table = table.filter(pl.Series(tail[table["group"].to_numpy()]))
    probability = table.select(pl.col("^p_.*$")).to_numpy()
    return (probability.argmax(1) == table["target"].to_numpy()).astype(float), table["combination"].to_list()


def measure(runs: Path, samples: int, modalities: int, jobs: int, console: Console) -> list[dict]:
    """For each seed: right or wrong on the tail's test samples by arm, and the best accuracy to be expected there."""
    found = []
    for seed in SEEDS:
        folder = runs / f"{modalities}-{seed}" / "cohort"
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            synthetic.write(folder, samples=samples, modalities=modalities, seed=seed)
        cohort = load(folder)
        truth = json.loads((folder / "truth.json").read_text())["combinations"]
        one, names = {}, []
        for overrides in sorted({overrides for _, overrides in ARMS.values()}):
            methods = [method for method, wanted in ARMS.values() if wanted == overrides]
            suite = runs / f"{modalities}-{seed}" / ("own" if not overrides else "group")
            with suite_progress(console, shown=True) as told:
                compare(
                    folder, methods, [seed], recipe="simulator", overrides=overrides, out=suite, jobs=jobs, told=told
                )
            for arm, (method, wanted) in ARMS.items():
                if wanted == overrides:
                    one[arm], names = tail_of(suite / f"{method}-seed{seed}", cohort.groups.tail)
        best = float(np.mean([truth[name]["bayes_accuracy"] for name in names]))
        found.append({"seed": seed, "bayes": best, "n": len(names), **one})
    return found


def interval(found: list[dict], arm: str, replicates: int = 5000) -> tuple[float, float, float]:
    """Mean over seeds of REMIND's gain, with the 95 % interval of a paired bootstrap of each cohort's test samples."""
    rng, gains = np.random.default_rng(0), [one["remind"] - one[arm] for one in found]
    drawn = [rng.choice(gain, size=(replicates, len(gain))).mean(1) for gain in gains]
    low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    return float(np.mean([gain.mean() for gain in gains])), float(low), float(high)


def page(found: list[dict], samples: int, modalities: int) -> list[str]:
    lines = [
        f"## {modalities} modalities, {samples} samples",
        "",
        "| cohort and seed | tail's test samples | Bayes | " + " | ".join(ARMS) + " |",
        "|---|---|---|" + "---|" * len(ARMS),
    ]
    for one in found:
        scores = " | ".join(f"{one[arm].mean():.3f}" for arm in ARMS)
        lines.append(f"| {one['seed']} | {one['n']} | {one['bayes']:.3f} | {scores} |")
    lines.append("")
    for arm in list(ARMS)[1:]:
        gain, low, high = interval(found, arm)
        won = sum(one["remind"].mean() > one[arm].mean() for one in found)
        lines.append(f"REMIND above {arm} by {gain:+.3f} [{low:+.3f}, {high:+.3f}], in {won} of {len(found)} cohorts. ")
    return [*lines, ""]


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/results/tail"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    lines = [
        "# Rare combinations on the simulator",
        "",
        "Test accuracy on tail groups, recipe `simulator`. *Soft MoE with B_k* has REMIND's vector of the group in "
        "place of what is missing, and so is told the combination. Intervals are of a paired bootstrap of the test "
        "samples, cohort by cohort; they leave out what other weights and orders would give. Made by `make results`.",
        "",
    ]
    for modalities, samples in ((4, 10_000), (8, 6_000)):
        found = measure(arguments.runs, samples, modalities, arguments.jobs, Console())
        lines += page(found, samples, modalities)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "simulator-tail.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
