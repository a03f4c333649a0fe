"""Fair Mixup (Chuang and Mroueh 2021; chingyaoc/fair-mixup) between modality combinations."""

from typing import Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from remind.cohort.batch import Batch
from remind.errors import RemindError
from remind.nn.mixing import STEP, slope, without_dropout
from remind.objectives import Criterion, Loss, Objective, per_group
from remind.registry import Amount, Positive
from remind.types import Encoded, Fused, Output, Tokens

KEEP = 0.9  # of a group's running loss, at each batch that holds some of it


@runtime_checkable
class Mixable(Protocol):
    """A fusion that can give every place of a sample something, so that it means the same in all of them."""

    def __call__(self, encoded: Encoded) -> Fused: ...  # noqa: D102
    def broadcast(self, encoded: Encoded) -> Tokens: ...  # noqa: D102
    def fuse(self, tokens: Tokens, group: Int[Tensor, " b"]) -> Fused: ...  # noqa: D102


class Parts(Protocol):
    """A model, as the steps that it takes."""

    fusion: Mixable

    def encode(self, batch: Batch) -> Encoded: ...  # noqa: D102
    def classify(self, fused: Fused) -> Output: ...  # noqa: D102


class FairMixup(Objective):
    """The mean loss, and ``weight`` times how fast the mean prediction changes from one group of the batch to another.

    With ``Z(t) = t Z_a + (1 - t) Z_b`` of random samples ``a`` and ``b`` of the two groups, and one random ``t``, that
    is ``sum_c |mean d/dt p_c(Z(t))|``. Theirs mixes inputs, or what an encoder makes of them. Ours mixes the fusion's
    tokens once what is missing is filled, since the inputs of two combinations have no places in common. Theirs draws
    a batch of each group; ours draws pairs with replacement from the batch that every method gets, half as many as it
    has samples. In the penalty there is no dropout, which would differ between the sides of a difference.

    Args:
        counts: training samples of each group and class.
        criterion: the loss of single samples.
        weight: theirs is 0.5 on Adult, of one of two probabilities; in our sum over the classes that is 0.25.
        pairs: which of the batch's groups: ``worst-best`` by running mean loss, or ``uniform``. Theirs are two anyway.
        mode: ``dp`` pairs any samples of the two groups, ``eo`` those of the same class, one class after the other.
        min_count: training samples a group must have to be paired: the mean of a few people's predictions is theirs.
    """

    tries = {"weight": (0.05, 0.25, 1.0)}
    of_outputs = False
    comparable: Tensor  # bool [g]
    running: Tensor  # float64 [g], mean losses
    seen: Tensor  # bool [g]

    def __init__(
        self,
        counts: Int[Tensor, "g c"],
        criterion: Criterion,
        *,
        weight: Amount = 0.25,
        pairs: Literal["worst-best", "uniform"] = "worst-best",
        mode: Literal["dp", "eo"] = "dp",
        min_count: Positive = 10,
    ) -> None:
        super().__init__()
        self.criterion, self.weight, self.pairs, self.mode = criterion, weight, pairs, mode
        self.register_buffer("comparable", counts.sum(1) >= min_count, persistent=False)
        self.register_buffer("running", torch.zeros(len(counts), dtype=torch.float64, device=counts.device))
        self.register_buffer("seen", torch.zeros_like(self.comparable))

    def check(self, model: nn.Module) -> None:
        """Refuse a fusion that leaves places empty."""
        if not isinstance(model.fusion, Mixable) or getattr(model.fusion, "imputation", None) is None:
            raise RemindError(
                "objective 'fair_mixup' mixes samples place by place, so the fusion must fill what is missing: take "
                "soft_moe, and not fusions.soft_moe.imputation=none."
            )

    def forward(self, model: nn.Module, batch: Batch) -> Loss:
        """Mean loss and penalty; the encoders run once."""
        parts = cast(Parts, model)
        encoded = parts.encode(batch)
        output = parts.classify(parts.fusion(encoded))
        losses = self.criterion(output.logits, batch.target)
        total = losses.mean()
        if (pair := self.pair(batch.group, losses)) is not None:

            def predict(tokens: Tokens) -> Float[Tensor, "m c"]:
                nobody = torch.full((len(tokens.values),), -1, device=tokens.values.device)  # a mixture has no group
                return parts.classify(parts.fusion.fuse(tokens, nobody)).logits.softmax(-1)

            values, log_count = parts.fusion.broadcast(encoded)
            device = values.device.type
            with without_dropout(model), torch.autocast(device, enabled=False):  # rounded to 8 bits, sides are alike
                for a, b in self.draw(batch, pair):
                    one, other = (Tokens(values[rows].to(log_count.dtype), log_count[rows]) for rows in (a, b))
                    t = STEP + (1 - 2 * STEP) * torch.rand((), dtype=log_count.dtype, device=values.device)
                    total = total + self.weight * slope(predict, one, other, t).mean(0).abs().sum()
        return Loss(total, losses, output)

    @torch.no_grad()
    def pair(self, group: Int[Tensor, " b"], losses: Float[Tensor, " b"]) -> tuple[int, int] | None:
        """Two groups of the batch, if it has two that can be compared."""
        present = group.unique()
        present = present[self.comparable[present]]
        if len(present) < 2:
            return None
        if self.pairs == "uniform":
            order = torch.randperm(len(present), device=group.device)
        else:
            order = self._followed(group, losses)[present].argsort(descending=True, stable=True)
        return int(present[order[0]]), int(present[order[-1]])

    def draw(self, batch: Batch, pair: tuple[int, int]) -> list[tuple[Int[Tensor, " n"], Int[Tensor, " n"]]]:
        """Rows of the one group and of the other, of any class or of each class that both have."""
        count, drawn = (len(batch.group) + 1) // 2, []
        of_classes = [batch.target == y for y in batch.target.unique()] if self.mode == "eo" else [batch.target >= 0]
        for chosen in of_classes:
            one, other = (((batch.group == k) & chosen).nonzero().ravel() for k in pair)
            if len(one) and len(other):
                a, b = (torch.randint(len(rows), (count,), device=rows.device) for rows in (one, other))
                drawn.append((one[a], other[b]))
        return drawn

    @torch.no_grad()
    def after_step(self, batch: Batch, loss: Loss) -> None:
        """Remember the losses."""
        self.running.copy_(self._followed(batch.group, loss.per_sample))
        self.seen[batch.group] = True

    def _followed(self, group: Int[Tensor, " b"], losses: Float[Tensor, " b"]) -> Float[Tensor, " g"]:
        """Running losses that include these; a group's first mean is taken as it is."""
        losses = losses.double()
        count = per_group(torch.ones_like(losses), group, len(self.running))
        mean = per_group(losses, group, len(self.running)) / count.clamp_min(1)
        after = torch.where(self.seen, KEEP * self.running + (1 - KEEP) * mean, mean)
        return torch.where(count > 0, after, self.running)
