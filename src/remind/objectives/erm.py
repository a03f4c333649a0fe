"""Empirical risk minimisation: the plain mean."""

from jaxtyping import Int
from torch import Tensor, nn

from remind.cohort.batch import Batch
from remind.objectives import Criterion, Loss, Objective


class ERM(Objective):
    """The mean loss of the batch; every sample counts the same."""

    def __init__(self, counts: Int[Tensor, "g c"], criterion: Criterion) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, model: nn.Module, batch: Batch) -> Loss:
        """Mean loss."""
        output = model(batch)
        losses = self.criterion(output.logits, batch.target)
        return Loss(losses.mean(), losses, output)
