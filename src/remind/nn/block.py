"""The fusion block: pre-norm self-attention, then pre-norm Soft MoE under whatever routing it is given."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from remind.nn.attention import SelfAttention
from remind.nn.soft_moe import SoftMoE
from remind.nn.tokens import blank_padding, mean_token
from remind.types import Fused, Routing, Tokens

Route = Callable[[Float[Tensor, "b t d"], Float[Tensor, "b t"]], Routing]


class FusionBlock(nn.Module):
    """``h = x + attention(norm(x))``, ``y = h + moe(norm(h))``, then the mean token."""

    def __init__(self, dim: int, experts: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads=heads)
        self.moe_norm = nn.LayerNorm(dim)
        self.moe = SoftMoE(dim, experts, hidden=hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tokens, route: Route) -> Fused:
        """Fuse the tokens of each sample; a sample's result depends on its own tokens only."""
        x, log_count = blank_padding(tokens)
        x = x + self.dropout(self.attention(Tokens(self.attention_norm(x), log_count)))
        z = self.moe_norm(x)
        routing = route(z, log_count)
        x = x + self.dropout(self.moe(z, routing.dispatch, routing.combine))
        return Fused(mean_token(Tokens(x, log_count)), routing)
