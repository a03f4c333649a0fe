"""Objectives: how the losses of single samples become one loss, and what is remembered between steps."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from remind.cohort.batch import Batch
from remind.registry import Registry
from remind.types import Output

Criterion = Callable[[Tensor, Tensor], Tensor]  # logits [b, c], target [b] -> losses [b]


class Loss(NamedTuple):
    """What an objective makes of a batch. ``per_sample`` is the criterion of ``output``, whatever ``total`` is."""

    total: Float[Tensor, ""]
    per_sample: Float[Tensor, " b"]
    output: Output


class Objective(nn.Module, ABC):
    """Built as ``X(counts, criterion, *, hyperparameters)``, ``counts`` being the training samples of each
    group and class, ``[g, c]``.

    Whatever it remembers is a buffer, so that a restart loses nothing.
    """

    tries: ClassVar[Mapping[str, tuple[Any, ...]]] = {}  # values of its settings that are worth a trial
    of_outputs: ClassVar[bool] = True  # whether it needs only a model's outputs; else a batch must be in one process

    @abstractmethod
    def forward(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss to minimise."""

    def check(self, model: nn.Module) -> None:
        """Called once before training; raises a ``RemindError`` if the model is none that this can train."""

    def after_step(self, batch: Batch, loss: Loss) -> None:
        """Called once after each optimiser step."""

    def after_epoch(self) -> None:
        """Called once after the last step of each epoch."""

    def batch_shares(self) -> Float[Tensor, "g c"] | None:
        """What part of the samples drawn is of each group and class; None: each sample comes once an epoch.

        It may change between epochs, and only then.
        """
        return None

    def group_weights(self) -> Float[Tensor, " g"] | None:
        """The weight of each group, where the objective has such a thing."""
        return None


def per_group(values: Float[Tensor, " b"], group: Int[Tensor, " b"], groups: int) -> Float[Tensor, " g"]:
    """Sum of the values of each group."""
    return torch.zeros(groups, dtype=values.dtype, device=values.device).index_add(0, group, values)


OBJECTIVES = Registry(
    "objective",
    {
        "erm": "remind.objectives.erm:ERM",
        "fair_mixup": "remind.objectives.fair_mixup:FairMixup",
        "reweigh": "remind.objectives.reweigh:Reweigh",
        "logit_adjust": "remind.objectives.logit_adjust:LogitAdjust",
        "group_dro": "remind.objectives.group_dro:GroupDRO",
        "fair_batch": "remind.objectives.fair_batch:FairBatch",
    },
)
