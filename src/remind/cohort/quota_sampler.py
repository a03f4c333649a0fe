"""Batches in which each kind of sample has the share that somebody wants."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from remind.cohort.sampler import EpochSampler, generator_of


class QuotaSampler(EpochSampler):
    """Every epoch draws from each cell of the samples in proportion to its share, evenly over the epoch.

    A quota in each batch would be no use: with more cells than places in a batch, most quotas are below one. So the
    ``j``-th draw of a cell that ``q`` draws are wanted of falls at a random time between ``j / q`` and ``(j + 1) / q``
    of the epoch, and batches are all draws in the order of their times: a batch has of each cell what it should have,
    and a part of a draw is a chance of one. Draws of a cell go round its members, who are shuffled for each round.

    All batches are full; an epoch has as many as a ``BucketSampler``'s. With the samples' own shares, each comes once
    (what fills the last batch, twice). The order follows from seed, epoch and shares.

    Args:
        cell: of each sample, its place among the shares, row by row.
        shares: gives the share of each cell when an epoch begins; 0 of an empty one.
    """

    def __init__(
        self,
        cell: Int[Tensor, " n"],
        shares: Callable[[], Float[Tensor, "g c"]],
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        self.shares, self.seed = shares, seed
        self.samples, self.batch_size = len(cell), min(batch_size, len(cell))
        self.members = cell.argsort(stable=True).split(cell.bincount(minlength=shares().numel()).tolist())

    def order(self, epoch: int) -> list[list[int]]:
        """All batches of one epoch."""
        generator = generator_of(self.seed, epoch)
        draws = len(self) * self.batch_size
        shares = self.shares().double().cpu().ravel()
        rows, times = [], []
        for members, wanted in zip(self.members, (draws * shares / shares.sum()).tolist(), strict=True):
            if wanted > 0:
                turns = int(wanted) + 1
                chance = torch.rand(turns, dtype=torch.float64, generator=generator)
                times.append((torch.arange(turns) + chance) / wanted)
                rounds = -(-turns // len(members))
                shuffled = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
                rows.append(torch.cat(shuffled)[:turns])
        first = torch.cat(times).argsort(stable=True)[:draws]
        return [batch.tolist() for batch in torch.cat(rows)[first].split(self.batch_size)]
