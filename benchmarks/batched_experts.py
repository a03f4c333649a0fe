"""Experts as one batched product, against a loop over modules: forward and backward, 128 experts of width 256."""

import torch
from timing import compare
from torch import nn

from remind.nn.soft_moe import Experts

DIM, EXPERTS, BATCH = 256, 128, 32


def main() -> None:
    torch.manual_seed(0)
    batched = Experts(DIM, EXPERTS, hidden=4 * DIM)
    looped = nn.ModuleList(
        nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM)) for _ in range(EXPERTS)
    )
    slots = torch.randn(BATCH, EXPERTS, 1, DIM)

    def loop() -> None:
        out = torch.stack([expert(slots[:, place]) for place, expert in enumerate(looped)], dim=1)
        out.square().sum().backward()

    compare(
        "128 experts as one batched product",
        lambda: batched(slots).square().sum().backward(),
        loop,
        named="a Python loop over 128 expert modules",
        target=1.3,
    )


if __name__ == "__main__":
    main()
