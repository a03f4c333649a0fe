"""Modality combinations as bit sets of any width, and the groups a training set holds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, slots=True)
class Combination:
    """A set of available modalities: bit ``i`` is the cohort's ``i``-th modality. Python integers have any width."""

    bits: int

    @classmethod
    def of(cls, available: Iterable[bool | np.bool_]) -> "Combination":
        """The combination of one row of an availability mask."""
        return cls(sum(1 << place for place, there in enumerate(available) if there))

    def mask(self, width: int) -> list[bool]:
        """The availability mask over ``width`` modalities."""
        return [bool(self.bits >> place & 1) for place in range(width)]

    def label(self, modalities: Sequence[str]) -> str:
        """How people read it: ``labs+text``."""
        return "+".join(name for name, there in zip(modalities, self.mask(len(modalities)), strict=True) if there)

    def __len__(self) -> int:
        return self.bits.bit_count()


def distinct(available: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct rows of a mask ``[n, m]``, as ``(masks [k, m], which of them each row is [n], how often each [k])``."""
    packed = np.ascontiguousarray(np.packbits(available, axis=1))
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    return available[first], inverse.ravel(), counts


@dataclass(frozen=True)
class GroupTable:
    """The combinations seen in training, most frequent first: each has an index, a count and a share.

    A group is *tail* if its share is below ``tail_below``, else *head*. The order depends on counts and bits only,
    never on the order of the rows.
    """

    modalities: tuple[str, ...]
    combinations: tuple[Combination, ...]
    counts: tuple[int, ...]
    tail_below: float = 0.15
    added: int = 0  # how many of them, the last ones, came when a model was adapted

    @classmethod
    def fit(cls, available: np.ndarray, modalities: Sequence[str], tail_below: float = 0.15) -> "GroupTable":
        """Count the combinations of a training set's availability mask ``[n, m]``."""
        masks, _, counts = distinct(available)
        found = sorted(
            zip((Combination.of(mask) for mask in masks), counts.tolist(), strict=True),
            key=lambda pair: (-pair[1], pair[0].bits),
        )
        combinations, sizes = zip(*found, strict=True)
        return cls(tuple(modalities), combinations, sizes, tail_below)

    def __len__(self) -> int:
        return len(self.combinations)

    @cached_property
    def masks(self) -> np.ndarray:
        """Availability of each group, ``bool [g, m]``."""
        return np.array([c.mask(len(self.modalities)) for c in self.combinations], dtype=bool)

    @cached_property
    def shares(self) -> np.ndarray:
        """Share of each group in the training set, ``float64 [g]``, summing to 1."""
        counts = np.array(self.counts, dtype=np.float64)
        return counts / counts.sum()

    @cached_property
    def tail(self) -> np.ndarray:
        """Which groups are tail, ``bool [g]``."""
        return self.shares < self.tail_below

    def index(self, available: np.ndarray) -> np.ndarray:
        """The group of each row of a mask ``[n, m]``, ``int64 [n]``; -1 for a combination unseen in training."""
        place = {combination: group for group, combination in enumerate(self.combinations)}
        masks, inverse, _ = distinct(available)
        return np.array([place.get(Combination.of(mask), -1) for mask in masks], dtype=np.int64)[inverse]

    def kind(self, group: int) -> str:
        """``head``, ``tail``, or ``unseen`` (-1: a combination unseen in training)."""
        return "unseen" if group < 0 else "tail" if self.tail[group] else "head"

    def labels(self) -> list[str]:
        """The printed name of every group."""
        return [combination.label(self.modalities) for combination in self.combinations]

    def to_json(self) -> dict:
        """Plain data for a checkpoint; ``from_json`` gives the same table back."""
        return {
            "modalities": list(self.modalities),
            "combinations": [hex(combination.bits) for combination in self.combinations],
            "counts": list(self.counts),
            "tail_below": self.tail_below,
            "added": self.added,
        }

    @classmethod
    def from_json(cls, data: dict) -> "GroupTable":
        """The table ``to_json`` wrote."""
        return cls(
            tuple(data["modalities"]),
            tuple(Combination(int(bits, 16)) for bits in data["combinations"]),
            tuple(data["counts"]),
            data["tail_below"],
            data["added"],
        )
