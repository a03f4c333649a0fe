"""The published results: all methods on NHANES, on NHANES masked to MIMIC-IV's shares, and on the simulator.

Each study is one ``compare``; finished runs in --runs are not repeated. Writes a page for each into --out.
"""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from remind.cohort.cohort import Cohort, load
from remind.cohort.combination import Combination
from remind.cohort.missingness import mask
from remind.report.comparison import METRICS, comparison_files, lines, markdown
from remind.sources import nhanes, synthetic
from remind.suite.compare import compare
from remind.suite.progress import suite_progress

SEEDS = (0, 1, 42)
TRIALS = 4  # of every method, the simple ones included
SHOWN = 25  # combinations on a page; the CSV beside it has all that can be judged
MASKED = ("labs", "body", "demographics")  # in place of MIMIC-IV's text, labs and codes


@dataclass(frozen=True)
class Study:
    """A cohort, how all methods are trained on it, and what the page says of it."""

    make: Callable[[Path], Any]
    recipe: str
    says: str


def masked(folder: Path) -> None:
    """Three modalities of the people who have all three, masked at random to the paper's shares."""
    source = folder.with_name("whole")
    if not source.exists():
        nhanes.write(source, task="diabetes")
    mask(load(source), folder, "shares", seed=0, shares="mimic-iv", modalities=list(MASKED))


def simulated(modalities: int, samples: int) -> Study:
    says = f"The simulator with {modalities} modalities and {samples} samples; shift 0.5, three classes."
    return Study(
        lambda folder: synthetic.write(folder, samples=samples, modalities=modalities, seed=0), "simulator", says
    )


STUDIES = {
    "nhanes": Study(
        lambda folder: nhanes.write(folder, task="diabetes"),
        "demo",
        "NHANES 2017-2018: no diabetes, prediabetes or diabetes, by ten modalities.",
    ),
    "nhanes-masked": Study(
        masked,
        "demo",
        f"NHANES 2017-2018, the people who have {', '.join(MASKED)}, masked at random to the shares of MIMIC-IV's "
        "combinations in the paper, so that every combination is tested in numbers.",
    ),
    "simulator-4": simulated(4, 10_000),
    "simulator-8": simulated(8, 6_000),
    "simulator-16": simulated(16, 3_000),
}


def page(name: str, study: Study, cohort: Cohort, result: dict[str, Any], folder: Path) -> str:
    test = len(cohort.rows("test"))
    head = [
        f"# {name}",
        "",
        f"{study.says} {len(cohort)} samples, {len(cohort.groups)} combinations in training, {test} test samples; "
        f"recipe `{study.recipe}`, seeds {', '.join(map(str, result['seeds']))}, one split; every method tried "
        f"{TRIALS} settings on validation (the ones chosen are below). Made by `make results`.",
        "",
    ]
    if (folder / "truth.json").is_file():
        head += [*bayes(cohort, json.loads((folder / "truth.json").read_text())), ""]
    return "\n".join([*head, *in_short(result), "", markdown(result, most=SHOWN)])


def in_short(result: dict[str, Any]) -> list[str]:
    """A row a method: overall and tail, all metrics, and whether its AUROC can be told from REMIND's."""
    tables = {metric: {line.name: line.cells for line in lines(result, metric) if line.part} for metric in METRICS}
    parts = [part for part in ("overall", "tail") if part in tables["accuracy"]]
    columns = [f"{part}: {heading[0].lower()}{heading[1:]}" for part in parts for heading in METRICS.values()]
    text = ["## In short", "", f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for method in result["methods"]:
        cells = []
        for part, metric in product(parts, METRICS):
            cell = tables[metric][part][method]
            verdict = f", {cell.difference['verdict']}" if cell.difference else ""
            cells.append({1: "**{}**", 2: "<u>{}</u>"}.get(cell.place or 0, "{}").format(f"{cell.mean:.3f}") + verdict)
        text.append(f"| {method} | {' | '.join(cells)} |")
    return [*text, "", "Verdicts are against REMIND; a tie is what samples of this number cannot tell apart."]


def bayes(cohort: Cohort, truth: dict[str, Any]) -> list[str]:
    """The best accuracy that any method can expect on the test split, by part."""
    test = cohort.rows("test")
    names = [Combination.of(mask).label(cohort.modalities) for mask in cohort.available[test]]
    group, best = cohort.groups.index(cohort.available[test]), truth["combinations"]
    sums: dict[str, list[float]] = {"head": [], "tail": [], "overall": []}
    for name, place in zip(names, group, strict=True):
        for part in ("overall", "unseen" if place < 0 else "tail" if cohort.groups.tail[place] else "head"):
            sums.setdefault(part, []).append(best[name]["bayes_accuracy"])
    said = ", ".join(f"{part} {sum(values) / len(values):.3f}" for part, values in sums.items() if values)
    return [f"**Bayes accuracy on these combinations: {said}.** No predictor can expect more."]


def main() -> None:
    """Parse, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/results"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=STUDIES, nargs="*", default=list(STUDIES))
    arguments = parser.parse_args()
    console = Console()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        study, folder = STUDIES[name], arguments.runs / name / "cohort"
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            study.make(folder)
        suite = arguments.runs / name / "suite"
        console.rule(name)
        with suite_progress(console, shown=True) as told:
            result = compare(
                folder, "all", SEEDS, recipe=study.recipe, trials=TRIALS, out=suite, jobs=arguments.jobs, told=told
            )
        for file, text in comparison_files(result).items():
            (suite / file).write_text(text)
        judged = pl.read_csv(suite / "comparison.csv", infer_schema_length=None).filter(~pl.col("few"))
        judged.write_csv(arguments.out / f"{name}.csv", float_precision=4)
        (arguments.out / f"{name}.md").write_text(page(name, study, load(folder), result, folder))


if __name__ == "__main__":
    main()
