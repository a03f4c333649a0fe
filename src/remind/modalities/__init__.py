"""Kinds of modality: how the cells of one become tensors. One file each, listed here by kind."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from remind.modalities.spec import Modality
from remind.registry import Registry


class Cells(NamedTuple):
    """What some samples have in the columns of one modality, a row each; nulls where it is missing."""

    name: str
    modality: Modality
    frame: pl.DataFrame
    ids: list[str]
    root: Path  # where paths start


Reader = Callable[[Sequence[int]], Any]
"""The inputs of the samples at these places; each must have the modality. Can be pickled, for worker processes."""


class Transform(ABC):
    """What turns cells into tensors. All it learns, it learns from the cells of training samples."""

    notes: tuple[str, ...] = ()  # what a user should know of the training samples, without their values

    @classmethod
    @abstractmethod
    def fit(cls, cells: Cells, settings: Mapping[str, Any]) -> "Transform":
        """Learn from training samples. ``settings`` are all those of the encoder that will be given the tensors."""

    @classmethod
    def opener(cls, modality: Any) -> Callable[[Path], Any] | None:
        """Reads one file as training would, though no larger than need be; None if the cells are no paths."""
        return None

    @property
    @abstractmethod
    def shape(self) -> Any:
        """What the encoder is built from."""

    @abstractmethod
    def reader(self, cells: Cells) -> Reader:
        """Reads any samples of these.

        Raises:
            RemindError: if the cells are not such as it was fitted to.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint; floats keep every bit."""

    @classmethod
    @abstractmethod
    def from_json(cls, data: dict[str, Any]) -> "Transform":
        """The transform ``to_json`` wrote."""


TRANSFORMS = Registry(
    "kind",
    {
        "tabular": "remind.modalities.tabular:TabularTransform",
        "text": "remind.modalities.text:TextTransform",
        "image": "remind.modalities.image:ImageTransform",
        "volume": "remind.modalities.volume:VolumeTransform",
        "sequence": "remind.modalities.sequence:SequenceTransform",
        "embedding": "remind.modalities.embedding:EmbeddingTransform",
    },
)
