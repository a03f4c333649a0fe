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

REFERENCES: dict[str, Callable[[int], Any]] = {
    "logistic-regression": lambda seed: make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)),
    "gradient-boosting": lambda seed: HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=150, random_state=seed
    ),
}


def reference_predictions(cohort: Cohort, name: str, seed: int) -> pl.DataFrame:
    """Fit on the training split, predict the test split; the columns are those of a run's predictions."""
    x, training, test = flat_table(cohort), cohort.rows("train"), cohort.rows("test")
    model = REFERENCES[name](seed).fit(x[training], cohort.target[training])
    probability = np.zeros((len(test), len(cohort.classes)))
    probability[:, model.classes_] = model.predict_proba(x[test])
    return pl.DataFrame(
        {
            "id": [cohort.ids[row] for row in test],
            "subject": cohort.subjects[test],
            "split": "test",
            "combination": [Combination.of(mask).label(cohort.modalities) for mask in cohort.available[test]],
            "group": cohort.groups.index(cohort.available[test]),
            "target": cohort.target[test],
            **dict(zip(probability_columns(cohort.classes), probability.T, strict=True)),
            "opened": False,
        }
    )


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
