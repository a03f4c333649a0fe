"""What a prediction does on the way from one sample to another."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from remind.types import Tokens

STEP = 1e-2  # in float32 the error of the difference, and that of rounding over it, are both near 1e-5


def mixed(a: Tokens, b: Tokens, t: Float[Tensor, ""]) -> Tokens:
    """``t`` of ``a`` and ``1 - t`` of ``b``, place by place: of the counts, and of the values as counted."""
    from_a, from_b = t * a.log_count.exp(), (1 - t) * b.log_count.exp()
    count = from_a + from_b
    part = torch.where(count > 0, from_a / count, 0.0)[..., None].to(a.values.dtype)
    return Tokens(part * a.values + (1 - part) * b.values, count.log())


def slope(
    predict: Callable[[Tokens], Float[Tensor, "m c"]], a: Tokens, b: Tokens, t: Float[Tensor, ""], *, step: float = STEP
) -> Float[Tensor, "n c"]:
    """``d/dt`` of what is predicted at ``t a + (1 - t) b``: a central difference, both sides of it in one pass.

    ``t`` must be ``step`` away from 0 and 1. Neither forward mode nor a derivative of a derivative goes through fused
    attention; and through a layer norm, torch's forward mode has a wrong gradient (2.14).
    """
    sides = zip(mixed(a, b, t + step), mixed(a, b, t - step), strict=True)
    above, below = predict(Tokens(*(torch.cat(side) for side in sides))).chunk(2)
    return (above - below) / (2 * step)


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """No dropout inside; all else in the mode it is in."""
    dropouts = [part for part in module.modules() if isinstance(part, nn.Dropout) and part.training]
    for dropout in dropouts:
        dropout.eval()
    try:
        yield
    finally:
        for dropout in dropouts:
            dropout.train()
