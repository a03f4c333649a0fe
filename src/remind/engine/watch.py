"""What training tells whoever watches it."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class GroupProgress(NamedTuple):
    """Validation, group by group (most frequent first), and the objective's weights where it has any."""

    modalities: tuple[str, ...]
    labels: list[str]
    size: np.ndarray  # validation samples, [g]
    accuracy: np.ndarray  # [g], NaN where there are none
    weights: np.ndarray | None  # [g]


@runtime_checkable
class Watch(Protocol):
    """Told of every step and every epoch. Told only: it cannot change the training."""

    def begin(self, title: str, steps: int) -> None:
        """Training is about to take at most this many steps."""

    def note(self, sentence: str) -> None:
        """Something a user should know; no patient's value is in it."""

    def opening(self, done: int, total: int) -> None:
        """So many files of the cohort have been opened."""

    def encoding(self, modality: str, done: int, total: int) -> None:
        """So many inputs have gone through a frozen encoder."""

    def step(self, done: int) -> None:
        """So many steps are done."""

    def epoch(self, row: dict[str, Any], groups: GroupProgress) -> None:
        """An epoch was validated; ``row`` is what ``history.parquet`` will hold of it."""

    def end(self) -> None:
        """Training is over."""


class Silence:
    """Watches nothing."""

    def begin(self, title: str, steps: int) -> None: ...  # noqa: D102

    def note(self, sentence: str) -> None: ...  # noqa: D102

    def opening(self, done: int, total: int) -> None: ...  # noqa: D102

    def encoding(self, modality: str, done: int, total: int) -> None: ...  # noqa: D102

    def step(self, done: int) -> None: ...  # noqa: D102

    def epoch(self, row: dict[str, Any], groups: GroupProgress) -> None: ...  # noqa: D102

    def end(self) -> None: ...  # noqa: D102
