"""Group distributionally robust optimisation over modality combinations (Eq. 2-4; Sagawa et al. 2020)."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from remind.cohort.batch import Batch
from remind.objectives import Criterion, Loss, Objective, per_group
from remind.registry import Amount, Positive


class GroupDRO(Objective):
    """Minimise ``sum_k lambda_k R_k`` while ``lambda`` climbs towards the groups with the largest risk ``R_k``.

    A group that no batch has shown since the last refresh keeps its last known risk, and one that none has shown yet
    has the mean. Were its risk 0, as in the official code, it would lose weight at every refresh, only for being rare.

    Args:
        counts: training samples of each group and class.
        criterion: the loss of single samples.
        step_size: Eq. 4's ``gamma``.
        refresh_every: optimiser steps between refreshes of the weights, ``N``.
        estimate: how a batch estimates the weighted risk. ``importance`` weighs sample ``i`` by
            ``lambda_k / share_k`` in the plain mean: unbiased. ``group_means`` is Eq. 3 to the letter: a lone sample
            of a rare group carries the weight of its whole group, and groups absent from the batch carry none.
        start: first weights: the groups' ``shares`` (the objective starts as the plain mean) or ``uniform``.
        adjustment: Sagawa et al.'s ``C``: ``C / sqrt(n_k)`` is added to a group's risk before the weights move.
        cap: the largest ``lambda_k / share_k`` the loss uses; keeps a handful of samples from being memorised.
    """

    tries = {"step_size": (0.02, 0.1, 0.5)}
    shares: Tensor  # float64 [g], of the training samples
    bonus: Tensor  # float64 [g], what the adjustment adds to each risk
    weights: Tensor  # float64 [g], on the simplex
    loss_sum: Tensor  # float64 [g], since the last refresh
    count: Tensor  # float64 [g], likewise
    risk: Tensor  # float64 [g], each group's last known
    known: Tensor  # bool [g], whether it has been seen at all
    steps: Tensor  # int64, taken so far

    def __init__(
        self,
        counts: Int[Tensor, "g c"],
        criterion: Criterion,
        *,
        step_size: Amount = 0.02,
        refresh_every: Positive = 10,
        estimate: Literal["importance", "group_means"] = "importance",
        start: Literal["shares", "uniform"] = "shares",
        adjustment: Amount = 0.0,
        cap: Annotated[float, Field(gt=0)] = 10.0,
    ) -> None:
        super().__init__()
        self.criterion, self.step_size, self.refresh_every = criterion, step_size, refresh_every
        self.estimate, self.cap = estimate, cap
        sizes = counts.sum(1).double()
        self.register_buffer("shares", sizes / sizes.sum(), persistent=False)
        self.register_buffer("bonus", adjustment / sizes.sqrt(), persistent=False)
        first = self.shares if start == "shares" else torch.full_like(self.shares, 1 / len(sizes))
        self.register_buffer("weights", first.clone())
        self.register_buffer("loss_sum", torch.zeros_like(self.shares))
        self.register_buffer("count", torch.zeros_like(self.shares))
        self.register_buffer("risk", torch.zeros_like(self.shares))
        self.register_buffer("known", torch.zeros_like(self.shares, dtype=torch.bool))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, model: nn.Module, batch: Batch) -> Loss:
        """The weighted risk, as the batch estimates it (Eq. 3)."""
        output = model(batch)
        losses = self.criterion(output.logits, batch.target)
        if self.estimate == "importance":
            each = (self.weights / self.shares).clamp_max(self.cap)[batch.group] / len(losses)
        else:
            size = per_group(torch.ones_like(self.shares[batch.group]), batch.group, len(self.shares))
            each = (self.weights / size.clamp_min(1))[batch.group]
        return Loss((each.to(losses) * losses).sum(), losses, output)

    @torch.no_grad()
    def after_step(self, batch: Batch, loss: Loss) -> None:
        """Remember the losses; every ``refresh_every`` steps, move the weights."""
        losses = loss.per_sample.detach().double()
        self.loss_sum += per_group(losses, batch.group, len(self.shares))
        self.count += per_group(torch.ones_like(losses), batch.group, len(self.shares))
        self.steps += 1
        if int(self.steps) % self.refresh_every == 0:
            self.risk.copy_(torch.where(self.count > 0, self.loss_sum / self.count, self.risk))
            self.known |= self.count > 0
            mean = (self.weights * self.risk)[self.known].sum() / self.weights[self.known].sum()
            risk = torch.where(self.known, self.risk, mean) + self.bonus
            self.weights.copy_(climb(self.weights, risk, self.step_size))
            self.loss_sum.zero_()
            self.count.zero_()

    def group_weights(self) -> Float[Tensor, " g"]:
        """``lambda``."""
        return self.weights


def climb(weights: Float[Tensor, " g"], risk: Float[Tensor, " g"], step_size: int | float) -> Float[Tensor, " g"]:
    """Eq. 4 in the log domain: ``lambda_k exp(gamma R_k)``, normalised."""
    return (weights.log() + step_size * risk).softmax(0)
