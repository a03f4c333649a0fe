"""Models anyone would try first: logistic regression and boosted trees on the flat table with missing indicators."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from remind.cohort.cohort import Cohort
from remind.modalities.tabular import TabularTransform


def features(cohort: Cohort) -> np.ndarray:
    """Standardised numbers, one-hot categories, indicators of empty cells and missing modalities, ``[n, f]``."""
    training, columns = cohort.rows("train"), []
    for name in cohort.modalities:
        transform = TabularTransform.fit(cohort.cells(name, training), {})
        table = transform.apply(cohort.samples)
        columns += [table.numbers.numpy(), ~table.observed.numpy()]
        columns += [
            np.eye(size)[codes] for size, codes in zip(transform.shape.categories, table.codes.numpy().T, strict=True)
        ]
    return np.concatenate([*columns, ~cohort.available], axis=1)


def simple_models(seed: int) -> dict:
    """By name; settings are scikit-learn's, but for the ridge and the learning rate."""
    return {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)),
        "gradient boosting": HistGradientBoostingClassifier(learning_rate=0.05, max_iter=150, random_state=seed),
    }
