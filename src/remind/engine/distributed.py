"""Training by several processes that see, together, the batches one process would see alone.

Each rank encodes and fuses its own part of a batch. What the fusion pools is gathered, and from there on every rank
computes the same: losses, what the objective remembers of the groups, selection. So statistics of groups are of the
whole batch, wherever the samples of a group were, and ranks whose modalities differ do not wait for one another.
"""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from remind.cohort.batch import Batch
from remind.cohort.dataset import CohortDataset
from remind.config import TrainSettings
from remind.errors import RemindError
from remind.model import Model
from remind.types import Fused, Output

PATIENCE = timedelta(hours=2)  # that ranks wait for one another: one of them writes, and predicts, alone


class Team(NamedTuple):
    """Which of how many processes this one is."""

    rank: int = 0
    ranks: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def bounds(self, size: int) -> list[tuple[int, int]]:
        """Where each rank's part of so many rows starts and stops; as even as can be, some may be empty."""
        return [(size * rank // self.ranks, size * (rank + 1) // self.ranks) for rank in range(self.ranks)]

    def part(self, size: int) -> slice:
        """This rank's rows; one without any takes the first, which then counts nowhere."""
        start, stop = self.bounds(size)[self.rank]
        return slice(start, stop) if stop > start else slice(0, 1)

    def rows(self, size: int) -> Tensor:
        """This rank's rows, as many as any rank has: some end with rows again that then count nowhere."""
        most = max(stop - start for start, stop in self.bounds(size))
        own = torch.arange(size)[self.part(size)]
        return own[torch.arange(most).clamp_max(len(own) - 1)]

    def gather(self, own: Tensor, size: int) -> Tensor:
        """All ranks' rows, ``size`` of them, from each rank's ``part``; no gradient goes through."""
        if self.ranks == 1:
            return own
        sizes = [stop - start for start, stop in self.bounds(size)]
        padded = own.new_zeros(max(sizes), *own.shape[1:])  # messages are of equal length
        padded[: sizes[self.rank]] = own.detach()[: sizes[self.rank]]
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([one[:count] for one, count in zip(parts, sizes, strict=True)])

    def wait(self) -> None:
        """Until all are here."""
        if self.ranks > 1:
            dist.barrier()


def team() -> Team:
    """What the launcher, such as torchrun, says of this process."""
    return Team(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def start(settings: TrainSettings) -> Fabric:
    """Fabric for one process, or for all that a launcher has started.

    Raises:
        RemindError: if there are fewer GPUs here than processes that want one.
    """
    device, precision, ranks = settings.device, settings.precision, team().ranks
    if ranks == 1:
        return Fabric(accelerator=device, devices=1, precision=precision)
    here, found = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if found >= here else "cpu"
    if device == "cuda" and found < here:
        raise RemindError(
            f"train.device: {here} processes want a GPU each, and there are {found}; start fewer, or set it to cpu."
        )
    backend = "nccl" if device == "cuda" else "gloo"
    strategy = DDPStrategy(find_unused_parameters=True, process_group_backend=backend, timeout=PATIENCE)
    fabric = Fabric(accelerator=device, devices=here, num_nodes=ranks // here, strategy=strategy, precision=precision)
    fabric.launch()
    return fabric


class Shared(torch.utils.data.Dataset):
    """A data set whose batches hold one rank's inputs, and the groups and targets of all samples."""

    def __init__(self, whole: CohortDataset, team: Team) -> None:
        self.whole, self.team = whole, team

    def __len__(self) -> int:
        return len(self.whole)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """One batch."""
        own = self.whole.__getitems__(indices[self.team.part(len(indices))])
        every = torch.as_tensor(indices)
        whole = self.whole
        return Batch(own.packed, whole.available[every], whole.group[every], whole.target[every], whole.rows[every])


class Together(nn.Module):
    """A model whose ranks each see their part of a batch, and all give the output of the whole."""

    def __init__(self, model: Model, team: Team) -> None:
        super().__init__()
        self.model, self.team = model, team

    def forward(self, batch: Batch) -> Output:
        """Encode and fuse this rank's part, gather, classify all. In evaluation a batch is as it is."""
        if not self.training:
            return self.model(batch)
        size = len(batch.target)
        rows = self.team.part(size)
        own = Batch(batch.packed, batch.available[rows], batch.group[rows], batch.target[rows], batch.row[rows])
        return self.model.classify(self._gathered(self.model.fusion(self.model.encode(own)), size))

    def _gathered(self, fused: Fused, size: int) -> Fused:
        """What concerns whole samples, of all of them; what concerns tokens stays this rank's."""
        routing = fused.routing._replace(
            uncertainty=self.team.gather(fused.routing.uncertainty, size),
            opened=self.team.gather(fused.routing.opened.float(), size).bool(),
        )
        pooled = _Gather.apply(fused.pooled, self.team, size)
        assert isinstance(pooled, Tensor)
        return fused._replace(pooled=pooled, routing=routing)


class _Gather(torch.autograd.Function):
    """Rows of all ranks. Every rank computes the same loss of them, so the gradient of its own is at hand.

    DDP takes the mean of the ranks' gradients, where that of a sum of parts is theirs: hence the factor.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, team: Team, size: int) -> Tensor:
        ctx.rows, ctx.team, ctx.size = len(own), team, size
        return team.gather(own, size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        start, stop = ctx.team.bounds(ctx.size)[ctx.team.rank]
        own = grad.new_zeros(ctx.rows, *grad.shape[1:])
        own[: stop - start] = grad[start:stop] * ctx.team.ranks
        return own, None, None
