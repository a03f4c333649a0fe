"""Gradient consistency of a model: on equally many training samples of every group that has as many."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from remind.cohort.dataset import CohortDataset
from remind.engine.device import to_device
from remind.engine.fitted import evaluating
from remind.errors import RemindError
from remind.model import Model
from remind.nn.consistency import consistency
from remind.nn.gradient_gram import gradient_gram, has_rules, plain_gram

PER_GROUP = 16


class GradientProbe:
    """Measures a model as it stands, without dropout, by the gradients of the fusion's parameters.

    Args:
        dataset: samples to draw from; which are drawn follows from ``seed`` alone.
        criterion: the loss of single samples.

    Raises:
        RemindError: if fewer than two groups have enough samples.
    """

    def __init__(self, dataset: CohortDataset, criterion: Callable[[Tensor, Tensor], Tensor], *, seed: int) -> None:
        self.dataset, self.criterion = dataset, criterion
        rng, group = np.random.default_rng(seed), dataset.group.numpy()
        size = np.bincount(group[group >= 0])
        self.groups = np.flatnonzero(size >= PER_GROUP)
        if len(self.groups) < 2:
            raise RemindError(
                f"gradient consistency compares combinations of {PER_GROUP} training samples or more; there are "
                f"{len(self.groups)}. Set train.gradients_every=0, or bring more samples."
            )
        drawn = [rng.choice(np.flatnonzero(group == one), PER_GROUP, replace=False) for one in self.groups]
        self.drawn = np.concatenate(drawn).tolist()

    def measure(self, model: Model) -> list[dict[str, Any]]:
        """A row a group: its number, and its consistency with all, by dominant directions and by mean gradients."""
        learns = [parameter.requires_grad for parameter in model.fusion.parameters()]
        model.fusion.requires_grad_(True)
        batch = to_device(self.dataset.__getitems__(self.drawn), next(model.parameters()).device)
        try:
            with evaluating(model):
                encoded = model.encode(batch)

                def losses() -> Tensor:
                    return self.criterion(model.classify(model.fusion(encoded)).logits, batch.target)

                gram = (gradient_gram if has_rules(model.fusion) else plain_gram)(model.fusion, losses)
        finally:
            for parameter, before in zip(model.fusion.parameters(), learns, strict=True):
                parameter.requires_grad_(before)
        if not bool(gram.isfinite().all()):
            return []  # of weights that have just diverged, of which the next step tells
        found = consistency(gram.cpu(), torch.arange(len(self.groups)).repeat_interleave(PER_GROUP))
        rows = zip(self.groups.tolist(), found.dominant.tolist(), found.mean.tolist(), strict=True)
        return [{"group": group, "dominant": dominant, "mean": mean} for group, dominant, mean in rows]
