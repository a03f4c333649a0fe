"""What anyone would try first: logistic regression and boosted trees on the flat table, with missing indicators.

They stand beside the methods in a comparison, as a reference; files, texts and embeddings enter only as there or not.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from remind.cohort.cohort import Cohort
from remind.cohort.combination import Combination
from remind.engine.fitted import probability_columns
from remind.modalities.tabular import TabularTransform


def _logistic_regression(seed: int, *, strength: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))


def _gradient_boosting(seed: int, *, rate: float, trees: int, leaves: int) -> Any:
    return HistGradientBoostingClassifier(learning_rate=rate, max_iter=trees, max_leaf_nodes=leaves, random_state=seed)


# What makes each model, and the settings it tries, best guess first.
REFERENCES: dict[str, tuple[Callable[..., Any], list[dict[str, Any]]]] = {
    "logistic-regression": (
        _logistic_regression,
        [{"strength": strength} for strength in (0.1, 1.0, 0.01, 0.03, 0.3, 0.003, 3.0, 0.001)],
    ),
    "gradient-boosting": (
        _gradient_boosting,
        [
            {"rate": rate, "trees": trees, "leaves": leaves}
            for rate, trees, leaves in (
                *((0.05, 150, 31), (0.05, 75, 31), (0.05, 150, 8), (0.1, 75, 8)),
                *((0.03, 150, 31), (0.03, 300, 8), (0.1, 50, 31), (0.03, 300, 4)),
            )
        ],
    ),
}


def reference_predictions(cohort: Cohort, name: str, seed: int, trials: int = 1) -> pl.DataFrame:
    """Fit on the training split, predict the test split; the columns are those of a run's predictions.

    Of the first ``trials`` settings, as far as there are so many, the one with the least log loss on validation.
    """
    x, training, test = flat_table(cohort), cohort.rows("train"), cohort.rows("test")
    make, settings = REFERENCES[name]
    fitted = [make(seed, **chosen).fit(x[training], cohort.target[training]) for chosen in settings[:trials]]
    model = min(fitted, key=lambda one: _validation_loss(one, x, cohort)) if len(fitted) > 1 else fitted[0]
    return pl.DataFrame(
        {
            "id": [cohort.ids[row] for row in test],
            "subject": cohort.subjects[test],
            "split": "test",
            "combination": [Combination.of(mask).label(cohort.modalities) for mask in cohort.available[test]],
            "group": cohort.groups.index(cohort.available[test]),
            "target": cohort.target[test],
            **dict(zip(probability_columns(cohort.classes), _probability(model, x[test], cohort).T, strict=True)),
            "opened": False,
        }
    )


def _validation_loss(model: Any, x: np.ndarray, cohort: Cohort) -> float:
    rows = cohort.rows("validation")
    likelihood = _probability(model, x[rows], cohort)[np.arange(len(rows)), cohort.target[rows]]
    return float(-np.log(likelihood.clip(1e-15)).mean())


def _probability(model: Any, x: np.ndarray, cohort: Cohort) -> np.ndarray:
    """Of every class of the cohort, those without a training sample included."""
    probability = np.zeros((len(x), len(cohort.classes)))
    probability[:, model.classes_] = model.predict_proba(x)
    return probability


def flat_table(cohort: Cohort) -> np.ndarray:
    """Standardised numbers, one-hot categories, indicators of empty cells and of missing modalities, ``[n, f]``.

    Statistics come from the training rows.
    """
    training, everyone, columns = cohort.rows("train"), np.arange(len(cohort)), []
    for name, modality in cohort.spec.modalities.items():
        if modality.kind != "tabular":
            continue
        transform = TabularTransform.fit(cohort.cells(name, training), {})
        table = transform.apply(cohort.cells(name, everyone).frame)
        columns += [table.numbers.numpy(), ~table.observed.numpy()]
        columns += [
            np.eye(size)[codes] for size, codes in zip(transform.shape.categories, table.codes.numpy().T, strict=True)
        ]
    return np.concatenate([*columns, ~cohort.available], axis=1)
