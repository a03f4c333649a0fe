"""The model: encoders, the imputation token, a fusion, a head."""

from collections.abc import Sequence
from typing import Literal, cast

from torch import Tensor, nn

from remind.cohort.batch import Batch
from remind.encoders import Encoder
from remind.fusions import Fusion
from remind.nn.imputation import ImputationEmbeddings
from remind.nn.tokens import pack
from remind.types import Output, Tokens

Imputation = Literal["normal", "zeros", "none"]


class Model(nn.Module):
    """Encoders run on the samples that have their modality; everything missing is one token of the sample's group.

    Args:
        modalities: names, in the cohort's order; ``encoders`` come in the same order.
        masks: availability of each training group, ``bool [g, m]``; ``shares``: theirs, ``[g]``.
        imputation: how the groups' embeddings start, or ``none`` for no token in place of the missing (Table 16).
    """

    def __init__(
        self,
        modalities: Sequence[str],
        encoders: Sequence[Encoder],
        fusion: Fusion,
        *,
        dim: int,
        classes: int,
        masks: Tensor,
        shares: Tensor,
        imputation: Imputation = "normal",
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.encoders = nn.ModuleList(encoders)
        self.lengths = [encoder.num_tokens for encoder in encoders]
        init = "zeros" if imputation == "zeros" else "normal"
        self.imputation = None if imputation == "none" else ImputationEmbeddings(dim, masks, shares, init=init)
        self.fusion = fusion
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def by_name(self) -> dict[str, Encoder]:
        """The encoder of each modality."""
        return {name: cast(Encoder, encoder) for name, encoder in zip(self.modalities, self.encoders, strict=True)}

    def tokens(self, batch: Batch) -> Tokens:
        """What the fusion sees: observed tokens, and one for all that is missing."""
        encoded = []
        for name, encoder in self.by_name().items():
            inputs, rows = batch.packed[name]
            encoded.append((encoder(inputs), rows))
        imputed = None if self.imputation is None else self.imputation(batch.group, batch.available)
        return pack(encoded, batch.available, self.lengths, imputed)

    def forward(self, batch: Batch) -> Output:
        """Logits ``[b, c]``, and how the fusion came to them."""
        fused = self.fusion(self.tokens(batch), batch.group)
        return Output(self.head(self.norm(fused.pooled)), fused)
