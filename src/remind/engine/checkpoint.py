"""The tensors of a run under way, named, and back: nothing in a checkpoint needs unpickling."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Parts = dict[str, dict[str, Tensor]]


def flatten(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """``{part: {key: tensor}}`` as ``{part/key: tensor}``."""
    return {f"{part}/{key}": tensor for part, content in parts.items() for key, tensor in content.items()}


def unflatten(tensors: Mapping[str, Tensor], parts: tuple[str, ...]) -> Parts:
    """What ``flatten`` was given; a part that held nothing is empty."""
    found: Parts = {part: {} for part in parts}
    for name, tensor in tensors.items():
        part, key = name.split("/", 1)
        found[part][key] = tensor
    return found


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Every tensor under ``<parameter>.<name>``, and the parameter groups' settings."""
    state = optimizer.state_dict()
    tensors = {
        f"{parameter}.{name}": torch.as_tensor(value)
        for parameter, entries in state["state"].items()
        for name, value in entries.items()
    }
    return tensors, state["param_groups"]


def load_optimizer_state(optimizer: Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]) -> None:
    """Put back what ``optimizer_state`` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        parameter, name = key.split(".", 1)
        state.setdefault(int(parameter), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """The generators that dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def load_rng_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Put back what ``rng_state`` gave."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
