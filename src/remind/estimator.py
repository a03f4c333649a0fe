"""REMIND, and every other method, as a scikit-learn classifier of tables whose cells may be paths and text."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from remind.api import fit_in_scratch
from remind.cohort.cohort import load
from remind.cohort.table import Frame, as_polars
from remind.config import Recipe, load_recipe
from remind.errors import RemindError, rows


class RemindClassifier(ClassifierMixin, BaseEstimator):
    """``RemindClassifier(modalities).fit(X, y).predict_proba(X)``.

    While it trains, a temporary folder holds the run and its features; it is removed in the end.

    Args:
        modalities: what ``cohort.yaml`` says under ``modalities``: the kind and the columns of each.
        method: a name from ``remind methods``.
        recipe: settings, as for ``remind.fit``.
        seed: draws the weights, the order of the samples, and the validation part.
        validation: the share of the subjects by which epochs are selected.
        root: where paths in the tables start.
    """

    def __init__(
        self,
        modalities: Mapping[str, Any],
        *,
        method: str = "remind",
        recipe: str | Path | Recipe | None = None,
        seed: int = 0,
        validation: float = 0.15,
        root: str | Path | None = None,
    ) -> None:
        self.modalities, self.method, self.recipe = modalities, method, recipe
        self.seed, self.validation, self.root = seed, validation, root

    def fit(
        self, X: Frame, y: Sequence[Any] | np.ndarray | pl.Series, groups: Iterable[Any] | None = None
    ) -> "RemindClassifier":
        """Train on a polars or pandas table. ``groups`` name the patient of each row, where one has several.

        Raises:
            RemindError: if the table does not hold what ``modalities`` names, or a label is missing.
        """
        table = as_polars(X)
        if len(y) != table.height:
            raise RemindError(f"y has {len(y)} labels for {table.height} rows; give one each.")
        if groups is not None and len(list(groups := list(groups))) != table.height:
            raise RemindError(f"groups has {len(groups)} names for {table.height} rows; give one each.")
        if empty := [row for row, label in enumerate(y) if _is_null(label)]:
            raise RemindError(f"{rows(empty)}: y is empty; drop those samples or label them.")
        self.classes_ = np.unique(np.asarray(y))
        row, subject, label = _free(table.columns, ("row", "subject", "label"))
        numbers = [f"{number:012d}" for number in range(1, table.height + 1)]
        spec = {
            "name": "table",
            "id": row,
            "subject": subject,
            "label": {"column": label, "classes": [str(name) for name in self.classes_]},
            "modalities": dict(self.modalities),
            "split": {"train": 1 - self.validation, "validation": self.validation, "test": 0, "seed": self.seed},
        }
        owners = numbers if groups is None else [str(group) for group in groups]
        table = table.with_columns(
            pl.Series(row, numbers), pl.Series(subject, owners), pl.Series(label, [str(name) for name in y])
        )
        cohort = load(table, spec, root=self.root)
        self.model_ = fit_in_scratch(cohort, load_recipe(self.recipe, method=self.method, seed=self.seed))
        return self

    def predict_proba(self, X: Frame) -> np.ndarray:
        """Class probabilities ``float64 [n, c]``, in the order of the rows and of ``classes_``."""
        check_is_fitted(self, "model_")
        return self.model_.predict_proba(X, root=self.root)

    def predict(self, X: Frame) -> np.ndarray:
        """The most probable class of each row, as ``y`` had it."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def _is_null(label: Any) -> bool:
    return label is None or type(label).__name__ == "NAType" or (isinstance(label, float) and math.isnan(label))


def _free(taken: Iterable[str], names: Sequence[str]) -> list[str]:
    """The names, each lengthened until no column has it."""
    found, used = [], set(taken)
    for name in names:
        while name in used:
            name += "_"
        found.append(name)
    return found
