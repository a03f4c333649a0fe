"""128 experts as one batched product, forward and backward, against a loop over modules or the bare matrix products.

Gradients are dropped before every step, as training does. 32 samples, one slot of each expert.
"""

import argparse

import torch
from timing import DEVICE, compare
from torch import nn

from remind.nn.soft_moe import Experts

EXPERTS, BATCH = 128, 32


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--against", choices=["loop", "products"], default="loop")
    asked = parser.parse_args()
    torch.manual_seed(0)
    dim = asked.dim
    batched = Experts(dim, EXPERTS, hidden=4 * dim).to(DEVICE)
    slots = torch.randn(BATCH, EXPERTS, 1, dim, requires_grad=True, device=DEVICE)

    def ours() -> None:
        batched.zero_grad()
        slots.grad = None
        batched(slots).square().sum().backward()

    if asked.against == "loop":
        looped = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)) for _ in range(EXPERTS)
        ).to(DEVICE)

        def loop() -> None:
            looped.zero_grad()
            slots.grad = None
            out = torch.stack([expert(slots[:, place]) for place, expert in enumerate(looped)], dim=1)
            out.square().sum().backward()

        reference, named, target = loop, f"a Python loop over {EXPERTS} expert modules", 1.3
    else:
        up, down = batched.up.weight.detach(), batched.down.weight.detach()
        given, hidden = (torch.randn(EXPERTS, BATCH, width, device=DEVICE) for width in (dim, 4 * dim))

        def products() -> None:
            """Both layers' outputs, and the gradients of their inputs and weights; all of them kept till the end."""
            kept = [given @ up, hidden @ down, hidden @ up.mT, given @ down.mT, given.mT @ hidden, hidden.mT @ given]
            del kept

        reference, named, target = products, "the six bare matrix products of it", 1 / 1.5
    compare(
        f"{EXPERTS} experts of width {dim}, batched",
        ours,
        reference,
        named=named,
        target=target,
        repeats=15 if dim < 512 else 7,
    )


if __name__ == "__main__":
    main()
