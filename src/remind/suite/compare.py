"""Train many methods under many seeds on one cohort, and compare them."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import polars as pl

from remind.cohort.cohort import Cohort, load
from remind.cohort.combination import GroupTable
from remind.cohort.splits import SPLITS
from remind.config import Recipe, load_recipe
from remind.engine.bundle import read_document, write_text
from remind.engine.run_folder import RunFolder
from remind.errors import RemindError, unknown
from remind.evaluation.comparison import LEVEL, Run, compare_runs
from remind.evaluation.references import REFERENCES, reference_predictions
from remind.methods import METHODS
from remind.suite.local import run_here
from remind.suite.on_ray import run_on_ray
from remind.suite.plan import Job, Outcome, claimed, plan
from remind.suite.progress import Told
from remind.suite.trials import MOST, Chosen, choose, trial_jobs, validation_score

RESULT = "comparison.json"
T = TypeVar("T")


def compare(
    cohort: str | Path,
    methods: Sequence[str] | Literal["all"] = "all",
    seeds: Sequence[int] = (0, 1, 42),
    *,
    recipe: str | Path | Recipe | None = None,
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    trials: int = 1,
    jobs: int = 1,
    on: str = "local",
    address: str | None = None,
    gpus: float = 0.0,
    reference: str | None = None,
    replicates: int = 1000,
    told: Told = lambda outcome, total: None,
) -> dict[str, Any]:
    """Train what is not trained yet, and write ``comparison.json`` into the suite's folder.

    The cohort's split is the same for all runs; a seed draws weights and the order of the samples. A run that fails is
    listed under ``failed``, with its reason, and the others go on. The same call resumes.

    Args:
        cohort: a cohort folder.
        out: the suite's folder; default ``suites/COHORT``.
        trials: settings that each method tries, of which it goes on with the best on validation; 1 is the recipe's.
        jobs: runs at a time, on this machine.
        on: where they run, ``local`` or ``ray``; ``address`` and ``gpus`` (a run) are for ``ray``.
        reference: the method the others are compared with; default REMIND, or the last method where it is not one.
        replicates: of the bootstrap.
        told: called with each outcome and the number of runs.

    Raises:
        RemindError: for anything wrong with the cohort, the recipe, the names or the folder; or if no run finished.
    """
    folder, loaded = Path(cohort), load(Path(cohort))
    for split in SPLITS:
        loaded.rows(split)
    settings = load_recipe(recipe, overrides)
    names = list(METHODS) if methods == "all" else [methods] if isinstance(methods, str) else list(methods)
    reference = reference or ("remind" if "remind" in names else names[-1] if names else "")
    _refuse(names, on, jobs, trials, reference, replicates)
    suite = Path(out) if out else suite_folder(loaded.spec.name)
    total = len(plan(folder, names, seeds, settings, suite)) + (trials * len(names) if trials > 1 else 0)
    failed: dict[str, str] = {}

    def finished(planned: Sequence[Job], read: Callable[[Job], T]) -> Iterator[tuple[Job, T]]:
        """Those that end well, with what is read of them; what fails is told, and the others go on."""
        for outcome in _outcomes(planned, loaded.fingerprint, jobs, on, address, gpus):
            if outcome.state != "failed":
                job = next(job for job in planned if job.name == outcome.name)
                try:
                    yield job, read(job)
                except RemindError as error:
                    outcome = outcome._replace(state="failed", reason=str(error))
            if outcome.state == "failed":
                failed[outcome.name] = outcome.reason or ""
            told(outcome, total)

    with claimed(suite, settings, trials):
        chosen: dict[str, Chosen] = {}
        if trials > 1:
            tried = trial_jobs(folder, names, settings, suite, trials)
            chosen = choose(settings, tried, {job.name: score for job, score in finished(tried, validation_score)})
            names = [name for name in names if name in chosen]  # the others had fewer trials; the same call tries again
        recipes = {name: one.recipe for name, one in chosen.items()}
        planned = plan(folder, names, seeds, settings, suite, recipes) if names else []
        runs = [Run(job.method, job.seed, table) for job, table in finished(planned, lambda job: on_test(job.out))]
        if not runs:
            raise RemindError(f"{suite}: no run finished; the first of them: {next(iter(failed.values()))}")
        runs.sort(key=lambda run: (names.index(run.method), run.seed))
        model = next(job for job in planned if job.name not in failed).out
        result = _compared(runs, model, loaded, trials, reference, replicates)
        result["trials"] = {name: one.said() for name, one in chosen.items()}
        document = result | {"failed": sorted(failed)}  # without reasons, which may name samples
        write_text(suite / RESULT, json.dumps(document, indent=1, allow_nan=False))
    return result | {"failed": failed}


def suite_folder(cohort: str) -> Path:
    """Where a cohort's suite goes unless another folder is named."""
    return Path("suites") / cohort


