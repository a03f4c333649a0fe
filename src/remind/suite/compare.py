"""Train many methods under many seeds on one cohort, and compare them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl

from remind.cohort.cohort import Cohort, load
from remind.cohort.combination import GroupTable
from remind.cohort.splits import SPLITS
from remind.config import Recipe, load_recipe
from remind.engine.bundle import read_document, write_text
from remind.engine.run_folder import RunFolder
from remind.errors import RemindError
from remind.evaluation.comparison import Run, compare_runs
from remind.evaluation.references import REFERENCES, reference_predictions
from remind.suite.local import run_here
from remind.suite.on_ray import run_on_ray
from remind.suite.plan import Job, Outcome, every_method, plan
from remind.suite.progress import Told

RESULT = "comparison.json"


def compare(
    cohort: str | Path,
    methods: Sequence[str] | Literal["all"] = "all",
    seeds: Sequence[int] = (0, 1, 42),
    *,
    recipe: str | Path | Recipe | None = None,
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    jobs: int = 1,
    on: str = "local",
    address: str | None = None,
    gpus: float = 0.0,
    reference: str = "remind",
    replicates: int = 1000,
    told: Told = lambda outcome, total: None,
) -> dict[str, Any]:
    """Train what is not trained yet, and write ``comparison.json`` into the suite's folder.

    The cohort's split is the same for all runs; a seed draws weights and the order of the samples. A run that fails is
    listed under ``failed``, with its reason, and the others go on. The same call resumes.

    Args:
        cohort: a cohort folder.
        out: the suite's folder; default ``suites/COHORT``.
        jobs: runs at a time, on this machine.
        on: where they run, ``local`` or ``ray``; ``address`` and ``gpus`` (a run) are for ``ray``.
        reference: the method the others are compared with.
        replicates: of the bootstrap.
        told: called with each outcome and the number of runs.

    Raises:
        RemindError: for anything wrong with the cohort, the recipe, the names or the folder; or if no run finished.
    """
    folder, loaded = Path(cohort), load(Path(cohort))
    for split in SPLITS:
        loaded.rows(split)
    settings = load_recipe(recipe, overrides)
    suite = Path(out) if out else suite_folder(loaded.spec.name)
    names = every_method() if methods == "all" else list(methods)
    planned = plan(folder, names, seeds, settings, suite)
    failed = {}
    for outcome in _outcomes(planned, loaded.fingerprint, jobs, on, address, gpus):
        told(outcome, len(planned))
        if outcome.state == "failed":
            failed[outcome.name] = outcome.reason
    finished = [job for job in planned if job.name not in failed]
    if not finished:
        raise RemindError(f"{suite}: no run finished; the first of them: {next(iter(failed.values()))}")
    result = _compared(finished, names, loaded, reference, replicates)
    result["failed"] = [{"run": job.name, "reason": failed[job.name]} for job in planned if job.name in failed]
    write_text(suite / RESULT, json.dumps(result, indent=1, allow_nan=False))
    return result


def suite_folder(cohort: str) -> Path:
    """Where a cohort's suite goes unless another folder is named."""
    return Path("suites") / cohort


def _outcomes(
    planned: Sequence[Job], fingerprint: str, at_once: int, on: str, address: str | None, gpus: float
) -> Iterator[Outcome]:
    left = []
    for job in planned:
        if not job.finished:
            left.append(job)
            continue
        try:
            RunFolder(job.out).refuse_other({"fingerprint": fingerprint})
        except RemindError as error:
            yield Outcome(job.name, "failed", str(error), 0.0)
        else:
            yield Outcome(job.name, "there", None, 0.0)
    if left:
        yield from run_on_ray(left, address=address, gpus=gpus) if on == "ray" else run_here(left, at_once=at_once)


def _compared(
    finished: Sequence[Job], methods: Sequence[str], cohort: Cohort, reference: str, replicates: int
) -> dict[str, Any]:
    """Compare what has finished, and the reference models, under the same seeds."""
    ordered = sorted(finished, key=lambda job: (methods.index(job.method), job.seed))
    runs = [Run(job.method, job.seed, _on_test(job)) for job in ordered]
    groups = GroupTable.from_json(read_document(RunFolder(finished[0].out).model)["groups"])
    described = runs[0].predictions.select("id", "combination", "group")
    for name in REFERENCES:
        for seed in sorted({run.seed for run in runs}):
            table = reference_predictions(cohort, name, seed).drop("combination", "group")
            runs.append(Run(name, seed, table.join(described, on="id")))
    compared = compare_runs(runs, groups, cohort.classes, reference=reference, replicates=replicates)
    return {
        "cohort": cohort.spec.name,
        "fingerprint": cohort.fingerprint,
        "modalities": list(cohort.modalities),
        **compared,
    }


def _on_test(job: Job) -> pl.DataFrame:
    return RunFolder(job.out).read_table("predictions").filter(pl.col("split") == "test")
