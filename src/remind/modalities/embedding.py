"""Tokens computed elsewhere, as they are."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from remind.errors import RemindError
from remind.modalities import Cells, Transform
from remind.modalities.files import Decode, FileReader
from remind.modalities.spec import EmbeddingModality
from remind.reading import Unreadable
from remind.reading.arrays import read_embedding
from remind.types import Ragged


class EmbeddingShape(NamedTuple):
    """The most tokens a training sample has, and their width."""

    tokens: int
    width: int


@dataclass(frozen=True)
class EmbeddingTransform(Transform):
    """Padded to the longest of a batch: values ``[n, l, width]``."""

    tokens: int
    width: int

    @classmethod
    def fit(cls, cells: Cells, settings: Mapping[str, Any]) -> "EmbeddingTransform":
        """Learn the width and the greatest number of tokens."""
        read = FileReader(cells, read_embedding, list)
        shapes = {tuple(read([place])[0].shape) for place in range(cells.frame.height)}
        widths = {width for _, width in shapes}
        if not shapes:
            raise RemindError(f"no training sample has modality {cells.name!r}; leave it out.")
        if len(widths) > 1:
            listed = ", ".join(map(str, sorted(widths)))
            raise RemindError(
                f"modality {cells.name!r}: its training arrays have widths {listed}; they need one width."
            )
        return cls(max(tokens for tokens, _ in shapes), *widths)

    @classmethod
    def opener(cls, modality: EmbeddingModality) -> Decode:
        """Reads the whole array."""
        return read_embedding

    @property
    def shape(self) -> EmbeddingShape:
        """Tokens and width."""
        return EmbeddingShape(self.tokens, self.width)

    def reader(self, cells: Cells) -> FileReader:
        """Reads arrays when they are asked for."""
        return FileReader(cells, self._decode, partial(_pad, width=self.width))

    def _decode(self, path: Any) -> Float[Tensor, "l w"]:
        array = read_embedding(path)
        if array.shape[1] != self.width:
            raise Unreadable(f"has tokens of width {array.shape[1]}; those of training have {self.width}")
        return array

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "EmbeddingTransform":
        """The transform ``to_json`` wrote."""
        return cls(**data)


def _pad(arrays: list[Float[Tensor, "_ w"]], *, width: int) -> Ragged:
    if not arrays:
        return Ragged(torch.zeros(0, 1, width))
    return Ragged(pad_sequence(arrays, batch_first=True), torch.tensor([len(array) for array in arrays]))
