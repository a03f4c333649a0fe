"""Variants of a method on validation: what its defaults rest on. No test row is read.

Trains on NHANES (three draws of the split) and on the simulator (two cohorts of each size); prints the selected epochs'
scores on validation, overall and on the tail, as means over the draws.
"""

import argparse
import dataclasses
from functools import partial
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

DRO = "objectives.group_dro="
SIMULATED = {4: 6000, 8: 6000, 16: 3000}  # modalities, and samples
VARIANTS = {
    "group-dro": [
        f"{DRO}{{estimate: {estimate}, start: {start}, step_size: {step}}}"
        for estimate, start, step in (
            ("importance", "shares", 0.02),
            ("importance", "shares", 0.1),
            ("importance", "shares", 0.5),
            ("importance", "uniform", 0.02),
            ("group_means", "shares", 0.02),
            ("group_means", "uniform", 0.02),
        )
    ],
    "remind": [
        "train.later_lr=0.1",
        "train.later_lr=1",
        "train.later_lr=1 train.group_lr=3 model.router_scale=10 fusions.remind.gate=always",
        "fusions.remind.imputation=modality",
        "fusions.remind.imputation=none",
        "train.first_stage=0.3",
        "model.slots=2",
        "model.dim=64",
        "encoders.tabular.dropout=0.1",
        "train.weight_decay=0.1",
        *(f"fusions.remind.min_count={least}" for least in (1, 5, 10, 20)),
    ],
}


def cohorts(runs: Path) -> dict[str, list[tuple[Cohort, str]]]:
    """Cohorts and recipes by name."""
    for name, make in (
        ("nhanes", lambda place: nhanes.write(place, task="diabetes")),
        *(
            (f"simulator-{modalities}-{seed}", partial(_simulated, samples, modalities, seed))
            for modalities, samples in SIMULATED.items()
            for seed in (100, 101)
        ),
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
        **{
            f"simulator-{modalities}": [
                (load(runs / f"simulator-{modalities}-{seed}"), "simulator") for seed in (100, 101)
            ]
            for modalities in SIMULATED
        },
    }


def _simulated(samples: int, modalities: int, seed: int, place: Path) -> None:
    synthetic.write(place, samples=samples, modalities=modalities, seed=seed)


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
    parser.add_argument("method", choices=VARIANTS)
    names = ("NHANES", *(f"simulator-{modalities}" for modalities in SIMULATED))
    parser.add_argument("--on", choices=names, nargs="*", default=names)
    parser.add_argument("--like", default="", help="only the variants that contain this")
    parser.add_argument("--runs", type=Path, default=Path("runs/choices"))
    arguments = parser.parse_args()
    print("| cohort | variant | accuracy | AUROC | tail accuracy | tail AUROC |", "|---|---|---|---|---|---|", sep="\n")
    for name, drawn in cohorts(arguments.runs).items():
        wanted = [variant for variant in VARIANTS[arguments.method] if arguments.like in variant]
        for variant in wanted if name in arguments.on else ():
            overrides = [variant] if variant.startswith(DRO) else variant.split()
            found = []
            for seed, (cohort, recipe) in enumerate(drawn):
                place = arguments.runs / f"{name}-{VARIANTS[arguments.method].index(variant)}-{arguments.method}-{seed}"
                settings = load_recipe(recipe, overrides, method=arguments.method, seed=seed)
                fit(cohort, recipe=settings, out=place)
                found.append(scores(place, cohort))
            figures = " | ".join(f"{figure:.3f}" for figure in np.mean(found, axis=0))
            print(f"| {name} | `{variant}` | {figures} |", flush=True)


if __name__ == "__main__":
    main()
