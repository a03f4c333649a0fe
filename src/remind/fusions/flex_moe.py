"""Flex-MoE (Yun et al., NeurIPS 2024): what is missing comes from a bank, and combinations are sent to experts."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from remind.fusions import Fusion
from remind.nn.attention import SelfAttention
from remind.nn.gate import expert_uncertainty
from remind.nn.imputation import MissingBank
from remind.nn.sparse_moe import Gated, NoisyTopK, SparseMoE, cv_squared
from remind.nn.tokens import blank_padding, lay_out, mean_token, padding
from remind.registry import Amount, Positive, Share
from remind.types import Encoded, Fused, Layout, Routing, Tokens


class FlexMoEFusion(Fusion):
    """Bank, learned positions, one layer of attention and sparse MoE, the mean of each modality's tokens side by side.

    As in the official code (UNITES-Lab/Flex-MoE): one noisy top-k gate for the tokens of all modalities,
    and a loss of the gate's own in training (``gate_loss`` times, see ``losses``). Experts, heads and dropout are the
    recipe's, as for every method; the defaults are the official ones. Ours, and why:

    * ``x`` is added back around the attention, as around the experts: the official layer lacks this skip.
    * A combination's expert. There, combinations are numbered, the full one 0, and the S-router's loss takes the number
      for the expert's: more combinations than experts end in an error. Here the full one has expert 0, the others by
      falling frequency 1, 2, ..., and from the last expert round to 1 again: frequent ones keep their own.
    * No warm-up of 5 epochs sorted by number of modalities: every method here sees the data in the same order.
    """

    tries = {"gate_loss": (0.001, 0.01)}
    expert_of: Tensor  # int [g], the expert that a combination's tokens are drawn to

    def __init__(
        self,
        dim: int,
        layout: Layout,
        *,
        experts: Positive = 16,
        top_k: Positive = 4,
        heads: Positive = 4,
        hidden: Positive | None = None,
        dropout: Share = 0.5,
        gate_loss: Amount = 0.01,
    ) -> None:
        super().__init__()
        self.lengths, self.width, self.gate_loss = layout.lengths, len(layout.lengths) * dim, gate_loss
        self.bank = MissingBank(dim, layout)
        self.position = nn.Parameter(torch.zeros(sum(layout.lengths), dim))
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads=heads)
        self.moe_norm = nn.LayerNorm(dim)
        self.gate = NoisyTopK(dim, experts, kept=top_k)
        self.moe = SparseMoE(dim, experts, hidden=hidden or 2 * dim)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("expert_of", target_experts(layout.masks, experts), persistent=False)

    def forward(self, encoded: Encoded) -> Fused:
        """Fuse a batch; a sample's result depends on its own tokens only."""
        laid_out = lay_out(encoded, self.lengths, self.bank(encoded.group, encoded.available))
        x, log_count = blank_padding(laid_out._replace(values=laid_out.values + self.position))
        x = x + self.dropout(self.attention(Tokens(self.attention_norm(x), log_count)))
        z = self.moe_norm(x)
        gated = self.gate(z.flatten(0, 1))
        real = ~padding(laid_out)
        weights = gated.weights * real.flatten()[:, None]
        x = x + self.dropout(self.moe(z.flatten(0, 1), weights).view_as(x))
        means = map(mean_token, map(Tokens, x.split(self.lengths, 1), log_count.split(self.lengths, 1)))
        auxiliary = None if gated.chance is None else self.gate_loss * self.losses(gated, gated.chance, real, encoded)
        return Fused(torch.cat(list(means), dim=1), self._routing(gated, weights, log_count), auxiliary)

    def losses(
        self, gated: Gated, chance: Float[Tensor, "r e"], real: Bool[Tensor, "b t"], encoded: Encoded
    ) -> Float[Tensor, ""]:
        """S-router and balance, summed over modalities, which the official code gates one by one.

        S-router: cross-entropy of the noisy logits to the combination's expert, the mean over the tokens of samples
        that lack something. Balance: CV^2 of importance and load, over the tokens of full samples and all experts, and
        over the others' tokens and all experts but 0. What a batch has no token of counts as 0.
        """
        full = encoded.available.all(1)
        drawn = real & (~full & (encoded.group >= 0))[:, None]
        target = self.expert_of[encoded.group.clamp_min(0)][:, None].expand_as(real)
        entropy = F.cross_entropy(gated.noisy, target.flatten(), reduction="none").view_as(real)
        total = self._by_modality((entropy * drawn)[..., None])
        count = self._by_modality(drawn[..., None].to(total))
        loss = (total / count.clamp_min(1)).sum()
        for each in (gated.weights, chance):
            share = each.unflatten(0, real.shape)
            of_full = self._by_modality(share * (real & full[:, None])[..., None])
            of_partial = self._by_modality(share * (real & ~full[:, None])[..., None])
            loss = loss + cv_squared(of_full).sum() + cv_squared(of_partial[:, 1:]).sum()
        return loss

    def _by_modality(self, values: Float[Tensor, "b t k"]) -> Float[Tensor, "m k"]:
        """Sums over the batch and each modality's places."""
        summed = values.sum(0)
        return summed.new_zeros(len(self.lengths), values.shape[2]).index_add(0, self.bank.place, summed)

    @staticmethod
    @torch.no_grad()
    def _routing(gated: Gated, weights: Float[Tensor, "r e"], log_count: Float[Tensor, "b t"]) -> Routing:
        clean, combine = (part.unflatten(0, log_count.shape)[..., None] for part in (gated.clean, weights))
        opened = torch.zeros(len(log_count), dtype=torch.bool, device=log_count.device)
        return Routing(None, combine, expert_uncertainty(clean, log_count), opened, log_count)


def target_experts(masks: Bool[Tensor, "g m"], experts: int) -> Int[Tensor, " g"]:
    """Expert 0 for the full combination; for the others the rest in turn. Groups come most frequent first."""
    full = masks.all(1)
    rank = (~full).cumsum(0) - 1
    return torch.where(full, 0, 1 + rank % (experts - 1) if experts > 1 else 0)
