"""All that a page says of a run or a suite, as plain data: read from run folders alone, before it is drawn."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from remind.cohort.combination import GroupTable
from remind.cohort.spec import CohortSpec
from remind.engine.bundle import read_document
from remind.evaluation.report import evaluate_predictions, parts_of
from remind.evaluation.resampling import METRICS
from remind.evaluation.trust import calibrate
from remind.report.folders import comparison_of, detailed, finding_of, identity, named, run_folders
from remind.report.names import shown
from remind.report.tables import brief

FINDINGS = ("modalities", "experts", "gradients")
PARTS = ("overall", "head", "tail", "unseen")


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
    environment: dict[str, str]
    visits: bool  # whether a patient may have several samples
    comparison: dict[str, Any] | None = None  # as ``comparison.json``
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)  # by analysis: rows
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
    comparison = comparison_of(target, folders)
    folder = detailed(folders, comparison)
    config, document = folder.config(), read_document(folder.model)
    spec, groups = CohortSpec.model_validate(document["spec"]), GroupTable.from_json(document["groups"])
    predictions, classes = folder.read_table("predictions"), spec.label.classes
    test = predictions.filter(split="test")
    metrics = evaluate_predictions(test, groups, classes)
    calibration = calibrate(predictions, groups, classes)
    runs = {named(one): identity(one.path) for one in folders}
    findings = {name: found for name in FINDINGS if (found := finding_of(analyses, name, runs))}
    return Content(
        cohort=shown(spec.name),
        method=config["recipe"]["method"],
        seed=config["recipe"]["seed"],
        place=shown(folder.path.resolve().name),
        tail_below=groups.tail_below,
        modalities=[shown(name) for name in spec.modalities],
        classes=[shown(name) for name in classes],
        combinations=list(_combinations(groups, metrics, calibration, test)),
        parts={part: metrics[part] | {"smallest": _smallest(test, groups, part)} for part in PARTS},
        worst=metrics["worst"],
        calibration={key: calibration[key] for key in ("temperature", "conformal", "test")},
        class_counts={
            shown(name): test.filter(target=place)["subject"].n_unique() for place, name in enumerate(classes)
        },
        history=folder.read_table("history").to_dicts(),
        groups=groups.labels(),
        settings=shown(yaml.safe_dump(config["recipe"], sort_keys=False, allow_unicode=True), but="\n"),
        environment={shown(key): shown(str(value)) for key, value in folder.read_json("environment").items()},
        visits=predictions["subject"].n_unique() < predictions.height,
        comparison=comparison,
        findings=findings,
    )


def _combinations(
    groups: GroupTable, metrics: Mapping[str, Any], calibration: Mapping[str, Any], test: pl.DataFrame
) -> Iterator[dict[str, Any]]:
    """A line for each combination of training or test, most frequent in training first.

    ``held``: which modalities it has; ``trained``: its training samples; ``n``, ``subjects`` and scores: of the test
    split, null where it has none; ``smallest``: test subjects of the smallest class that is there; ``calibration``: its
    line of ``calibration.json``.
    """
    tested = {line["combination"]: line for line in metrics["combinations"]}
    checked = {line["combination"]: line for line in calibration["combinations"]}
    trained = dict(zip(groups.labels(), groups.counts, strict=True))
    of_class = test.group_by("combination", "target").agg(pl.col("subject").n_unique()).group_by("combination")
    smallest = dict(of_class.agg(pl.col("subject").min()).iter_rows())
    nothing = dict.fromkeys(METRICS)
    for place, name in enumerate(dict.fromkeys([*trained, *tested])):
        seen = tested.get(name)
        scores = seen or {"n": 0, "subjects": 0, "few": True, "intervals": {}, **nothing}
        held = name.split("+")
        yield {
            "name": name,
            "label": shown(brief(name, groups.modalities)).replace("+", " + "),
            "held": [modality in held for modality in groups.modalities],
            "kind": groups.kind(place if name in trained else -1),
            "trained": trained.get(name, 0),
            "share": trained.get(name, 0) / sum(groups.counts),
            **{key: scores[key] for key in ("n", "subjects", "few", "intervals", *nothing)},
            "smallest": smallest.get(name, 0),
            "calibration": checked.get(name),
        }


def _smallest(test: pl.DataFrame, groups: GroupTable, part: str) -> int:
    """Test subjects of the smallest class that is in a part."""
    rows = parts_of(test["group"].to_numpy(), groups)[part]
    counts = test.filter(rows).group_by("target").agg(pl.col("subject").n_unique())["subject"].to_list()
    return min(counts, default=0)
