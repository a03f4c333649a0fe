"""The model: encoders, a fusion, a head."""

from collections.abc import Sequence
from typing import cast

from torch import nn

from remind.cohort.batch import Batch
from remind.encoders import Encoder
from remind.fusions import Fusion
from remind.types import Encoded, Fused, Output


class Model(nn.Module):
    """Encoders run on the samples that have their modality; what becomes of the missing is the fusion's to say.

    Args:
        modalities: names, in the cohort's order; ``encoders`` come in the same order.
    """

    def __init__(self, modalities: Sequence[str], encoders: Sequence[Encoder], fusion: Fusion, *, classes: int) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.encoders = nn.ModuleList(encoders)
        self.fusion = fusion
        self.norm = nn.LayerNorm(fusion.width)
        self.head = nn.Linear(fusion.width, classes)

    def by_name(self) -> dict[str, Encoder]:
        """The encoder of each modality."""
        return {name: cast(Encoder, encoder) for name, encoder in zip(self.modalities, self.encoders, strict=True)}

    def encode(self, batch: Batch) -> Encoded:
        """Tokens of whatever the samples have."""
        tokens = tuple(encoder(batch.packed[name].inputs) for name, encoder in self.by_name().items())
        rows = tuple(batch.packed[name].rows for name in self.modalities)
        return Encoded(tokens, rows, batch.available, batch.group)

    def classify(self, fused: Fused) -> Output:
        """Logits ``[b, c]``, and how the fusion came to them."""
        return Output(self.head(self.norm(fused.pooled)), fused)

    def forward(self, batch: Batch) -> Output:
        """Encode, fuse, classify."""
        return self.classify(self.fusion(self.encode(batch)))
