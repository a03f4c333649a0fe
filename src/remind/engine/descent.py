"""How the weights move in a stage: AdamW at the stage's rates, gradients clipped, a schedule over its epochs."""

from typing import Any

import torch
from jaxtyping import Int
from lightning_fabric import Fabric
from torch import Tensor, nn

from remind.config import TrainSettings
from remind.engine.lazy_adamw import LazyAdamW
from remind.model import Model


class Descent:
    """The optimiser of a stage.

    Tables of the groups' own parameters that are longer than a batch are ``lazy``: a step moves the rows of the groups
    in its batch, and costs what those cost; on a CPU, for to a GPU a whole table is less than its looking up
    (docs/performance.md). ``fetch`` a batch's rows before they are read, ``settle`` all of them
    before anything else reads them.

    Args:
        lr: the stage's rate; the groups' own parameters have ``group_lr`` times it.
        lazily: whether tables may be lazy.
    """

    def __init__(
        self, fabric: Fabric, model: Model, settings: TrainSettings, *, lr: float, decay: float, lazily: bool
    ) -> None:
        self.fabric, self.model, self.settings = fabric, model, settings
        of_groups = model.fusion.of_groups()
        own = {id(parameter) for parameter in of_groups}
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        parts = [
            {"params": [one for one in learned if id(one) not in own], "lr": lr},
            {"params": [one for one in learned if id(one) in own], "lr": lr * settings.group_lr},
        ]
        long = any(len(table) > settings.batch_size for table in of_groups)
        self.tables = of_groups if lazily and long and fabric.device.type == "cpu" else []
        self.lazy = LazyAdamW(parts, weight_decay=decay, fused=True) if self.tables else None
        if self.lazy:
            model.fusion.sparsely()
        self.optimizer = self.lazy or torch.optim.AdamW(parts, weight_decay=decay, fused=True)
        self.wrapped: Any = fabric.setup_optimizers(self.optimizer)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, settings.lr_step, settings.lr_gamma)

    def fetch(self, group: Int[Tensor, " b"]) -> None:
        """Have the rows of these groups up to date."""
        if self.lazy:
            rows = self.model.fusion.places(group)
            rows = rows[rows >= 0].unique()
            for table in self.tables:
                self.lazy.fetch(table, rows)

    def settle(self) -> None:
        """Have all rows up to date."""
        if self.lazy:
            self.lazy.settle()

    def clip(self, module: nn.Module) -> None:
        """Shorten the gradients to the norm that the settings allow.

        Raises:
            RuntimeError: if their norm is not finite.
        """
        if self.lazy:
            _clip(self.model, self.settings.clip)
        else:
            self.fabric.clip_gradients(module, self.wrapped, max_norm=self.settings.clip)

    def step(self) -> None:
        """Move the weights, forget the gradients."""
        self.wrapped.step()
        self.wrapped.zero_grad()


def _clip(model: nn.Module, most: float) -> None:
    """As ``torch.nn.utils.clip_grad_norm_``, which takes no sparse gradients."""
    dense, rows = [], []
    for parameter in model.parameters():
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            rows.append(parameter.grad.values())
        elif parameter.grad is not None:
            dense.append(parameter)
    norm = nn.utils.get_total_norm([*(one.grad for one in dense), *rows], error_if_nonfinite=True)
    nn.utils.clip_grads_with_norm_(dense, most, norm)
    for values in rows:
        values.mul_((most / (norm + 1e-6)).clamp(max=1.0))
