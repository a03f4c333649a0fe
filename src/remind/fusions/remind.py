"""REMIND's fusion: Soft MoE whose router has a residual for every modality combination."""

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from remind.fusions.token_fusion import Imputation, TokenFusion
from remind.nn.block import FusionBlock
from remind.nn.gate import Measure
from remind.nn.group_router import GroupRouter
from remind.nn.imputation import Start
from remind.registry import Amount, Positive, Share
from remind.types import Fused, Layout, Routing, Tokens


class RemindFusion(TokenFusion):
    """Attention and Soft MoE under group-residual routing (Eq. 7), opened by the gate (Eq. 8) from stage two on.

    What is missing is a learned vector of the sample's group, ``B_k``. Both belong to groups of ``min_count`` training
    samples or more; rarer ones are treated as combinations unseen in training are (decision 26).
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
        gate: Measure = "joint",
        threshold: float | str | None = None,
        residual_init: Literal["zeros", "sinusoidal"] = "zeros",
        imputation: Imputation = "group",
        imputation_start: Start = "normal",
        min_count: Positive = 10,
    ) -> None:
        super().__init__(dim, layout, min_count)
        self.block = FusionBlock(dim, experts, heads=heads, hidden=hidden or 4 * dim, dropout=dropout)
        self.router = GroupRouter(
            dim,
            experts,
            len(self.having),
            slots=slots,
            start=router_scale,
            gate=gate,
            threshold=threshold,
            init=residual_init,
        )
        self.imputation = self.impute(imputation, layout, imputation_start)

    @property
    def shared_router(self) -> nn.Module:
        """The vectors and the scale that all groups share."""
        return self.router.shared

    def fuse(self, tokens: Tokens, group: Int[Tensor, " b"]) -> Fused:
        """Route each sample by the shared router or, where that is unsure, with its group's residual."""

        def route(z: Float[Tensor, "b t d"], log_count: Float[Tensor, "b t"]) -> Routing:
            return self.router(z, log_count, group)

        return self.block(tokens, route)

    def of_groups(self) -> list[nn.Parameter]:
        """The residuals."""
        return [self.router.residual]

    def sparsely(self) -> None:
        """The residuals' gradients are to hold the rows of the batch's groups."""
        self.router.sparse = True

    def specialise(self) -> None:
        """Bring the residuals into play."""
        self.router.specialise()

    def after_step(self, fused: Fused) -> None:
        """Let a gate whose threshold is a quantile follow the routing."""
        self.router.gate.observe(fused.routing.uncertainty)
