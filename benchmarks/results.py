"""The published results: all methods on NHANES, on NHANES masked to MIMIC-IV's shares, and on the simulator.

Each study is one ``compare``; finished runs in --runs are not repeated. Writes a page for each into --out.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from remind.cohort.cohort import Cohort, load
from remind.cohort.combination import Combination
from remind.cohort.missingness import mask
from remind.report.comparison import comparison_files, markdown
from remind.sources import nhanes, synthetic
from remind.suite.compare import compare
from remind.suite.progress import suite_progress

SEEDS = (0, 1, 42)
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
    "simulator-16": simulated(16, 6_000),
}


def page(name: str, study: Study, cohort: Cohort, result: dict[str, Any], folder: Path) -> str:
    test = len(cohort.rows("test"))
    lines = [
        f"# {name}",
        "",
        f"{study.says} {len(cohort)} samples, {len(cohort.groups)} combinations in training, {test} test samples; "
        f"recipe `{study.recipe}`, seeds {', '.join(map(str, result['seeds']))}, one split. Made by `make results`.",
        "",
    ]
    if (folder / "truth.json").is_file():
        lines += [*bayes(cohort, json.loads((folder / "truth.json").read_text())), ""]
    return "\n".join(lines) + markdown(result)


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
            result = compare(folder, "all", SEEDS, recipe=study.recipe, out=suite, jobs=arguments.jobs, told=told)
        for file, text in comparison_files(result).items():
            (suite / file).write_text(text)
        shutil.copy(suite / "comparison.csv", arguments.out / f"{name}.csv")
        (arguments.out / f"{name}.md").write_text(page(name, study, load(folder), result, folder))


if __name__ == "__main__":
    main()
