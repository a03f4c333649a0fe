"""The Python API: what the command line does, as functions."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from remind.cohort.cohort import Cohort, load
from remind.cohort.splits import SPLITS
from remind.config import Recipe, load_recipe
from remind.engine.adapt import Adaptation, Tune
from remind.engine.distributed import team
from remind.engine.fitted import FittedModel
from remind.engine.loop import train
from remind.engine.run_folder import RunFolder
from remind.engine.watch import Watch
from remind.errors import RemindError
from remind.evaluation.report import evaluate_predictions
from remind.evaluation.trust import calibrate


def fit(
    cohort: Cohort | str | Path,
    method: str | None = None,
    *,
    seed: int | None = None,
    recipe: str | Path | Recipe | None = None,
    out: str | Path | None = None,
    store: str | Path | None = None,
    watch: Watch | None = None,
) -> FittedModel:
    """Train a method on a cohort, into a run folder if ``out`` names one.

    The same call resumes an interrupted run and leaves a finished one alone. ``store`` is the folder for what frozen
    encoders make of their inputs, which other runs can use; by default ``features``, beside the run.

    Raises:
        RemindError: for anything wrong with the cohort, the recipe or the folder.
    """
    cohort = load(cohort) if isinstance(cohort, str | Path) else cohort
    _refuse(cohort, None if out is None else Path(out), store)
    settings = load_recipe(recipe, method=method, seed=seed)
    if out is None:
        return fit_in_scratch(cohort, settings, store, watch)
    run = Path(out)
    fitted = train(cohort, settings, run, Path(store) if store else features_beside(run), watch)
    if team().first and not all((run / name).exists() for name in ("metrics.json", "calibration.json")):
        _write_metrics(RunFolder(run), fitted)
    return fitted


def _refuse(cohort: Cohort, run: Path | None, store: str | Path | None) -> None:
    """Nothing, if every split has samples and the run's folder is not that of features."""
    for split in SPLITS:
        cohort.rows(split)
    if run is not None and run.name == "features" and store is None:
        raise RemindError(f"{run}: is where features of its neighbours go; give the run another name.")


def adapt(
    run: str | Path,
    cohort: Cohort | str | Path,
    *,
    tune: str = "head,router",
    seed: int | None = None,
    overrides: Iterable[str] = (),
    out: str | Path,
    watch: Watch | None = None,
) -> FittedModel:
    """Teach a finished run's model the combinations of a cohort's training split that it does not know; into a new run.

    Args:
        run: the run folder of the model; it is left as it is.
        tune: what learns: ``rows``, the new combinations' own parameters; ``head``; ``router``, the shared one and the
            rows; ``experts=0.25``, a share of them. With ``rows`` alone, predictions for the old combinations stay the
            same to the bit; else ``adaptation.json`` says how far they have moved.
        overrides: settings over the run's own recipe.

    Raises:
        RemindError: if the run is not finished or its method cannot be adapted, or the cohort has nothing new.
    """
    cohort = load(cohort) if isinstance(cohort, str | Path) else cohort
    base, place = load_model(run), Path(out)
    recipe = load_recipe(base.recipe, overrides, seed=seed)
    _refuse(cohort, place, None)
    asked = Adaptation.begin(base, RunFolder(Path(run)).model, cohort, recipe, Tune.parse(tune))
    fitted = train(cohort, recipe, place, features_beside(place), watch, asked)
    if not (place / "metrics.json").exists():
        _write_metrics(RunFolder(place), fitted)
    return fitted


def fit_in_scratch(
    cohort: Cohort, settings: Recipe, store: str | Path | None = None, watch: Watch | None = None
) -> FittedModel:
    """Train and keep nothing on disk but what goes into a ``store`` that is named."""
    scratch = Path(tempfile.mkdtemp(prefix="remind-"))
    try:
        return train(cohort, settings, scratch / "run", Path(store) if store else scratch / "features", watch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def features_beside(run: Path) -> Path:
    """Where runs of one folder keep what frozen encoders make of their inputs."""
    return run.parent / "features"


def evaluate(
    model: FittedModel | str | Path,
    cohort: Cohort | str | Path | None = None,
    *,
    split: str | None = "test",
    store: str | Path | None = None,
) -> dict[str, Any]:
    """Score a model on a split of a cohort (``None``: all of it), or a finished run on its own test split.

    Encoders run once an input if ``store`` names a folder of features, or the run has one beside it.

    Raises:
        RemindError: if a path leads to no finished run, or the split is empty.
    """
    if cohort is None:
        if isinstance(model, FittedModel):
            raise RemindError("a model in memory keeps no data: pass the cohort to evaluate it on.")
        return _score_run(RunFolder(Path(model)), load_model(model), split)
    if store is None and isinstance(model, str | Path) and features_beside(Path(model)).is_dir():
        store = features_beside(Path(model))
    fitted = load_model(model) if isinstance(model, str | Path) else model
    cohort = load(cohort) if isinstance(cohort, str | Path) else cohort
    cohort = fitted.admit(cohort, Path(store) if store else None)
    rows = np.arange(len(cohort)) if split is None else cohort.rows(split)
    predictions = fitted.predictions(cohort, rows, fitted.store(Path(store)) if store else None)
    return evaluate_predictions(predictions, fitted.groups, fitted.classes_)


def load_model(run: str | Path) -> FittedModel:
    """The selected model of a finished run.

    Raises:
        RemindError: if the folder is no finished run, or its checkpoint is damaged.
    """
    return FittedModel.load(finished_run(run).model)


def finished_run(run: str | Path) -> RunFolder:
    """The folder of a run.

    Raises:
        RemindError: if it is none, or not finished.
    """
    folder = RunFolder(Path(run))
    if not folder.finished:
        raise RemindError(f"{run}: is not a finished run; train it to its end first.")
    return folder


def _score_run(folder: RunFolder, fitted: FittedModel, split: str | None) -> dict[str, Any]:
    """Scores of the predictions a finished run has kept."""
    predictions = folder.read_table("predictions")
    chosen = predictions if split is None else predictions.filter(predictions["split"] == split)
    return evaluate_predictions(chosen, fitted.groups, fitted.classes_)


def _write_metrics(folder: RunFolder, fitted: FittedModel) -> None:
    """``calibration.json`` and ``metrics.json``, made from the run folder alone."""
    document = {
        "method": fitted.recipe.method,
        "seed": fitted.recipe.seed,
        "cohort": fitted.spec.name,
        "split": "test",
        "selected": folder.read_json("selection"),
        **_score_run(folder, fitted, "test"),
    }
    predictions = folder.read_table("predictions")
    folder.write_json("calibration", calibrate(predictions, fitted.groups, fitted.classes_))
    folder.write_json("metrics", document)
