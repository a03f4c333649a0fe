"""Texts: the encoder of a T5 (Raffel et al., 2020), as in the paper, or of one of its kin."""

import torch

from remind.encoders import Backbone
from remind.encoders.pooling import adaptive_mean
from remind.encoders.projected import ProjectedEncoder, straight
from remind.modalities.text import TextInput, TextShape
from remind.pretrained import load_t5
from remind.registry import Positive
from remind.types import Ragged


class TextEncoder(ProjectedEncoder):
    """Token ids in, ``[n, l, dim]`` out: a token for each, or ``tokens`` of them.

    Args:
        shape: the architecture, and the most tokens of a text.
        dim: width of the tokens.
        weights: a name on the Hugging Face hub, a local folder, or ``random`` for a small untrained one of bytes.
        limit: how many tokens of a text are read.
        tokens: to how many the tokens of a text, whatever its length, are averaged; by default they are not.
        frozen: whether the backbone stays as it is.
    """

    def __init__(
        self,
        shape: TextShape,
        dim: int,
        *,
        weights: str = "google-t5/t5-base",
        limit: Positive = 512,
        tokens: Positive | None = None,
        frozen: bool = False,
    ) -> None:
        backbone = T5(shape, weights, tokens)
        super().__init__(backbone, straight(backbone.width, dim), frozen=frozen)


class T5(Backbone):
    """transformers' ``T5EncoderModel``, dropout as its config says."""

    def __init__(self, shape: TextShape, weights: str, tokens: int | None) -> None:
        super().__init__()
        from transformers import T5Config, T5EncoderModel

        model = T5EncoderModel(T5Config(**shape.config))
        load_t5(model, weights)
        self.stack = model.encoder  # holds the embedding too; the model around it names the same one twice
        self.tokens = tokens
        self.width, self.num_tokens = model.config.d_model, tokens or shape.limit

    def forward(self, inputs: TextInput) -> Ragged:
        """A vector for each token, or averages over each text's own length."""
        ids = inputs.ids[:, : int(inputs.length.max())]
        real = torch.arange(ids.shape[1], device=ids.device) < inputs.length[:, None]
        found = Ragged(self.stack(input_ids=ids, attention_mask=real).last_hidden_state, inputs.length)
        return found if self.tokens is None else Ragged(adaptive_mean(found, self.tokens))
