"""Trials: every method tries the same number of settings, and validation chooses among them."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from remind.config import Recipe, load_recipe
from remind.engine.bundle import write_text
from remind.engine.run_folder import RunFolder
from remind.fusions import FUSIONS
from remind.methods import method
from remind.objectives import OBJECTIVES
from remind.suite.plan import RECIPE, Job, threads_of

FOLDER = "trials"
MOST = 8  # trials; the simple models have no more settings
SEED = 0  # of every trial
RATES = (0.5, 1.0, 2.0)  # times the recipe's learning rate
DROPOUTS = (0.1, 0.3, 0.5)
DECAYS = (1.0, 10.0)  # times the recipe's weight decay
LATER = (0.1, 0.3, 1.0)  # learning rate of the second stage


class Chosen(NamedTuple):
    """The settings a method goes on with."""

    recipe: Path
    settings: list[str]  # over the suite's recipe
    score: float  # on validation; larger is better

    def said(self) -> dict[str, Any]:
        """For the suite's document."""
        return {"settings": self.settings, "score": self.score}


def settings_of(name: str, recipe: Recipe, trial: int) -> list[str]:
    """What a method's trial sets over the recipe, as ``key=value``.

    Trial 0 is the recipe as it is. The others draw what all methods share (learning rate, dropout, weight decay), alike
    for all of them, and what is the method's own: what its fusion and objective name under ``tries``.
    """
    if trial == 0:
        return []
    grid = [
        (rate, dropout, decay)
        for rate, dropout, decay in product(RATES, DROPOUTS, DECAYS)
        if (rate, dropout, decay) != (1.0, recipe.model.dropout, 1.0)
    ]
    order = np.random.default_rng(SEED).permutation(len(grid))
    rate, dropout, decay = grid[order[(trial - 1) % len(grid)]]
    shared = {
        "train.lr": recipe.train.lr * rate,
        "model.dropout": dropout,
        "train.weight_decay": recipe.train.weight_decay * decay,
    }
    rng, own = np.random.default_rng([SEED, trial]), _own(name)
    drawn = {key: values[rng.integers(len(values))] for key, values in own.items()}
    return [f"{key}={value}" for key, value in (shared | drawn).items()]


def _own(name: str) -> dict[str, tuple[Any, ...]]:
    made = method(name)
    parts = (("fusions", made.fusion, FUSIONS), ("objectives", made.objective, OBJECTIVES))
    own = {
        f"{section}.{part}.{key}": values
        for section, part, registry in parts
        for key, values in registry.get(part).tries.items()
    }
    return own | ({"train.later_lr": LATER} if len(made.stages) > 1 else {})


def trial_jobs(cohort: Path, methods: Sequence[str], recipe: Recipe, suite: Path, count: int) -> list[Job]:
    """Every method's trials; their recipes are written into the suite's folder."""
    place = suite.resolve() / FOLDER
    place.mkdir(exist_ok=True)
    jobs = []
    for trial, name in product(range(count), methods):
        own = place / f"{name}-{trial}.yaml" if trial else suite.resolve() / RECIPE
        if trial and not own.is_file():
            asked = load_recipe(suite / RECIPE, settings_of(name, recipe, trial)).model_dump(mode="json")
            write_text(own, yaml.safe_dump(asked, sort_keys=False, allow_unicode=True))
        jobs.append(Job(cohort.resolve(), name, SEED, own, place / f"{name}-{trial}", threads_of(recipe)))
    return jobs


def validation_score(job: Job) -> float:
    """What a trial's selected epoch scores on validation; larger is better."""
    return RunFolder(job.out).read_json("selection")["score"]


def choose(recipe: Recipe, tried: Sequence[Job], scores: Mapping[str, float]) -> dict[str, Chosen]:
    """The best of each method's trials, of equals the first; nothing for a method of which a trial has no score."""
    lacking = {job.method for job in tried if job.name not in scores}
    chosen: dict[str, Chosen] = {}
    for place, job in enumerate(tried):
        best = chosen.get(job.method)
        if job.method not in lacking and (best is None or scores[job.name] > best.score):
            trial = place // len({one.method for one in tried})
            chosen[job.method] = Chosen(job.recipe, settings_of(job.method, recipe, trial), scores[job.name])
    return chosen
