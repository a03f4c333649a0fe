"""The runs an analysis looks at: those it is given, or those it trains on a cohort first."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from remind.api import finished_run, load_model
from remind.cohort.cohort import Cohort, load
from remind.config import Recipe
from remind.engine.fitted import FittedModel
from remind.engine.run_folder import RunFolder
from remind.errors import RemindError
from remind.report.folders import identity, run_name
from remind.suite.compare import compare
from remind.suite.progress import Told


class Trained(NamedTuple):
    """A finished run."""

    method: str
    seed: int
    folder: Path

    def model(self) -> FittedModel:
        """Its selected model."""
        return load_model(self.folder)


def identities(runs: Iterable[Trained]) -> dict[str, str]:
    """What an analysis of these runs is of."""
    return {run_name(run.method, run.seed): identity(run.folder) for run in runs}


def runs_of(folders: Sequence[Path], cohort: Path) -> tuple[Cohort, list[Trained]]:
    """The finished runs in these folders, or in these suites, all of this cohort.

    Raises:
        RemindError: if a folder is neither, is not finished, or was trained on another cohort.
    """
    loaded, found = load(cohort), []
    for folder in folders:
        inside = [path for path in sorted(folder.iterdir()) if RunFolder(path).finished] if folder.is_dir() else []
        for path in [folder] if (folder / "config.yaml").is_file() else inside or [folder]:
            config = finished_run(path).config()
            if config.get("fingerprint") != loaded.fingerprint:
                raise RemindError(f"{path}: was trained on another cohort than {cohort}; name that one.")
            found.append(Trained(config["recipe"]["method"], config["recipe"]["seed"], path))
    return loaded, found


def train_on(
    cohort: Path,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    recipe: str | Path | Recipe | None,
    overrides: Iterable[str],
    out: Path,
    jobs: int,
    told: Told = lambda outcome, total: None,
) -> tuple[Cohort, list[Trained]]:
    """Train methods under seeds as a suite in ``out``, or take up what is there; a failed run is an error.

    Raises:
        RemindError: for anything wrong with what is given, or if a run fails.
    """
    found = compare(cohort, methods, seeds, recipe=recipe, overrides=overrides, out=out, jobs=jobs, told=told)
    if found["failed"]:
        name, reason = next(iter(found["failed"].items()))
        raise RemindError(f"{out / name}: {reason}")
    return load(cohort), [Trained(name, seed, out / f"{name}-seed{seed}") for seed in seeds for name in methods]
