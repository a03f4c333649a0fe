"""The runs of a suite: which there are, what each is to do, and what has become of it."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import yaml

from remind.config import Recipe, load_recipe
from remind.documents import read_yaml
from remind.engine.bundle import write_text
from remind.engine.run_folder import RunFolder
from remind.errors import RemindError
from remind.methods import METHODS, method

RECIPE = "recipe.yaml"
_OF_A_RUN = {"method", "seed"}  # what a suite's recipe leaves to its runs


class Outcome(NamedTuple):
    """What has become of a run."""

    name: str
    state: Literal["finished", "failed", "there"]  # there: finished before, and left alone
    reason: str | None  # of a failure, in a sentence
    seconds: float


@dataclass(frozen=True)
class Job:
    """One run, as a command of its own: what happens to it happens to no other."""

    cohort: Path
    method: str
    seed: int
    recipe: Path
    out: Path
    threads: int

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self.out.name

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return RunFolder(self.out).finished and (self.out / "metrics.json").is_file()

    def run(self) -> Outcome:
        """Train in a process of its own, from wherever it stands."""
        words = ["train", self.cohort, "-m", self.method, "--seed", self.seed, "-r", self.recipe, "--out", self.out]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "remind", *map(str, words), "--json"],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        seconds = time.monotonic() - start
        if done.returncode == 0:
            return Outcome(self.name, "finished", None, seconds)
        return Outcome(self.name, "failed", _reason(done), seconds)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The sentence a failed process left, or how it ended."""
    if done.returncode < 0:
        return f"its process was ended by signal {-done.returncode}; run the same command to go on."
    lines = done.stderr.strip().splitlines() or [f"its process ended with exit code {done.returncode}."]
    return lines[-1].removeprefix("error: ")


def plan(cohort: Path, methods: Sequence[str], seeds: Sequence[int], recipe: Recipe, folder: Path) -> list[Job]:
    """The runs of a suite in ``folder``, which then holds their recipe; seeds in turn, all methods of each.

    Where the recipe leaves the number of threads open it is one, so that numbers depend neither on the machine nor on
    how many runs go side by side.

    Raises:
        RemindError: for a method or seed that is unknown or named twice, or a folder that is another suite's.
    """
    for what, names in (("method", methods), ("seed", seeds)):
        if not names or len(set(names)) < len(names):
            raise RemindError(f"name at least one {what}, and none twice.")
    for name in methods:
        method(name)
    for seed in seeds:
        load_recipe(recipe, seed=seed)
    threads = recipe.train.threads or 1
    _claim(folder, recipe.model_copy(update={"train": recipe.train.model_copy(update={"threads": threads})}))
    return [
        Job(cohort.resolve(), name, seed, folder.resolve() / RECIPE, folder.resolve() / f"{name}-seed{seed}", threads)
        for seed in seeds
        for name in methods
    ]


def every_method() -> list[str]:
    """The names behind ``--methods all``."""
    return list(METHODS)


def _claim(folder: Path, recipe: Recipe) -> None:
    """Write the suite's recipe, or see that it is the one that is there."""
    path = folder / RECIPE
    asked = recipe.model_dump(mode="json", exclude=_OF_A_RUN)
    if path.is_file():
        if Recipe.model_validate(read_yaml(path.read_text(encoding="utf-8"), path)) != _plain(recipe):
            raise RemindError(f"{path}: this suite was begun with other settings; name another folder with --out.")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RemindError(f"{folder}: is there and is not a suite; name another folder with --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RemindError(f"{folder}: cannot be made ({error.strerror}).") from None
    write_text(path, yaml.safe_dump(asked, sort_keys=False, allow_unicode=True))


def _plain(recipe: Recipe) -> Recipe:
    """The recipe without what is its runs' own."""
    return Recipe.model_validate(recipe.model_dump(mode="json", exclude=_OF_A_RUN))
