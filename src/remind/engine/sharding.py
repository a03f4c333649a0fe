"""Weights, gradients and the optimiser's memory in parts, one on each rank (FSDP): for models too large to copy."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from remind.config import TrainSettings
from remind.engine.distributed import Team, Together
from remind.errors import RemindError
from remind.types import Fused, Ragged

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
    resting = {id(table) for table in network.model.fusion.of_groups()}  # before they come into play, on all ranks
    for unit in (*network.model.encoders, network.model.fusion):
        unit.register_forward_hook(_Used([name for name, one in unit.named_parameters() if id(one) not in resting]))
        fully_shard(unit, ignored_params=numbers)
    fully_shard(network, ignored_params=numbers)
    return network


class _Used:
    """Gives a unit's weights a gradient, zero, even where this rank's samples used none of them.

    Ranks add up the gradients that they have: one without would wait for another, or be taken for it.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def __call__(self, unit: nn.Module, given: Any, made: Ragged | Fused) -> Ragged | Fused:
        """What the unit made, with nothing added."""
        learned = [one for name in self.names if (one := unit.get_parameter(name)).requires_grad]
        if not (learned and torch.is_grad_enabled()):
            return made
        nothing = 0.0 * torch.stack([one.sum() for one in learned]).sum()
        if isinstance(made, Ragged):
            return made._replace(values=made.values + nothing.to(made.values))
        return made._replace(pooled=made.pooled + nothing.to(made.pooled))


def join_gradients(network: nn.Module, team: Team) -> None:
    """After a backward pass: the mean over the ranks for what has no parts, as all else has it by then."""
    for number in _numbers(network):
        if number.grad is not None:
            dist.all_reduce(number.grad)
            number.grad /= team.ranks


def _numbers(network: nn.Module) -> list[nn.Parameter]:
    """Parameters that are single numbers; FSDP takes none."""
    return [parameter for parameter in network.parameters() if parameter.ndim == 0]


def whole(tensors: Mapping[str, Tensor], team: Team) -> dict[str, Tensor]:
    """All of every tensor, one after the other, on the first rank; others get nothing. All ranks must ask."""
    found = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
        if team.first:
            found[name] = full
    return found


def kept(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy, for later: of parts on their rank's device, of whole tensors on the CPU."""
    return {
        name: tensor.detach().clone() if isinstance(tensor, DTensor) else tensor.detach().cpu().clone()
        for name, tensor in tensors.items()
    }


def in_parts(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What ``whole`` gave, laid out as the tensors of the same names in ``like``; all ranks must ask."""
    return {name: _as(tensor, like[name]) for name, tensor in tensors.items()}


def _as(tensor: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor) or tensor.shape != like.shape:
        return tensor  # whole, in parts already, or a count of steps
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
