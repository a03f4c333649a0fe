"""Text: token ids of the encoder's own vocabulary, or plain bytes where it has none."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import polars as pl
import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from remind.modalities import Cells, Transform
from remind.pretrained import t5_config, t5_tokenizer

END, FIRST_BYTE = 1, 3  # ByT5's: ids 0 to 2 are padding, end and unknown


class TextShape(NamedTuple):
    """The architecture of the T5 encoder that knows the vocabulary, and the most tokens of a text."""

    config: dict[str, Any]
    limit: int


class TextInput(NamedTuple):
    """Token ids, padded on the right to the longest of the batch."""

    ids: Int[Tensor, "n l"]
    length: Int[Tensor, " n"]


@dataclass(frozen=True)
class TextTransform(Transform):
    """The tokenizer as JSON (None: bytes). The first ``limit`` tokens of a text are kept, the end mark included."""

    config: dict[str, Any]
    tokenizer: str | None
    limit: int
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, cells: Cells, settings: Mapping[str, Any]) -> "TextTransform":
        """Nothing is learned from the texts; how many of them are cut is counted."""
        weights, limit = settings["weights"], settings["limit"]
        made = cls(t5_config(weights), t5_tokenizer(weights), limit)
        texts = cells.frame[cells.frame.columns[0]].to_list()
        cut = sum(len(made.whole(text)) > limit for text in texts)
        note = f"{cells.name}: {cut} of {len(texts)} training texts are longer than {limit} tokens; the first count."
        return cls(made.config, made.tokenizer, limit, (note,) if cut else ())

    @property
    def shape(self) -> TextShape:
        """Architecture and limit."""
        return TextShape(self.config, self.limit)

    @cached_property
    def _tokenizer(self) -> Tokenizer | None:
        return None if self.tokenizer is None else Tokenizer.from_str(self.tokenizer)

    def whole(self, text: str) -> list[int]:
        """All token ids of a text, the end mark last."""
        if self._tokenizer is None:
            return [*(byte + FIRST_BYTE for byte in text.encode()), END]
        return self._tokenizer.encode(text).ids

    def ids(self, text: str) -> list[int]:
        """The ids that are kept: where a text is cut, its end mark stays."""
        ids = self.whole(text)
        return ids if len(ids) <= self.limit else [*ids[: self.limit - 1], ids[-1]]

    def reader(self, cells: Cells) -> "TextReader":
        """Tokenizes texts when they are asked for."""
        return TextReader(self, cells.frame[cells.frame.columns[0]])

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "TextTransform":
        """The transform ``to_json`` wrote."""
        return cls(data["config"], data["tokenizer"], data["limit"], tuple(data["notes"]))


@dataclass(frozen=True)
class TextReader:
    """Some samples' texts."""

    transform: TextTransform
    texts: pl.Series

    def __call__(self, places: Sequence[int]) -> TextInput:
        """Tokenize these samples."""
        rows = [torch.tensor(self.transform.ids(self.texts[place] or "")) for place in places]
        if not rows:
            return TextInput(torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
        return TextInput(pad_sequence(rows, batch_first=True), torch.tensor([len(ids) for ids in rows]))
