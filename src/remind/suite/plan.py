"""The runs of a suite: which there are, what each is to do, and what has become of it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple

import yaml
from filelock import FileLock, Timeout

from remind.config import Recipe, load_recipe
from remind.documents import read_json
from remind.engine.bundle import write_text
from remind.engine.run_folder import RunFolder
from remind.errors import RemindError
from remind.methods import method

RECIPE = "recipe.yaml"
TRIALS = "trials.json"
_OWN = {".lock", f".{RECIPE}.tmp", TRIALS, f".{TRIALS}.tmp"}  # what may lie in a folder whose recipe is not written yet
_OF_A_RUN = {"method", "seed"}  # what a suite's recipe leaves to its runs


class Outcome(NamedTuple):
    """What has become of a run."""

    name: str
    state: Literal["finished", "failed", "there"]  # there: finished before, and left alone
    reason: str | None  # of a failure, in a sentence
    seconds: float


class Children:
    """Processes that are to end with whoever started them."""

    def __init__(self) -> None:
        self._lock, self._running, self._ended = Lock(), set[subprocess.Popen](), False

    def start(self, command: Sequence[str], threads: int) -> subprocess.Popen | None:
        """A process, its output in pipes; None after the end."""
        with self._lock:
            if self._ended:
                return None
            pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
            child = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, **pipes)
            self._running.add(child)
            return child

    def forget(self, child: subprocess.Popen) -> None:
        """It has ended by itself."""
        with self._lock:
            self._running.discard(child)

    def end(self) -> None:
        """Let none run on, and none start."""
        with self._lock:
            self._ended = True
            for child in self._running:
                child.terminate()


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

    def run(self, children: Children) -> Outcome:
        """Train in a process of its own, from wherever it stands."""
        words = ["train", self.cohort, "-m", self.method, "--seed", self.seed, "-r", self.recipe, "--out", self.out]
        begun = time.monotonic()
        try:
            child = children.start([sys.executable, "-m", "remind", *map(str, words), "--json"], self.threads)
        except OSError as error:
            return Outcome(self.name, "failed", f"its process could not be started ({error.strerror}).", 0.0)
        if child is None:
            return Outcome(self.name, "failed", "was not begun.", 0.0)
        _, said = child.communicate()
        children.forget(child)
        seconds = time.monotonic() - begun
        if child.returncode == 0:
            return Outcome(self.name, "finished", None, seconds)
        return Outcome(self.name, "failed", _reason(child.returncode, said), seconds)


def _reason(code: int, said: str) -> str:
    """The sentence a failed process left, or how it ended."""
    if code < 0:
        return f"its process was ended by signal {-code}; run the same command to go on."
    lines = said.strip().splitlines() or [f"its process ended with exit code {code}."]
    sentences = [line for line in lines if line.startswith("error: ")] or lines
    return sentences[-1].removeprefix("error: ")


def plan(
    cohort: Path,
    methods: Sequence[str],
    seeds: Sequence[int],
    recipe: Recipe,
    folder: Path,
    own: Mapping[str, Path] | None = None,
) -> list[Job]:
    """The runs of a suite in ``folder``; seeds in turn, all methods of each.

    A method's recipe is the suite's, or one of its ``own``. Where the recipe leaves the number of threads open it is
    one, so that numbers depend neither on the machine nor on how many runs go side by side.

    Raises:
        RemindError: for a method or seed that is unknown or named twice.
    """
    for what, names in (("method", methods), ("seed", seeds)):
        if not names or len(set(names)) < len(names):
            raise RemindError(f"name at least one {what}, and none twice.")
    for name in methods:
        method(name)
    for seed in seeds:
        load_recipe(recipe, seed=seed)
    place, threads, recipes = folder.resolve(), threads_of(recipe), own or {}
    return [
        Job(cohort.resolve(), name, seed, recipes.get(name, place / RECIPE), place / f"{name}-seed{seed}", threads)
        for seed in seeds
        for name in methods
    ]


def threads_of(recipe: Recipe) -> int:
    """CPU threads a run takes."""
    return recipe.train.threads or 1


@contextmanager
def claimed(folder: Path, recipe: Recipe, trials: int) -> Iterator[None]:
    """Hold a suite's folder, with its recipe and the number of trials in it, for one process.

    Raises:
        RemindError: if it is another suite's, or none's; or another process holds it.
    """
    train = recipe.train.model_copy(update={"threads": threads_of(recipe)})
    asked = recipe.model_copy(update={"train": train}).model_dump(mode="json", exclude=_OF_A_RUN)
    path = folder / RECIPE
    if folder.exists() and not path.is_file():
        if not folder.is_dir() or {one.name for one in folder.iterdir()} - _OWN:
            raise RemindError(f"{folder}: is there and is not a suite; name another folder with --out.")
    elif path.is_file() and load_recipe(path).model_dump(mode="json", exclude=_OF_A_RUN) != asked:
        raise RemindError(f"{path}: this suite was begun with other settings; name another folder with --out.")
    elif path.is_file() and (begun := _trials(folder)) != trials:
        raise RemindError(f"{folder}: this suite was begun with --trials {begun}; keep that, or name another --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RemindError(f"{folder}: cannot be made ({error.strerror}).") from None
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RemindError(f"{folder}: another process is comparing in this folder; wait for it.") from None
    try:
        if not path.is_file():
            write_text(folder / TRIALS, json.dumps({"count": trials}))
            write_text(path, yaml.safe_dump(asked, sort_keys=False, allow_unicode=True))
        yield
    finally:
        lock.release()


def _trials(folder: Path) -> int:
    """How many trials a suite was begun with; one before there were any."""
    return read_json(folder / TRIALS)["count"] if (folder / TRIALS).is_file() else 1
