"""Logit adjustment (Menon et al. 2021; google-research/logit_adjustment) within modality combinations."""

from jaxtyping import Int
from torch import Tensor, nn

from remind.cohort.batch import Batch
from remind.objectives import Criterion, Loss, Objective
from remind.registry import Amount

FLOOR = 1e-12  # of a share, theirs: keeps the logarithm finite


class LogitAdjust(Objective):
    """The mean criterion of ``logits + tau log pi[y | k]`` for training samples of group ``k``; predictions are plain.

    Theirs adds the shares of the classes, ``pi[y]``. Ours are those within the sample's group, so that in every group
    the classes count alike; shares of the groups themselves would add the same to all classes, and do nothing. Those
    of a small group are drawn towards everybody's: ``pi[y | k] = (n_ky + m pi[y]) / (n_k + m)``.

    Args:
        counts: training samples of each group and class.
        criterion: the loss of single samples.
        tau: strength; with 1, the logits' softmax without the adjustment is what minimises the balanced error.
        prior_weight: ``m``, how many samples everybody's shares are worth; None: ten a class.
    """

    tries = {"tau": (0.25, 0.5, 1.0)}
    offset: Tensor  # float64 [g, c]

    def __init__(
        self,
        counts: Int[Tensor, "g c"],
        criterion: Criterion,
        *,
        tau: Amount = 1.0,
        prior_weight: Amount | None = None,
    ) -> None:
        super().__init__()
        self.criterion = criterion
        m = 10 * counts.shape[1] if prior_weight is None else prior_weight
        everybody = counts.sum(0) / counts.sum().double()
        share = (counts + m * everybody) / (counts.sum(1, keepdim=True) + m)
        self.register_buffer("offset", tau * share.clamp_min(FLOOR).log(), persistent=False)

    def forward(self, model: nn.Module, batch: Batch) -> Loss:
        """Mean loss of the adjusted logits."""
        output = model(batch)
        adjusted = output.logits + self.offset[batch.group].to(output.logits)
        losses = self.criterion(output.logits, batch.target)
        return Loss(self.criterion(adjusted, batch.target).mean(), losses, output)
