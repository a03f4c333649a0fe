"""Plain Soft MoE: one router for everybody. The paper's baseline "Trans"."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from remind.fusions.token_fusion import Imputation, TokenFusion
from remind.nn.block import FusionBlock
from remind.nn.gate import joint_uncertainty
from remind.nn.imputation import Start
from remind.nn.soft_moe import Router, combine_weights, dispatch_weights
from remind.registry import Amount, Positive, Share
from remind.types import Fused, Layout, Routing, Tokens


class SoftMoEFusion(TokenFusion):
    """Attention and Soft MoE (Puigcerver et al. 2024), shared by all combinations; nothing in it belongs to a group.

    What is missing is a learned vector of its modality, which is what an encoder makes of the zeros that the authors'
    earlier code gives it; ``imputation: group`` lends it REMIND's, for an ablation, under REMIND's ``min_count``.
    """

    def __init__(
        self,
        dim: int,
        layout: Layout,
        *,
        experts: Positive = 32,
        slots: Positive = 1,
        heads: Positive = 8,
        hidden: Positive | None = None,
        dropout: Share = 0.0,
        router_scale: Amount = 1.0,
        imputation: Imputation = "modality",
        imputation_start: Start = "normal",
        min_count: Positive = 10,
    ) -> None:
        super().__init__(dim, layout, min_count)
        self.block = FusionBlock(dim, experts, heads=heads, hidden=hidden or 4 * dim, dropout=dropout)
        self.router = Router(dim, experts, slots=slots, start=router_scale)
        self.imputation = self.impute(imputation, layout, imputation_start)

    @property
    def shared_router(self) -> nn.Module:
        """The only router."""
        return self.router

    def fuse(self, tokens: Tokens, group: Int[Tensor, " b"]) -> Fused:
        """Route every sample alike."""

        def route(z: Float[Tensor, "b t d"], log_count: Float[Tensor, "b t"]) -> Routing:
            logits = self.router(z)
            with torch.no_grad():
                uncertainty = joint_uncertainty(logits, log_count)
            opened = torch.zeros_like(uncertainty, dtype=torch.bool)
            return Routing(dispatch_weights(logits, log_count), combine_weights(logits), uncertainty, opened, log_count)

        return self.block(tokens, route)
