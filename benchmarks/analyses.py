"""The published analyses: all of the paper's on NHANES and on the simulator, as `remind analyze` makes them.

Finished runs in --runs are not repeated. Writes a page for each cohort, its pictures and tables into --out.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from shutil import copyfile

from rich.console import Console

from remind.analysis.ablation import ablation
from remind.analysis.cost import cost
from remind.analysis.experts import experts
from remind.analysis.extreme_missingness import extreme_missingness
from remind.analysis.finding import Finding
from remind.analysis.gradient_consistency import gradients
from remind.analysis.sensitivity import sensitivity
from remind.analysis.trained import train_on
from remind.analysis.unseen import unseen
from remind.methods import METHODS
from remind.sources import nhanes, synthetic
from remind.suite.progress import suite_progress

SEEDS = (0, 1, 42)
EVERY = 70  # steps between records of gradient consistency: an epoch of NHANES
COHORTS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "nhanes": (partial(nhanes.write, task="diabetes"), "demo", "NHANES 2017-2018, diabetes, ten modalities"),
    "simulator": (
        partial(
            synthetic.write, samples=6_000, modalities=8, seed=0, available=[0.9, 0.9, 0.8, 0.8, 0.8, 0.7, 0.7, 0.6]
        ),
        "simulator",
        "the simulator with 8 modalities and 6 000 samples, shift 0.5",
    ),
}
QUESTIONS = {
    "gradients": "Gradient consistency (Eq. 1, 9-17, Fig. 1b, 3)",
    "experts": "Expert specialisation (Fig. 4, Table 6)",
    "extreme-missingness": "Extreme missingness (Q3, Table 5)",
    "unseen": "Unseen combinations (Q4, Fig. 5)",
    "ablation": "Ablation (Table 4)",
    "sensitivity": "Sensitivity (Table 16)",
    "cost": "Cost (Table 17)",
}


def findings(cohort: Path, recipe: str, runs: Path, jobs: int, console: Console) -> Iterator[Finding]:
    """All seven, in the paper's order."""
    with suite_progress(console, shown=True) as told:
        trained = {"recipe": recipe, "jobs": jobs, "told": told}
        recorded = [f"train.gradients_every={EVERY}"]
        both = ["soft-moe", "remind"]
        loaded, suite = train_on(cohort, both, SEEDS, overrides=recorded, out=runs / "suite", **trained)
        yield gradients(loaded, suite)
        yield experts(loaded, suite)
        yield extreme_missingness(cohort, runs / "missingness", seeds=SEEDS, **trained)
        yield unseen(cohort, runs / "unseen", seeds=SEEDS, **trained)
        yield ablation(cohort, runs / "ablation", seeds=SEEDS, **trained)
        yield sensitivity(cohort, runs / "sensitivity", seeds=SEEDS, **trained)
    yield cost(cohort, list(METHODS), recipe=recipe)


def main() -> None:
    """Parse, analyze, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/analyses"))
    parser.add_argument("--runs", type=Path, default=Path("runs/analyses"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=COHORTS, nargs="*", default=list(COHORTS))
    arguments = parser.parse_args()
    console = Console()
    for name in arguments.only:
        make, recipe, says = COHORTS[name]
        runs = arguments.runs / name
        if not (runs / "cohort").exists():
            runs.mkdir(parents=True, exist_ok=True)
            make(runs / "cohort")
        page = [
            f"# Analyses: {name}",
            "",
            f"On {says}; recipe `{recipe}`, seeds 0, 1, 42. Made by `make analyses`.",
            "",
        ]
        arguments.out.mkdir(parents=True, exist_ok=True)
        for finding in findings(runs / "cohort", recipe, runs, arguments.jobs, console):
            console.rule(f"{name}: {finding.name}")
            finding.save(runs / "found")
            picture = f"{name}-{finding.name}.png"
            copyfile(runs / "found" / f"{finding.name}.png", arguments.out / picture)
            page += [f"## {QUESTIONS[finding.name]}", "", f"![{QUESTIONS[finding.name]}]({picture})", ""]
            page += [*(f"- {sentence}" for sentence in finding.says), ""]
            (arguments.out / f"{name}.md").write_text("\n".join(page))


if __name__ == "__main__":
    main()
