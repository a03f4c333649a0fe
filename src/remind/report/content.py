"""All that a page says of a run or a suite, as plain data: read from run folders alone, before it is drawn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from remind.cohort.combination import GroupTable
from remind.cohort.spec import CohortSpec
from remind.documents import read_json
from remind.engine.bundle import read_document
from remind.engine.run_folder import RunFolder
from remind.errors import RemindError
from remind.evaluation.comparison import Run, compare_runs
from remind.evaluation.report import evaluate_predictions
from remind.evaluation.trust import calibrate
from remind.report.names import shown
from remind.report.tables import brief

FINDINGS = ("modalities", "experts", "gradients")


@dataclass(frozen=True)
class Content:
    """What is shown. Names are as they may be printed (see ``shown``); ``name`` of a combination is its label."""

    cohort: str
    method: str  # of the run that is shown in detail
    seed: int
    place: str  # its folder's name
    tail_below: float  # the share that a head combination has at least
    modalities: list[str]
    classes: list[str]
    combinations: list[dict[str, Any]]  # see ``_combinations``
    parts: dict[str, dict[str, Any]]  # head, tail, unseen, overall: as ``evaluate_predictions`` gives them
    worst: dict[str, Any] | None
    calibration: dict[str, Any]  # as ``calibrate`` gives it; its combinations stand with the others
    class_counts: dict[str, int]  # test subjects of each class
    history: list[dict[str, Any]]
    groups: list[str]  # of group weights, in their order
    settings: str
    environment: dict[str, Any]
    comparison: dict[str, Any] | None = None  # as ``comparison.json``
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)  # by analysis: sentences and rows
    suppressed: int = 0  # cells of fewer people are not shown; 0: all are

    def of_run(self, finding: str, part: str = "rows") -> list[dict[str, Any]]:
        """What an analysis found of the run in detail."""
        rows = self.findings.get(finding, {}).get(part, [])
        return [row for row in rows if row["method"] == self.method and row["seed"] == self.seed]


def gather(target: Path, analyses: Path) -> Content:
    """Read a run folder, or a folder of runs of one cohort, and what analyses of them lies in ``analyses``.

    Of a suite the run in detail is the reference method's of the first seed.

    Raises:
        RemindError: if there is no finished run, or something in it is damaged.
    """
    folders = run_folders(target)
    comparison = None if len(folders) == 1 else _comparison(target, folders)
    folder = folders[0] if comparison is None else _detailed(folders, comparison)
    config, document = folder.config(), read_document(folder.model)
    spec, groups = CohortSpec.model_validate(document["spec"]), GroupTable.from_json(document["groups"])
    predictions, classes = folder.read_table("predictions"), spec.label.classes
    test = predictions.filter(split="test")
    metrics = evaluate_predictions(test, groups, classes)
    calibration = calibrate(predictions, groups, classes)
    findings = {name: found for name in FINDINGS if (found := _finding(analyses, name))}
    return Content(
        cohort=shown(spec.name),
        method=config["recipe"]["method"],
        seed=config["recipe"]["seed"],
        place=shown(folder.path.resolve().name),
        tail_below=groups.tail_below,
        modalities=[shown(name) for name in spec.modalities],
        classes=[shown(name) for name in classes],
        combinations=list(_combinations(groups, metrics, calibration)),
        parts={part: metrics[part] for part in ("overall", "head", "tail", "unseen")},
        worst=metrics["worst"],
        calibration={key: calibration[key] for key in ("temperature", "conformal", "test")},
        class_counts={
            shown(name): test.filter(target=place)["subject"].n_unique() for place, name in enumerate(classes)
        },
        history=folder.read_table("history").to_dicts(),
        groups=groups.labels(),
        settings=yaml.safe_dump(config["recipe"], sort_keys=False, allow_unicode=True),
        environment=folder.read_json("environment"),
        comparison=comparison,
        findings=findings,
    )


def run_folders(target: Path) -> list[RunFolder]:
    """The finished run at a place, or those in it.

    Raises:
        RemindError: if there is none.
    """
    places = [target] if (target / "config.yaml").is_file() or not target.is_dir() else sorted(target.iterdir())
    if found := [folder for folder in map(RunFolder, places) if folder.finished]:
        return found
    raise RemindError(f"{target}: is neither a finished run nor a folder that holds some; train one first.")


def _comparison(target: Path, folders: Sequence[RunFolder]) -> dict[str, Any]:
    """The suite's own, or one made of the runs that are there."""
    if (target / "comparison.json").is_file():
        return read_json(target / "comparison.json")
    configs = [folder.config() for folder in folders]
    if len({config["fingerprint"] for config in configs}) > 1:
        raise RemindError(
            f"{target}: holds runs of several cohorts; report one run, or a folder of runs of one cohort."
        )
    runs = [
        Run(config["recipe"]["method"], config["recipe"]["seed"], folder.read_table("predictions").filter(split="test"))
        for folder, config in zip(folders, configs, strict=True)
    ]
    document = read_document(folders[0].model)
    spec, methods = CohortSpec.model_validate(document["spec"]), [run.method for run in runs]
    reference = "remind" if "remind" in methods else methods[-1]
    groups = GroupTable.from_json(document["groups"])
    compared = compare_runs(runs, groups, spec.label.classes, reference=reference)
    return {"cohort": spec.name, "modalities": list(spec.modalities), "trials": {}, "failed": [], **compared}


def _detailed(folders: Sequence[RunFolder], comparison: Mapping[str, Any]) -> RunFolder:
    """The first run of the reference method, or the first of all where that is none of ours."""
    recipes = [(folder.config()["recipe"], folder) for folder in folders]
    own = [
        (recipe["seed"], place)
        for place, (recipe, _) in enumerate(recipes)
        if recipe["method"] == comparison["reference"]
    ]
    return folders[min(own)[1]] if own else folders[0]


def _finding(analyses: Path, name: str) -> dict[str, Any] | None:
    """What an analysis has written, if it has."""
    if not (analyses / f"{name}.json").is_file():
        return None
    found = read_json(analyses / f"{name}.json")
    says = [line["says"] for line in found["says"]]
    following = analyses / f"{name}-next.parquet"
    return {
        "says": says,
        "rows": found["rows"],
        "next": pl.read_parquet(following).to_dicts() if following.is_file() else [],
    }


def _combinations(
    groups: GroupTable, metrics: Mapping[str, Any], calibration: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A line for each combination of training or test, most frequent in training first.

    ``held``: which modalities it has; ``trained``: its training samples; ``n``, ``subjects`` and scores: of the test
    split, null where it has none; ``calibration``: its line of ``calibration.json``.
    """
    tested = {line["combination"]: line for line in metrics["combinations"]}
    checked = {line["combination"]: line for line in calibration["combinations"]}
    trained = dict(zip(groups.labels(), groups.counts, strict=True))
    nothing = dict.fromkeys(("accuracy", "macro_f1", "macro_auroc"))
    for place, name in enumerate(dict.fromkeys([*trained, *tested])):
        seen = tested.get(name)
        kind = "unseen" if name not in trained else "tail" if groups.tail[place] else "head"
        scores = seen or {"n": 0, "subjects": 0, "few": True, "intervals": {}, **nothing}
        held = name.split("+")
        yield {
            "name": name,
            "label": shown(brief(name, groups.modalities)).replace("+", " + "),
            "held": [modality in held for modality in groups.modalities],
            "kind": kind,
            "trained": trained.get(name, 0),
            "share": trained.get(name, 0) / sum(groups.counts),
            **{key: scores[key] for key in ("n", "subjects", "few", "intervals", *nothing)},
            "calibration": checked.get(name),
        }
