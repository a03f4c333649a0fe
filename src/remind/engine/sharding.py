"""Weights, gradients and the optimiser's memory in parts, one on each rank (FSDP): for models too large to copy."""

from collections.abc import Mapping

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from remind.config import TrainSettings
from remind.engine.distributed import Team, Together
from remind.errors import RemindError

ALONE = {
    "average": 0.0,
    "gradients_every": 0,
    "compile": False,
}  # what would want all weights at once, or as they are


def refuse_settings(settings: TrainSettings, team: Team, features: str, *, adapted: bool) -> None:
    """Nothing, if a run with these settings can be in parts.

    Raises:
        RemindError: naming the setting that is in the way.
    """
    if team.ranks == 1:
        raise RemindError("train.shard: there is one process, which would hold all parts; start several by torchrun.")
    if adapted:
        raise RemindError("train.shard: a model is adapted whole; leave it out.")
    if features != "none":
        raise RemindError("train.shard: one process cannot encode for all; set data.features=none.")
    for name, wanted in ALONE.items():
        if getattr(settings, name) != wanted:
            raise RemindError(f"train.shard: does not go with train.{name}; leave one of them out.")


def shard(network: Together) -> Together:
    """Leave each rank its part. Each encoder and the fusion are made whole when they run, one after the other."""
    numbers = set(_numbers(network))
    for unit in (*network.model.encoders, network.model.fusion):
        fully_shard(unit, ignored_params=numbers)
    fully_shard(network, ignored_params=numbers)
    return network


def join_gradients(network: nn.Module, team: Team) -> None:
    """After a backward pass: the mean over the ranks for what has no parts, as all else has it by then."""
    for number in _numbers(network):
        if number.grad is not None:
            dist.all_reduce(number.grad)
            number.grad /= team.ranks


def _numbers(network: nn.Module) -> list[nn.Parameter]:
    """Parameters that are single numbers; FSDP takes none."""
    return [parameter for parameter in network.parameters() if parameter.ndim == 0]


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All of every tensor, on every rank; all ranks must ask."""
    return {name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()}


def in_parts(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What ``whole`` gave, laid out as the tensors of the same names in ``like``; all ranks must ask."""
    return {name: _as(tensor, like[name]) for name, tensor in tensors.items()}


def _as(tensor: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor) or tensor.shape != like.shape:  # a count of steps is of no shape
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
