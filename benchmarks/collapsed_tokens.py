"""One token for all that is missing, against the same written out: forward and backward of REMIND's fusion.

8 modalities of 16 tokens, width 128, 32 experts, batch 32; 80 % of the modalities missing at random, sample by sample.
"""

import torch
from timing import compare

from remind.fusions.remind import RemindFusion
from remind.nn.tokens import pack
from remind.types import Ragged, Tokens

MODALITIES, LENGTH, DIM, EXPERTS, BATCH, GROUPS = 8, 16, 128, 32, 32, 40


def tokens_of(available: torch.Tensor, *, written_out: bool) -> Tokens:
    """The batch's tokens; written out, every missing modality has its tokens too."""
    shown = torch.ones_like(available) if written_out else available
    encoded = [
        (Ragged(torch.randn(int(column.sum()), LENGTH, DIM)), column.nonzero().ravel()) for column in shown.unbind(1)
    ]
    return pack(encoded, shown, [LENGTH] * MODALITIES, None if written_out else torch.randn(BATCH, DIM))


def main() -> None:
    torch.manual_seed(0)
    available = torch.rand(BATCH, MODALITIES) < 0.2
    available[torch.arange(BATCH), torch.randint(MODALITIES, (BATCH,))] = True
    fusion = RemindFusion(DIM, GROUPS, experts=EXPERTS)
    fusion.specialise()
    group = torch.randint(GROUPS, (BATCH,))

    def step(tokens: Tokens) -> None:
        fusion(tokens, group).pooled.square().sum().backward()

    collapsed, written_out = tokens_of(available, written_out=False), tokens_of(available, written_out=True)
    compare(
        "a fusion step with collapsed tokens at 80 % missing",
        lambda: step(collapsed),
        lambda: step(written_out),
        named="the same step with every missing token written out",
        target=2.0,
    )


if __name__ == "__main__":
    main()
