"""Combinations that training never saw, and how much must learn to do better on them: the paper's Q4 (Fig. 5)."""

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from remind.analysis.finding import Finding
from remind.analysis.suites import dot_panels, in_words, masked, paired, parts_of, score_lines, score_table
from remind.analysis.trained import Trained, train_on
from remind.api import adapt
from remind.cohort.cohort import Cohort, load
from remind.cohort.missingness.masked import members
from remind.config import Recipe, load_recipe
from remind.engine.run_folder import RunFolder
from remind.errors import RemindError
from remind.evaluation.comparison import Run, compare_runs
from remind.evaluation.intervals import ENOUGH
from remind.fusions import FUSIONS
from remind.fusions.token_fusion import TokenFusion
from remind.methods import method
from remind.suite.progress import Told

NOTHING = "nothing"
ARMS = {  # what learns, as Fig. 5 has it
    "head": "head",
    "head, router": "head,router",
    "head, router, 25 % of experts": "head,router,experts=0.25",
    "head, router, 50 % of experts": "head,router,experts=0.5",
    "head, router, all experts": "head,router,experts=1",
}
TRAINING = 20  # samples that a combination must have for training, to be held out unasked


def unseen(
    cohort: Path,
    out: Path,
    *,
    hold: Sequence[str] | None = None,
    methods: Sequence[str] = ("soft-moe", "remind"),
    seeds: Sequence[int] = (0, 1, 42),
    recipe: str | Path | Recipe | None = None,
    overrides: Iterable[str] = (),
    jobs: int = 1,
    told: Told = lambda outcome, total: None,
) -> Finding:
    """Train without some combinations; then tune nothing, or more and more, on their training samples.

    Scores are of the held-out combinations' test samples. By default every second of the tail combinations with 20
    training samples and ten test subjects or more is held out, from the second most frequent on.

    Raises:
        RemindError: for anything wrong with what is given, or if a run fails.
    """
    whole, settings = load(cohort), load_recipe(recipe, overrides)
    held = list(hold) if hold is not None else _second(whole)
    for name in methods:
        if not issubclass(FUSIONS.get(method(name).fusion), TokenFusion):
            raise RemindError(f"{name}: models of this method cannot be adapted to new combinations; leave it out.")
    for split in ("train", "validation", "test"):
        if not len(_of(whole, held, split)):
            raise RemindError(f"{whole.spec.name}: the {split} split has no sample of {', '.join(held)}; hold others.")
    masked(whole, out / "held", "hold-out", combinations=held)
    _, runs = train_on(
        out / "held", methods, seeds, recipe=settings, overrides=(), out=out / "suite", jobs=jobs, told=told
    )
    rows = _of(whole, held, "test")
    scored = {name: _scored(whole, [run for run in runs if run.method == name], rows, out) for name in methods}
    table = score_table(
        [
            line
            for name, result in scored.items()
            for arm in (NOTHING, *ARMS)
            for line in score_lines(parts_of(result)["overall"], arm, method=name, tuned=arm, part="held out")
        ],
        method=pl.String,
        tuned=pl.String,
        part=pl.String,
    )
    train = len(_of(whole, held, "train"))
    says = [f"Held out: {', '.join(held)}; {train} samples to tune on, {len(rows)} to test.", paired(seeds, NOTHING)]
    for name, arm in product(methods, ARMS):
        says.append(f"{name}, {arm}: {in_words(table.filter(method=name, tuned=arm))}")
    title = f"{whole.spec.name}: combinations held out of training, by what is tuned on them"
    return Finding("unseen", table, dot_panels(table, panel="method", row="tuned", series="method", title=title), says)


def _second(cohort: Cohort) -> list[str]:
    groups, test = cohort.groups, cohort.groups.index(cohort.available[cohort.rows("test")])
    subjects = cohort.subjects[cohort.rows("test")]
    large = [
        label
        for place, label in enumerate(groups.labels())
        if groups.tail[place] and groups.counts[place] >= TRAINING and len(np.unique(subjects[test == place])) >= ENOUGH
    ]
    if len(large) < 2:
        raise RemindError(
            f"{cohort.spec.name}: fewer than two tail combinations have {TRAINING} training and {ENOUGH} test samples; "
            "name those to hold out with --hold."
        )
    return large[1::2]


def _of(cohort: Cohort, combinations: Sequence[str], split: str) -> np.ndarray:
    """The samples of these combinations in a split of the whole cohort."""
    rows = cohort.rows(split)
    wanted = np.array([members(cohort, combination) for combination in combinations])
    return rows[(cohort.available[rows][:, None] == wanted).all(2).any(1)]


def _scored(cohort: Cohort, runs: Sequence[Trained], rows: np.ndarray, out: Path) -> dict[str, Any]:
    """The held-out test samples, by each run as it is and as each arm makes it."""
    ids, found = [cohort.ids[row] for row in rows], []
    for run in runs:
        found.append(Run(NOTHING, run.seed, run.model().predictions(cohort, rows)))
        for place, (arm, tune) in enumerate(ARMS.items()):
            folder = out / "adapted" / f"{run.folder.name}-{place}"
            adapt(run.folder, cohort, tune=tune, out=folder)
            table = RunFolder(folder).read_table("predictions").filter(pl.col("id").is_in(ids))
            found.append(Run(arm, run.seed, table.with_columns(pl.lit(-1, pl.Int64).alias("group"))))
    return compare_runs(found, runs[0].model().groups, cohort.classes, reference=NOTHING)
