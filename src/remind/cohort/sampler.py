"""Which samples make up which batch, resumable anywhere."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Sampler


class EpochSampler(Sampler[list[int]], ABC):
    """Batches, epoch after epoch, all as many as it takes to show each of ``samples`` once.

    Where it stands is two numbers; they move when a batch is reported used, not when a loader fetches it ahead.
    """

    samples: int
    batch_size: int
    epoch = 0
    done = 0

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """What is left of the epoch."""
        yield from self.order(self.epoch)[self.done :]

    def advance(self) -> None:
        """One more batch was used; after the last one the next epoch begins."""
        self.done += 1
        if self.done == len(self):
            self.epoch, self.done = self.epoch + 1, 0

    @abstractmethod
    def order(self, epoch: int) -> list[list[int]]:
        """All batches of one epoch."""

    def state_dict(self) -> dict[str, int]:
        """Where it stands."""
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.epoch, self.done = state["epoch"], state["done"]


class BucketSampler(EpochSampler):
    """Every epoch shows each sample once, and every sample is equally likely in every batch of it.

    An epoch's random order is cut into pools of ``pool`` batches; within a pool, samples are sorted by ``size`` (their
    token count), cut into batches, and the batches shuffled. ``pool=1`` is plain shuffling. One batch of an epoch may
    be short. The order follows from seed and epoch.
    """

    def __init__(self, size: Int[Tensor, " n"], *, batch_size: int, seed: int, pool: int = 1) -> None:
        self.size, self.batch_size, self.seed, self.pool = size, batch_size, seed, pool
        self.samples = len(size)

    def order(self, epoch: int) -> list[list[int]]:
        """All batches of one epoch."""
        generator = generator_of(self.seed, epoch)
        shuffled = torch.randperm(len(self.size), generator=generator)
        batches = []
        for pool in shuffled.split(self.batch_size * self.pool):
            ordered = pool[self.size[pool].argsort(stable=True)] if self.pool > 1 else pool
            sizes = [min(self.batch_size, len(pool) - start) for start in range(0, len(pool), self.batch_size)]
            sizes = [sizes[place] for place in torch.randperm(len(sizes), generator=generator)]  # else the short batch
            cut = ordered.split(sizes)  # would always hold the longest samples
            batches += [cut[place].tolist() for place in torch.randperm(len(cut), generator=generator)]
        return batches


def generator_of(seed: int, epoch: int) -> torch.Generator:
    """An epoch's own random numbers."""
    mixed = np.random.SeedSequence([seed, epoch]).generate_state(1)  # torch keeps 32 bits of a seed
    return torch.Generator().manual_seed(int(mixed[0]))
