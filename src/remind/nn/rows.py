"""Rows of a table, with a gradient that holds no others."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rows_of(table: Float[Tensor, "g *w"], index: Int[Tensor, " b"], *, sparse: bool) -> Float[Tensor, "b *w"]:
    """``table[index]``; if ``sparse``, the table's gradient is sparse, so that a step's cost knows nothing of ``g``."""
    if not sparse:
        return table[index]
    found = _Rows.apply(table, index)
    assert isinstance(found, Tensor)
    return found


class _Rows(torch.autograd.Function):
    """``torch.nn.functional.embedding`` has a sparse gradient for tables of two dimensions only."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = table.shape
        return table[index]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (index,), (grad,) = ctx.saved_tensors, grads
        return torch.sparse_coo_tensor(index[None], grad, ctx.shape, check_invariants=False), None
