"""Samples of rare modality combinations weigh more: the paper's column "Reweigh"."""

from typing import Annotated

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from remind.cohort.batch import Batch
from remind.objectives import Criterion, Loss, Objective
from remind.registry import Amount, Share


class Reweigh(Objective):
    """The mean of ``w_k loss_i``, with one fixed weight for all samples of group ``k``, about 1 on average.

    The paper cites logit adjustment for its column, but what an adjustment adds for a group is the same for all
    classes and cancels in the softmax; so this is the other classic of that line, weights against the groups' shares.

    Args:
        counts: training samples of each group and class.
        criterion: the loss of single samples.
        tau: ``w_k`` goes as ``n_k^-tau``: 1 gives every group the same say, 0 is the plain mean.
        beta: if given, ``w_k`` goes as ``(1 - beta) / (1 - beta^n_k)`` instead (Cui et al. 2019); 0.9999 is theirs.
        cap: the largest weight over the smallest. Ours, since the smallest groups are single people.
    """

    tries = {"tau": (0.25, 0.5, 1.0)}
    sizes: Tensor  # float64 [g]
    weights: Tensor  # float64 [g], of one sample of each group

    def __init__(
        self,
        counts: Int[Tensor, "g c"],
        criterion: Criterion,
        *,
        tau: Amount = 1.0,
        beta: Share | None = None,
        cap: Annotated[float, Field(ge=1)] = 50.0,
    ) -> None:
        super().__init__()
        self.criterion = criterion
        sizes = counts.sum(1).double()
        rarity = sizes**-tau if beta is None else (1 - beta) / (1 - beta**sizes)
        rarity = rarity.clamp_max(cap * rarity.min())
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("weights", rarity * sizes.sum() / (sizes * rarity).sum(), persistent=False)

    def forward(self, model: nn.Module, batch: Batch) -> Loss:
        """Weighted mean loss."""
        output = model(batch)
        losses = self.criterion(output.logits, batch.target)
        return Loss((self.weights[batch.group].to(losses) * losses).mean(), losses, output)

    def group_weights(self) -> Float[Tensor, " g"]:
        """What all samples of a group weigh together, of 1."""
        return self.sizes * self.weights / self.sizes.sum()
