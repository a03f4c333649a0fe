"""What a page is made from: the runs of a folder, how they compare, and what analyses have found of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from remind.cohort.combination import GroupTable
from remind.cohort.spec import CohortSpec
from remind.documents import read_json
from remind.engine.bundle import read_document, read_sums
from remind.engine.run_folder import RunFolder
from remind.errors import RemindError
from remind.evaluation.comparison import Run, compare_runs

RESULT = "comparison.json"


def run_folders(target: Path) -> list[RunFolder]:
    """The finished run at a place, or those in it; adapted models, which are no runs of a method, are left out there.

    Raises:
        RemindError: if there is none, two are of one method and seed, or they are not of one cohort.
    """
    if (target / "config.yaml").is_file() and RunFolder(target).finished:
        return [RunFolder(target)]
    inside = map(RunFolder, sorted(target.iterdir())) if target.is_dir() else []
    found = [folder for folder in inside if folder.finished and not folder.config().get("adapts")]
    if not found:
        raise RemindError(f"{target}: is neither a finished run nor a folder that holds some; train one first.")
    if len({folder.config().get("fingerprint") for folder in found}) > 1:
        raise RemindError(
            f"{target}: holds runs of several cohorts; report one run, or a folder of runs of one cohort."
        )
    names = [named(folder) for folder in found]
    if twice := [folder.path.name for folder, name in zip(found, names, strict=True) if names.count(name) > 1]:
        raise RemindError(f"{target}: {', '.join(twice)} are of one method and seed; move all but one elsewhere.")
    return found


def named(folder: RunFolder) -> str:
    """Method and seed."""
    recipe = folder.config()["recipe"]
    return run_name(recipe["method"], recipe["seed"])


def run_name(method: str, seed: int) -> str:
    """What a run is called where analyses speak of it."""
    return f"{method}-seed{seed}"


def identity(run: Path) -> str:
    """The checksum of a run's predictions: what an analysis of it is of."""
    return read_sums(run).get("predictions.parquet", "")


def comparison_of(target: Path, folders: Sequence[RunFolder]) -> dict[str, Any] | None:
    """The suite's own comparison, or one made of the runs that are there; None of a single run.

    Raises:
        RemindError: if it is of another cohort.
    """
    config = folders[0].config()
    if (target / RESULT).is_file():
        found = read_json(target / RESULT)
        if found.get("fingerprint") != config.get("fingerprint"):
            raise RemindError(f"{target / RESULT}: compares runs of another cohort; run 'remind compare' again.")
        return found
    if len(folders) == 1:
        return None
    recipes = [folder.config()["recipe"] for folder in folders]
    runs = [
        Run(recipe["method"], recipe["seed"], folder.read_table("predictions").filter(split="test"))
        for folder, recipe in zip(folders, recipes, strict=True)
    ]
    document = read_document(folders[0].model)
    spec, methods = CohortSpec.model_validate(document["spec"]), [run.method for run in runs]
    groups = GroupTable.from_json(document["groups"])
    reference = "remind" if "remind" in methods else methods[-1]
    return compare_runs(runs, groups, spec.label.classes, reference=reference)


def detailed(folders: Sequence[RunFolder], comparison: Mapping[str, Any] | None) -> RunFolder:
    """The first run of the reference method, or the first of all where that is none of ours."""
    reference = comparison["reference"] if comparison else None
    recipes = [folder.config()["recipe"] for folder in folders]
    own = [(recipe["seed"], place) for place, recipe in enumerate(recipes) if recipe["method"] == reference]
    return folders[min(own)[1]] if own else folders[0]


def finding_of(analyses: Path, name: str, runs: Mapping[str, str]) -> dict[str, Any] | None:
    """What an analysis has found of these runs, by name and identity; None if it has nothing of them.

    Raises:
        RemindError: if its file is not one that ``remind analyze`` writes.
    """
    path, following = analyses / f"{name}.json", analyses / f"{name}-next.parquet"
    if not path.is_file():
        return None
    found = read_json(path)
    try:
        of = {run for run, one in found["of"].items() if runs.get(run) == one}
        rows = {"rows": found["rows"], "next": pl.read_parquet(following).to_dicts() if following.is_file() else []}
        kept = {
            part: [row for row in lines if run_name(row["method"], row["seed"]) in of] for part, lines in rows.items()
        }
    except (AttributeError, KeyError, TypeError, OSError, pl.exceptions.PolarsError):
        raise RemindError(
            f"{path}: is not what 'remind analyze {name}' writes now; remove it, and make it anew."
        ) from None
    return {**kept, "of": of} if of else None
