"""Both estimates and both starts of Group DRO, and its step size, on validation: what decision 8 rests on.

Trains ``group-dro`` on NHANES (three draws of the split) and on the simulator (two cohorts) and prints a table of the
selected epoch's validation scores, overall and on the tail. No test row is read.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

from remind.api import fit
from remind.cohort.cohort import Cohort, load
from remind.cohort.spec import SplitShares
from remind.config import load_recipe
from remind.engine.run_folder import RunFolder
from remind.sources import nhanes, synthetic

CHOICES = [
    ("importance", "shares", 0.02),
    ("importance", "shares", 0.1),
    ("importance", "shares", 0.5),
    ("importance", "uniform", 0.02),
    ("group_means", "shares", 0.02),
    ("group_means", "uniform", 0.02),
]


def cohorts(runs: Path) -> dict[str, list[tuple[Cohort, str]]]:
    """Cohorts and recipes by name."""
    for name, make in (
        ("nhanes", lambda place: nhanes.write(place, task="diabetes")),
        ("simulator-0", lambda place: synthetic.write(place, samples=6000, seed=100)),
        ("simulator-1", lambda place: synthetic.write(place, samples=6000, seed=101)),
    ):
        if not (runs / name).exists():
            runs.mkdir(parents=True, exist_ok=True)
            make(runs / name)
    whole = load(runs / "nhanes")
    splits = [
        dataclasses.replace(whole, spec=whole.spec.model_copy(update={"split": SplitShares(seed=seed)}))
        for seed in range(3)
    ]
    return {
        "NHANES": [(cohort, "demo") for cohort in splits],
        "simulator": [(load(runs / f"simulator-{place}"), "simulator") for place in range(2)],
    }


def scores(run: Path, cohort: Cohort) -> list[float]:
    """Accuracy and macro AUROC on validation, overall and on the tail."""
    table = RunFolder(run).read_table("predictions").filter(pl.col("split") == "validation")
    probability, target = table.select(pl.col("^p_.*$")).to_numpy(), table["target"].to_numpy()
    tail = np.append(cohort.groups.tail, False)[table["group"].to_numpy()]
    found = []
    for here in (np.ones_like(tail), tail):
        p, y = probability[here], target[here]
        curves = [roc_auc_score(y == c, p[:, c]) for c in range(p.shape[1])]
        found += [float((p.argmax(1) == y).mean()), float(np.mean(curves))]
    return found


def main() -> None:
    """Train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/dro"))
    arguments = parser.parse_args()
    print(
        "| cohort | estimate, start, step | accuracy | AUROC | tail accuracy | tail AUROC |\n|---|---|---|---|---|---|"
    )
    for name, drawn in cohorts(arguments.runs).items():
        for estimate, start, step in CHOICES:
            found = []
            for seed, (cohort, recipe) in enumerate(drawn):
                place = arguments.runs / f"{name}-{estimate}-{start}-{step}-{seed}"
                settings = f"{{estimate: {estimate}, start: {start}, step_size: {step}}}"
                overrides = [f"objectives.group_dro={settings}"]
                fit(cohort, recipe=load_recipe(recipe, overrides, method="group-dro", seed=seed), out=place)
                found.append(scores(place, cohort))
            accuracy, auroc, tail_accuracy, tail_auroc = np.mean(found, axis=0)
            print(
                f"| {name} | {estimate}, {start}, {step} | {accuracy:.3f} | {auroc:.3f} | {tail_accuracy:.3f} | "
                f"{tail_auroc:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