def _refuse(methods: Sequence[str], on: str, jobs: int, trials: int, reference: str, replicates: int) -> None:
    """Nothing, if all is well before anything is trained."""
    if on not in ("local", "ray"):
        raise RemindError(unknown("place", on, ("local", "ray")))
    if jobs < 1:
        raise RemindError(f"{jobs} runs at a time are none; name at least one.")
    if not 1 <= trials <= MOST:
        raise RemindError(f"{trials} trials: take 1, which is the recipe as it is, to {MOST}.")
    if methods and reference not in (known := [*methods, *REFERENCES]):
        raise RemindError(f"the reference is one of those compared: {unknown('method', reference, known)}")
    others = len(methods) + len(REFERENCES) - 1
    if 2 * others / (replicates + 1) >= 1 - LEVEL:
        needed = int(2 * others / (1 - LEVEL)) + 1
        raise RemindError(
            f"with {replicates} replicates no difference between {others + 1} methods could be told from chance; "
            f"take {max(1000, needed)}."
        )


def _outcomes(
    planned: Sequence[Job],
    fingerprint: str,
    at_once: int,
    on: str,
    address: str | None,
    gpus: float,
) -> Iterator[Outcome]:
    left = []
    for job in planned:
        if not job.finished:
            left.append(job)
            continue
        asked = load_recipe(job.recipe, method=job.method, seed=job.seed).model_dump(mode="json")
        try:
            RunFolder(job.out).refuse_other({"recipe": asked, "fingerprint": fingerprint})
        except RemindError as error:
            yield Outcome(job.name, "failed", str(error), 0.0)
        else:
            yield Outcome(job.name, "there", None, 0.0)
    if left:
        yield from run_on_ray(left, address=address, gpus=gpus) if on == "ray" else run_here(left, at_once=at_once)


def _compared(
    runs: Sequence[Run], model: Path, cohort: Cohort, trials: int, reference: str, replicates: int
) -> dict[str, Any]:
    """Compare the runs, and reference models under the same seeds."""
    groups = GroupTable.from_json(read_document(RunFolder(model).model)["groups"])
    described = runs[0].predictions.select("id", "combination", "group")
    simple = []
    if len(np.unique(cohort.target[cohort.rows("train")])) > 1:
        for name in REFERENCES:
            for seed in sorted({run.seed for run in runs}):
                table = reference_predictions(cohort, name, seed, trials).drop("combination", "group")
                simple.append(Run(name, seed, table.join(described, on="id")))
    compared = compare_runs([*runs, *simple], groups, cohort.classes, reference=reference, replicates=replicates)
    return {
        "cohort": cohort.spec.name,
        "fingerprint": cohort.fingerprint,
        "modalities": list(cohort.modalities),
        **compared,
    }


def on_test(run: Path) -> pl.DataFrame:
    """What a finished run predicts of the test split."""
    return RunFolder(run).read_table("predictions").filter(pl.col("split") == "test")
