"""FuseMoE (Han et al., NeurIPS 2024): a sparse MoE in which every modality of a sample is a row with its own router."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from remind.fusions import Fusion
from remind.nn.attention import SelfAttention
from remind.nn.modality_moe import Exchanged, ModalityMoE, RouterKind, Rows, scatter
from remind.nn.sparse_moe import Kind
from remind.nn.tokens import blank_padding, mean_token
from remind.registry import Amount, Positive, Share
from remind.types import Encoded, Fused, Layout, Ragged, Tokens


class FuseMoEFusion(Fusion):
    """Blocks of attention within each modality, sparse MoE across them, a network for each; then a residual network.

    A modality that a sample has bears a learned vector of its own; one that it lacks is zeros, which is all that says
    so, and nothing is computed for it. Ours, against the official code (aaronhan223/FuseMoE), and why:

    * A modality's row is the mean of its tokens; officially it is all of them side by side, and then an expert for
      EMBED (4 times 197 tokens of width 768) has 387 million weights. What a modality is told, each of its tokens is.
    * One block, as in the other methods here, not three; it reads the encoders' tokens as they are, without another
      table of positions, and ends in the mean of a modality's tokens, since only series have a last step.
    * Experts' outputs are added by weight; the official ones end in a log-softmax and are added as probabilities.
    * Routers are parameters, noise is for training only, the balance loss is in the loss, and no row holds parts of
      another sample; none of it is so in the official code.
    """

    tries = {"gate": ("laplace", "softmax")}

    def __init__(
        self,
        dim: int,
        layout: Layout,
        *,
        experts: Positive = 16,
        top_k: Positive = 4,
        heads: Positive = 8,
        hidden: Positive | None = None,
        dropout: Share = 0.1,
        layers: Positive = 1,
        router: RouterKind = "permod",
        gate: Kind = "laplace",
        balance: Amount = 0.01,
    ) -> None:
        super().__init__()
        modalities = len(layout.lengths)
        self.width, self.balance = modalities * dim, balance
        self.kinds = nn.Parameter(torch.randn(modalities, dim) * 0.02)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                modalities,
                ModalityMoE(dim, modalities, experts, top_k=top_k, hidden=hidden or 4 * dim, router=router, gate=gate),
                heads=heads,
                dropout=dropout,
            )
            for _ in range(layers)
        )
        self.residual = network(self.width, self.width, dropout)

    def forward(self, encoded: Encoded) -> Fused:
        """Fuse a batch; a sample's result depends on its own tokens only. The routing given is the last block's."""
        streams = [start(tokens, kind) for tokens, kind in zip(encoded.tokens, self.kinds, strict=True)]
        batch, exchanges = len(encoded.available), []
        for block in self.blocks:
            streams, exchanged = block(streams, encoded.rows, batch)
            exchanges.append(exchanged)
        pooled = scatter([mean_token(stream) for stream in streams], encoded.rows, batch).flatten(1)
        balance = [one.balance for one in exchanges if one.balance is not None]
        auxiliary = self.balance * torch.stack(balance).sum() if balance else None
        return Fused(pooled + self.residual(pooled), exchanges[-1].routing, auxiliary)


class Block(nn.Module):
    """Attention within each modality, the exchange between them, a network for each; all pre-norm, and added."""

    def __init__(self, dim: int, modalities: int, exchange: ModalityMoE, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(modalities))
        self.attentions = nn.ModuleList(SelfAttention(dim, heads=heads) for _ in range(modalities))
        self.exchange = exchange
        self.networks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), network(dim, 4 * dim, dropout)) for _ in range(modalities)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, streams: Sequence[Tokens], rows: Rows, batch: int) -> tuple[list[Tokens], Exchanged]:
        """The tokens of each modality, of the samples that have it."""
        attended = [
            stream.values + self.dropout(attention(stream._replace(values=norm(stream.values))))
            for stream, norm, attention in zip(streams, self.attention_norms, self.attentions, strict=True)
        ]
        means = [mean_token(stream._replace(values=x)) for stream, x in zip(streams, attended, strict=True)]
        exchanged = self.exchange(means, rows, batch)
        told = self.dropout(exchanged.values)
        values = [x + told[here, place, None] for place, (x, here) in enumerate(zip(attended, rows, strict=True))]
        values = [x + self.dropout(made(x)) for x, made in zip(values, self.networks, strict=True)]
        return [stream._replace(values=x) for stream, x in zip(streams, values, strict=True)], exchanged


def start(ragged: Ragged, kind: Float[Tensor, " d"]) -> Tokens:
    """A modality's tokens, each with the vector that says which modality it is."""
    values, length = ragged.values + kind, ragged.length
    log_count = values.new_zeros(values.shape[:2])
    if length is not None:
        place = torch.arange(values.shape[1], device=values.device)
        log_count = log_count.masked_fill(place >= length[:, None], -math.inf)
    return blank_padding(Tokens(values, log_count))


def network(dim: int, hidden: int, dropout: float) -> nn.Sequential:
    """Two layers."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, dim))
