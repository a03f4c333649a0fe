"""Accuracy, macro F1 and macro AUROC, with a reason where one cannot be had."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score


class Scores(NamedTuple):
    """Of one set of samples. None where the samples do not allow the metric."""

    n: int
    accuracy: float | None
    macro_f1: float | None
    macro_auroc: float | None


def score(probability: Float[np.ndarray, "n c"], target: Int[np.ndarray, " n"]) -> Scores:
    """Score predictions.

    Macro F1 is the mean over the classes that are among the labels or the predictions. Macro AUROC is the mean of one
    class against the rest, over the classes of which there are both members and others; None if there is no such
    class.
    """
    if not len(target):
        return Scores(0, None, None, None)
    predicted = probability.argmax(axis=1)
    return Scores(
        len(target),
        float(accuracy_score(target, predicted)),
        float(f1_score(target, predicted, average="macro")),
        macro_auroc(probability, target),
    )


def macro_auroc(probability: Float[np.ndarray, "n c"], target: Int[np.ndarray, " n"]) -> float | None:
    """Mean AUROC of each class against the rest, over the classes that have both."""
    curves = [
        float(roc_auc_score(target == place, column))
        for place, column in enumerate(probability.T)
        if 0 < (target == place).sum() < len(target)
    ]
    return float(np.mean(curves)) if curves else None
