"""One token for all that is missing, against the same written out: forward and backward of REMIND's fusion.

8 modalities of 16 tokens, width 128, 32 experts, batch 32; 80 % of the modalities missing at random, sample by sample.
"""

import torch
from timing import compare

from remind.fusions.remind import RemindFusion
from remind.types import Encoded, Layout, Ragged, Tokens

MODALITIES, LENGTH, DIM, EXPERTS, BATCH, GROUPS = 8, 16, 128, 32, 32, 40


def encoded_of(available: torch.Tensor, group: torch.Tensor) -> Encoded:
    """What encoders would make of the batch."""
    rows = tuple(column.nonzero().ravel() for column in available.unbind(1))
    return Encoded(tuple(Ragged(torch.randn(len(here), LENGTH, DIM)) for here in rows), rows, available, group)


def main() -> None:
    torch.manual_seed(0)
    available = torch.rand(BATCH, MODALITIES) < 0.2
    available[torch.arange(BATCH), torch.randint(MODALITIES, (BATCH,))] = True
    masks = torch.rand(GROUPS, MODALITIES) < 0.2
    layout = Layout((LENGTH,) * MODALITIES, masks, (100,) * GROUPS)
    fusion = RemindFusion(DIM, layout, experts=EXPERTS)
    fusion.specialise()
    group = torch.randint(GROUPS, (BATCH,))
    encoded = encoded_of(available, group)

    def step(tokens: Tokens) -> None:
        fusion.fuse(tokens, group).pooled.square().sum().backward()

    with torch.no_grad():
        collapsed, written_out = fusion.tokens(encoded), fusion.broadcast(encoded)
    compare(
        "a fusion step with collapsed tokens at 80 % missing",
        lambda: step(collapsed),
        lambda: step(written_out),
        named="the same step with every missing token written out",
        target=2.0,
    )


if __name__ == "__main__":
    main()
