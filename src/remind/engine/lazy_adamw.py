"""AdamW whose tables have sparse gradients: a row is moved when it is looked up, to where AdamW would have it by then.

Between two gradients of a row AdamW goes on moving it: its moments fade, and weight decay pulls. Of steps without a
gradient that is a sum in closed form, so that a step costs what the rows of the batch cost, however long the table.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

_ROWS = 4096  # made up for at once
_TERMS = 512  # of the sum; the ratio of two is about beta1, so that those left out are below a double's precision


class LazyAdamW(torch.optim.AdamW):
    """As ``torch.optim.AdamW`` with the rate that stands when rows are made up for; ``settle`` before it changes.

    ``eps`` counts in the making up as at its first step. A table's state holds ``last``, the step each row is at; a
    state that is loaded has none, as all rows are settled before they are written down.
    """

    def state_dict(self) -> dict[str, Any]:
        """That of ``torch.optim.AdamW`` with the same gradients; all rows are settled first."""
        self.settle()
        whole = super().state_dict()
        written = {
            parameter: {name: value for name, value in entries.items() if name != "last"}
            for parameter, entries in whole["state"].items()
        }
        return whole | {"state": written}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step: whole tensors as ever; of tables with a sparse gradient, the rows it has."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and table.grad.is_sparse:
                    self._step_rows(table, table.grad.coalesce(), group)
                    table.grad = None
        super().step()

    @torch.no_grad()
    def fetch(self, table: Tensor, rows: Int[Tensor, " n"]) -> None:
        """Move these rows of a table to where they are by now; none twice."""
        if state := self.state.get(table):
            late = rows[self._last(table)[rows] < state["step"]]
            for some in late.split(_ROWS) if len(late) else ():
                self._catch_up(table, some)

    def settle(self) -> None:
        """Move all rows of all tables to where they are by now."""
        for table, state in self.state.items():
            if "last" in state:
                self.fetch(table, torch.arange(len(table), device=table.device))

    def _step_rows(self, table: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        rows, grad = gradient.indices()[0], gradient.values()
        if not (state := self.state[table]):
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        self.fetch(table, rows)
        state["step"] += 1
        step, (beta1, beta2) = float(state["step"]), group["betas"]
        mean, square = state["exp_avg"][rows].lerp_(grad, 1 - beta1), state["exp_avg_sq"][rows]
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        spread = square.sqrt().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
        weight = table[rows].mul_(1 - group["lr"] * group["weight_decay"])
        table[rows] = weight.addcdiv_(mean, spread, value=-group["lr"] / (1 - beta1**step))
        state["exp_avg"][rows], state["exp_avg_sq"][rows], self._last(table)[rows] = mean, square, step

    def _last(self, table: Tensor) -> Tensor:
        """The step each row of a table is at; where nothing else is known, all are at the table's."""
        state = self.state[table]
        if "last" not in state:
            state["last"] = torch.full((len(table),), float(state["step"]), device=table.device)
        return state["last"]

    def _catch_up(self, table: Tensor, rows: Int[Tensor, " n"]) -> None:
        state = self.state[table]
        group = next(group for group in self.param_groups if any(one is table for one in group["params"]))
        (beta1, beta2), lr = group["betas"], group["lr"]
        last = self._last(table)[rows].double()
        passed = float(state["step"]) - last
        decay = 1 - lr * group["weight_decay"]
        shape = (-1, *[1] * (table.ndim - 1))

        def of_rows(factor: Float[Tensor, " n"]) -> Tensor:
            return factor.to(table.dtype).view(shape)

        mean, square = state["exp_avg"][rows], state["exp_avg_sq"][rows]
        first = ((1 - beta2 ** (last + 1)) / beta2).sqrt()  # times the root of the square, bias corrected, a step on
        spread = square.sqrt().add_(of_rows(group["eps"] * first))
        moved = of_rows(lr * _fading(last, passed, beta1, beta2, decay))
        table[rows] = table[rows] * of_rows(decay**passed) - moved * mean / spread
        state["exp_avg"][rows] = mean * of_rows(beta1**passed)
        state["exp_avg_sq"][rows] = square * of_rows(beta2**passed)
        self._last(table)[rows] = float(state["step"])


def _fading(
    last: Float[Tensor, " n"], passed: Float[Tensor, " n"], beta1: float, beta2: float, decay: float
) -> Float[Tensor, " n"]:
    """What the steps without a gradient add up to, of ``mean / sqrt(square)`` as they stood after step ``last``."""
    term = torch.arange(1, min(_TERMS, int(passed.max())) + 1, device=last.device, dtype=last.dtype)
    step = last[:, None] + term
    corrected = (1 - beta2**step).sqrt() / (1 - beta1**step)
    size = (beta1 / beta2**0.5) ** term * corrected * decay ** (passed[:, None] - term)
    return (size * (term <= passed[:, None])).sum(1)
