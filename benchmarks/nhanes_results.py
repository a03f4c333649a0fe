"""The published results on NHANES: every method and the simple models, three seeds, the same splits for all.

Seed ``s`` draws the split, the initial weights and the order of the samples. Writes a page
into --out; the runs stay in --runs, and finished ones are not repeated.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from simple_models import features, simple_models

from remind.api import evaluate, fit
from remind.cohort.cohort import Cohort, load
from remind.cohort.spec import SplitShares
from remind.engine.fitted import probability_columns
from remind.evaluation.report import evaluate_predictions
from remind.methods import METHODS
from remind.report.live import LiveTable
from remind.sources.nhanes import write

SEEDS = (0, 1, 2)
PARTS = ("overall", "head", "tail", "unseen")
METRICS = {"accuracy": "accuracy", "macro_f1": "macro F1", "macro_auroc": "macro AUROC"}


def split_by(cohort: Cohort, seed: int) -> Cohort:
    """The same cohort, split by another seed."""
    return dataclasses.replace(cohort, spec=cohort.spec.model_copy(update={"split": SplitShares(seed=seed)}))


def simple_scores(cohort: Cohort, seed: int) -> dict[str, Any]:
    """Train the simple models on the training split, score them on the test split, as runs are scored."""
    x, training, test = features(cohort), cohort.rows("train"), cohort.rows("test")
    group = cohort.groups.index(cohort.available[test])
    masks = cohort.available[test]
    scores = {}
    for name, model in simple_models(seed).items():
        model.fit(x[training], cohort.target[training])
        probability = model.predict_proba(x[test])
        predictions = pl.DataFrame(
            {
                "combination": ["+".join(np.array(cohort.modalities)[mask]) for mask in masks],
                "group": group,
                "target": cohort.target[test],
                "opened": np.zeros(len(test), dtype=bool),
                **dict(zip(probability_columns(cohort.classes), probability.T, strict=True)),
            }
        )
        scores[name] = evaluate_predictions(predictions, cohort.groups, cohort.classes)
    return scores


def measure(cohort: Cohort, runs: Path, console: Console, recipe: str) -> dict[str, list[dict[str, Any]]]:
    """For each model, its metrics seed by seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in SEEDS:
        drawn = split_by(cohort, seed)
        for name, scores in simple_scores(drawn, seed).items():
            found.setdefault(name, []).append(scores)
        for method in METHODS:
            place = runs / f"{method}-seed{seed}"
            fit(drawn, method, seed=seed, recipe=recipe, out=place, watch=LiveTable(console))
            selected = json.loads((place / "metrics.json").read_text())["selected"]
            found.setdefault(method, []).append(evaluate(place) | {"selected": selected})
    return found


def mean_and_std(runs: list[dict[str, Any]], part: str, metric: str) -> tuple[float, float] | None:
    """Over the seeds that have the figure."""
    values = [run[part][metric] for run in runs if run[part][metric] is not None]
    return (float(np.mean(values)), float(np.std(values, ddof=1))) if len(values) > 1 else None


def markdown(task: str, cohort: Cohort, found: Mapping[str, list[dict[str, Any]]]) -> str:
    """One table a part of the test split; the best mean of a column in bold."""
    lines = [
        f"# NHANES 2017-2018, {task}",
        "",
        f"{len(cohort)} people, {len(cohort.modalities)} modalities. Test split; mean ± standard deviation over seeds "
        f"{', '.join(map(str, SEEDS))}, each of which draws its own split, weights and order. All choices were made on "
        "validation. Made by `make results`.",
    ]
    for part in PARTS:
        sizes = ", ".join(str(run[part]["n"]) for run in next(iter(found.values())))
        table = {name: {metric: mean_and_std(runs, part, metric) for metric in METRICS} for name, runs in found.items()}
        best = {
            metric: max((figure[0] for row in table.values() if (figure := row[metric])), default=None)
            for metric in METRICS
        }
        lines += ["", f"## {part.capitalize()} (n = {sizes})", "", "| model | " + " | ".join(METRICS.values()) + " |"]
        lines.append("|---|" + "---|" * len(METRICS))
        for name, row in table.items():
            cells = [_cell(row[metric], best[metric]) for metric in METRICS]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## What was selected",
        "",
        "| method | selected (stage, epoch), seed by seed | gate open |",
        "|---|---|---|",
    ]
    for name, runs in found.items():
        if all("selected" in run for run in runs):
            chosen = "; ".join(f"{run['selected']['stage']} {run['selected']['epoch']}" for run in runs)
            opened = ", ".join(f"{run['gate_open']:.0%}" for run in runs)
            lines.append(f"| {name} | {chosen} | {opened} |")
    return "\n".join(lines) + "\n"


def _cell(figure: tuple[float, float] | None, best: float | None) -> str:
    if figure is None:
        return "-"
    text = f"{figure[0]:.3f} ± {figure[1]:.3f}"
    return f"**{text}**" if figure[0] == best else text


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/nhanes"))
    parser.add_argument("--task", choices=("diabetes", "health"), default="diabetes")
    parser.add_argument("--recipe", default="demo")
    arguments = parser.parse_args()
    console = Console()
    folder = arguments.runs / arguments.task / "cohort"
    if not folder.exists():
        write(folder, task=arguments.task)
    cohort = load(folder)
    found = measure(cohort, arguments.runs / arguments.task, console, arguments.recipe)
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = markdown(arguments.task, cohort, found)
    (arguments.out / f"nhanes-{arguments.task}.md").write_text(text)
    console.print(text)


if __name__ == "__main__":
    main()
