"""``calibration.json``: what the validation split taught of a model's probabilities, and whether it holds on the test.

Everything is made from a run's table of predictions. The epoch was selected on the same validation samples, which is
why what is promised is checked on the test split and written beside it.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from remind.cohort.combination import GroupTable
from remind.engine.fitted import probability_columns
from remind.evaluation.calibration import Temperatures, fit_temperatures, reliability, subject_shares
from remind.evaluation.conformal import Thresholds, fit_thresholds
from remind.evaluation.intervals import ENOUGH, too_few, wilson
from remind.evaluation.report import parts_of

COVERAGE = 0.9


@dataclass(frozen=True)
class Calibration:
    """Temperatures, and thresholds of sets of classes."""

    temperatures: Temperatures
    thresholds: Thresholds
    classes: list[str]

    @classmethod
    def fit(cls, validation: pl.DataFrame, classes: list[str], *, coverage: float = COVERAGE) -> "Calibration":
        """From the predictions of the validation split."""
        probability = validation.select(probability_columns(classes)).to_numpy()
        target, group = validation["target"].to_numpy(), validation["group"].to_numpy()
        subjects = validation["subject"].to_numpy()
        temperatures = fit_temperatures(probability, target, group, subjects)
        calibrated = temperatures.applied(probability, group)
        return cls(temperatures, fit_thresholds(calibrated, target, group, subjects, coverage=coverage), classes)

    def of(self, predictions: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated probabilities ``float64 [n, c]``, and which classes are in the set of each sample, ``bool``."""
        group = predictions["group"].to_numpy()
        probability = predictions.select(probability_columns(self.classes)).to_numpy()
        calibrated = self.temperatures.applied(probability, group)
        return calibrated, self.thresholds.sets(calibrated, group)

    def to_json(self) -> dict[str, Any]:
        """As plain data, groups by their numbers."""
        return {"temperature": self.temperatures._asdict(), "conformal": self.thresholds._asdict()}


class Seen(NamedTuple):
    """Test samples: probabilities as the model gives them and calibrated, sets, true classes."""

    raw: Float[np.ndarray, "n c"]
    calibrated: Float[np.ndarray, "n c"]
    sets: Bool[np.ndarray, "n c"]
    target: Int[np.ndarray, " n"]
    subjects: np.ndarray

    def part(self, rows: Bool[np.ndarray, " n"]) -> dict[str, Any]:
        """Of some samples: reliability as the model is and once calibrated, and how often the set held the truth."""
        raw, calibrated, sets, target, subjects = (part[rows] for part in self)
        count = len(np.unique(subjects))
        found: dict[str, Any] = {"n": len(target), "subjects": count}
        if count < ENOUGH:
            return found | too_few(count)
        weight = subject_shares(subjects)  # what is promised is of a new subject's sample
        share = float(weight @ sets[np.arange(len(target)), target] / weight.sum())
        return found | {
            "raw": reliability(raw, target, subjects),
            "calibrated": reliability(calibrated, target, subjects),
            "coverage": {"share": share, **wilson(share, count)},
            "set_size": float(sets.sum(axis=1).mean()),
        }


def calibrate(
    predictions: pl.DataFrame, groups: GroupTable, classes: list[str], *, coverage: float = COVERAGE
) -> dict[str, Any]:
    """Fit on the validation split, check on the test split: overall, head, tail, unseen, and every combination."""
    fitted = Calibration.fit(predictions.filter(split="validation"), classes, coverage=coverage)
    test = predictions.filter(split="test")
    group = test["group"].to_numpy()
    raw, target = test.select(probability_columns(classes)).to_numpy(), test["target"].to_numpy()
    seen = Seen(raw, *fitted.of(test), target, test["subject"].to_numpy())
    lines = []
    for name in test["combination"].unique(maintain_order=True).sort():
        rows = (test["combination"] == name).to_numpy()
        one = int(group[rows][0])
        own = {"temperature": float(fitted.temperatures.of(group[rows][:1])[0]), "held": fitted.thresholds.by(one)}
        lines.append({"combination": name, **own, **seen.part(rows)})
    lines.sort(key=lambda line: (-line["n"], line["combination"]))
    return {
        **fitted.to_json(),
        "test": {name: seen.part(rows) for name, rows in parts_of(group, groups).items()},
        "combinations": lines,
    }
