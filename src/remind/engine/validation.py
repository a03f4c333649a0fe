"""The validation score that stops and selects: the same rule for every method."""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from remind.cohort.dataset import CohortDataset
from remind.engine.distributed import Team
from remind.engine.fitted import forward
from remind.nn.losses import focal_loss


class Validation(NamedTuple):
    """What a model does on the validation split."""

    loss: float  # mean focal loss
    accuracy: float
    macro_auroc: float  # mean over the classes that have both kinds of samples; NaN if none has
    correct: np.ndarray  # bool [n]

    def score(self, select: str) -> float:
        """What selection maximises."""
        return -self.loss if select == "loss" else self.macro_auroc


def validate(model: nn.Module, dataset: CohortDataset, team: Team, *, size: int, focal_gamma: float) -> Validation:
    """Run the model over the validation split, ``size`` samples at a time; each rank over its part of it."""
    rows = team.rows(len(dataset))
    own = torch.cat([output.logits for _, output in forward(model, dataset, size=size, rows=rows)])
    logits = team.gather(own, len(dataset)).double().cpu()
    target = dataset.target
    correct = (logits.argmax(1) == target).numpy()
    loss = float(focal_loss(logits, target, gamma=focal_gamma).mean())
    probabilities = logits.softmax(1).numpy()
    curves = [
        roc_auc_score(target == place, probabilities[:, place])
        for place in range(probabilities.shape[1])
        if 0 < int((target == place).sum()) < len(target)
    ]
    return Validation(loss, float(correct.mean()), float(np.mean(curves)) if curves else float("nan"), correct)
