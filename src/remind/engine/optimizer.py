"""An optimiser's state as named tensors and plain data, so that no checkpoint needs unpickling."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def optimizer_tensors(optimizer: Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Every state tensor under ``<parameter>.<name>``, and the parameter groups' settings."""
    state = optimizer.state_dict()
    tensors = {
        f"{parameter}.{name}": torch.as_tensor(value)
        for parameter, entries in state["state"].items()
        for name, value in entries.items()
    }
    return tensors, state["param_groups"]


def load_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> None:
    """Put back what ``optimizer_tensors`` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        parameter, name = key.split(".", 1)
        state.setdefault(int(parameter), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})
