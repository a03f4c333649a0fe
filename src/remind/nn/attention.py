"""Self-attention in which one token can stand for many."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from remind.types import Tokens


class SelfAttention(nn.Module):
    """Multi-head self-attention over the tokens of each sample.

    ``log_count`` is added to the logits before the softmax over keys, so a token that stands for ``c`` identical ones
    weighs as much as all of them, and padding (``-inf``) weighs nothing.
    """

    def __init__(self, dim: int, *, heads: int = 8) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim ({dim}) must be a multiple of heads ({heads})")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tokens) -> Float[Tensor, "b t d"]:
        """One attended vector a token; those of padding are finite and mean nothing."""
        batch, width, dim = tokens.values.shape
        query, key, value = (
            part.unflatten(-1, (self.heads, dim // self.heads)).transpose(1, 2)
            for part in self.qkv(tokens.values).chunk(3, dim=-1)
        )
        mask = tokens.log_count.to(query.dtype)[:, None, None, :].expand(batch, 1, width, width)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(attended.transpose(1, 2).reshape(batch, width, dim))
