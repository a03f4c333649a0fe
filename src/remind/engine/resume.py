"""A run under way, written down and put back: the next step is the one that would have come."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from remind.engine.checkpoint import (
    flatten,
    load_optimizer_state,
    load_rng_state,
    optimizer_state,
    rng_state,
    unflatten,
)
from remind.engine.progress import Standing
from remind.engine.sharding import in_parts, whole
from remind.errors import RemindError

if TYPE_CHECKING:
    from remind.engine.loop import Training

RNG = ("cpu", "cuda")
PARTS = ("model", "average", "best", "objective", "optimizer", "rng")


def save(training: "Training") -> None:
    """Write down where training stands."""
    tensors, groups = optimizer_state(training.descent.optimizer)
    parts = {
        "model": whole(training.fitted.model.state_dict(), training.team),
        "average": training.average.mean,
        "best": whole(training.best, training.team),
        "objective": training.objective.state_dict(),
        "optimizer": whole(tensors, training.team),
        "rng": _of_all_ranks(training, rng_state(training.fabric.device)),
    }
    document = {
        "standing": training.standing.to_json(),
        "sampler": training.sampler.state_dict(),
        "optimizer": groups,
        "schedule": training.descent.schedule.state_dict(),
    }
    if training.team.first:
        training.folder.save_checkpoint(flatten(parts), document)


def restore(training: "Training", tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
    """Put back what ``save`` wrote, into a training that has just been made."""
    parts = unflatten(tensors, PARTS)
    if parts["objective"].keys() != training.objective.state_dict().keys():
        raise RemindError(
            f"{training.folder.path}: stands where another version of remind left it; remove it and train again."
        )
    training.standing = Standing(**document["standing"])
    training.sampler.load_state_dict(document["sampler"])
    training.load(parts["model"])
    training.objective.load_state_dict(parts["objective"])
    training.best = parts["best"]
    if training.standing.stage < len(training.stages):
        training.prepare_stage()
        training.average.load_state_dict(parts["average"])
        optimizer, remembered = training.descent.optimizer, parts["optimizer"]
        state = in_parts(remembered, _weights(optimizer, remembered))
        load_optimizer_state(optimizer, state, document["optimizer"])
        training.descent.schedule.load_state_dict(document["schedule"])
    else:
        training.decide_who_learns(training.stages[-1])
    own = f".{training.team.rank}" if training.team.rank else ""
    mine = {name: parts["rng"][f"{name}{own}"] for name in RNG if f"{name}{own}" in parts["rng"]}
    if mine:  # none of its own: it goes on with more processes than before
        load_rng_state(mine, training.fabric.device)


def _weights(optimizer: Optimizer, remembered: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weight that each of an optimiser's tensors, ``<parameter>.<name>``, is of."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return {name: weights[int(name.split(".", 1)[0])] for name in remembered}


def _of_all_ranks(training: "Training", own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each rank's generators: those of the first by their names, of rank 1 as ``cpu.1``, and so on."""
    ranks, found = training.team.ranks, {}
    for name, state in own.items():
        rows = training.team.gather(state[None].to(training.fabric.device), ranks).cpu()
        found |= {f"{name}.{rank}" if rank else name: rows[rank] for rank in range(ranks)}
    return found
