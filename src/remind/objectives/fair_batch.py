"""FairBatch (Roh et al. 2021) over modality combinations: batches hold more of the group that fares worst."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remind.cohort.batch import Batch
from remind.objectives import Criterion, Loss, Objective, per_group
from remind.registry import Amount, Positive, Share


class FairBatch(Objective):
    """The mean loss of batches in which group ``k`` has the share ``lambda_k``, which moves once an epoch.

    Theirs compares two groups; with more of them, the two furthest apart (their appendix): the worse gains ``alpha``,
    the others lose in proportion. Ours are three things more. The losses are those of the epoch's own batches, where
    theirs runs once more over all data. Only groups of some size are compared: of a hundred combinations, most are a
    few people, and the worst mean of all is always among those; the rest keep their share. And ``floor``.

    Args:
        counts: training samples of each group and class.
        criterion: the loss of single samples.
        alpha: what ``lambda`` moves in an epoch. Theirs is 0.005 for 300 epochs; ours goes as far in 30.
        mode: ``group`` equals losses of groups. ``class_group`` equals those of groups within each class (equalised
            odds): each class keeps its share, and the one that is furthest apart moves.
        floor: the part of its first value at which a compared share stops falling, before shares are made to sum to 1.
        min_count: training samples that a group, or a class of it, must have to be compared.
    """

    tries = {"alpha": (0.01, 0.05, 0.1)}
    counts: Tensor  # float64 [g, c]
    sizes: Tensor  # float64 [g, k] of what is compared; k is 1, or the number of classes
    weights: Tensor  # float64 [g, k], lambda; each column sums to 1
    loss_sum: Tensor  # float64 [g, k], in this epoch
    count: Tensor  # float64 [g, k], likewise

    def __init__(
        self,
        counts: Int[Tensor, "g c"],
        criterion: Criterion,
        *,
        alpha: Amount = 0.05,
        mode: Literal["group", "class_group"] = "group",
        floor: Share = 0.1,
        min_count: Positive = 10,
    ) -> None:
        super().__init__()
        self.criterion, self.alpha, self.floor, self.min_count = criterion, alpha, floor, min_count
        self.register_buffer("counts", counts.double(), persistent=False)
        sizes = self.counts.sum(1, keepdim=True) if mode == "group" else self.counts
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("weights", self._start())
        self.register_buffer("loss_sum", torch.zeros_like(sizes))
        self.register_buffer("count", torch.zeros_like(sizes))

    def _start(self) -> Float[Tensor, "g k"]:
        return self.sizes / self.sizes.sum(0).clamp_min(1)

    def forward(self, model: nn.Module, batch: Batch) -> Loss:
        """Mean loss."""
        output = model(batch)
        losses = self.criterion(output.logits, batch.target)
        return Loss(losses.mean(), losses, output)

    @torch.no_grad()
    def after_step(self, batch: Batch, loss: Loss) -> None:
        """Remember the losses."""
        columns = self.sizes.shape[1]
        cell = batch.group * columns + (batch.target if columns > 1 else 0)
        losses = loss.per_sample.detach().double()
        self.loss_sum += per_group(losses, cell, self.sizes.numel()).view_as(self.sizes)
        self.count += per_group(torch.ones_like(losses), cell, self.sizes.numel()).view_as(self.sizes)

    @torch.no_grad()
    def after_epoch(self) -> None:
        """Move ``lambda`` towards the worse end of the widest gap."""
        risk = self.loss_sum / self.count.clamp_min(1)
        compared = (self.count > 0) & (self.sizes >= self.min_count)
        worst, at = risk.masked_fill(~compared, -torch.inf).max(0)
        gap = worst - risk.masked_fill(~compared, torch.inf).amin(0)
        here = int(gap.argmax())
        if gap[here] > 0:
            floor = self.floor * self._start()[:, here]
            self.weights[:, here] = raised(self.weights[:, here], int(at[here]), compared[:, here], self.alpha, floor)
        self.loss_sum.zero_()
        self.count.zero_()

    def batch_shares(self) -> Float[Tensor, "g c"]:
        """``lambda`` between what is compared; as in the training samples within it."""
        return self.weights * (self.sizes.sum(0) / self.sizes.sum()) * (self.counts / self.sizes.clamp_min(1))

    def group_weights(self) -> Float[Tensor, " g"]:
        """The share of each group."""
        return self.batch_shares().sum(1)


def raised(
    weights: Float[Tensor, " g"], worst: int, compared: Bool[Tensor, " g"], alpha: float, floor: Float[Tensor, " g"]
) -> Float[Tensor, " g"]:
    """``worst`` gains ``alpha``, the others that were compared lose it in proportion; clipped, then of the same sum."""
    others = compared.clone()
    others[worst] = False
    left = 1 - alpha / weights[others].sum().clamp_min(1e-12)  # where they have nothing left, nothing is what they lose
    moved = torch.where(others, weights * left, weights)
    moved[worst] += alpha
    moved = torch.where(compared, moved.clamp_max(1).maximum(floor), moved)
    scale = weights[compared].sum() / moved[compared].sum()
    return torch.where(compared, moved * scale, moved)
