"""A training step of REMIND with many groups against Soft MoE's: forward, backward, clipping, AdamW.

12 modalities of 16 tokens, width 128, 32 experts, batches of 32 drawn evenly from the groups, so that a batch holds as
many groups as it can. Both have a vector of the group for what is missing, so that routing is the difference.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from cases import BATCH, DIM, EXPERTS, LENGTH, encoded_of, training_steps
from timing import compare

from remind.fusions import FUSIONS
from remind.types import Layout

MODALITIES, BATCHES = 12, 4


def step_of(name: str, masks: torch.Tensor, dim: int, experts: int, **settings: Any) -> Callable[[], None]:
    """``BATCHES`` training steps of a fusion, by the engine's own optimiser."""
    layout = Layout((LENGTH,) * MODALITIES, masks, (100,) * len(masks))
    fusion = FUSIONS.get(name)(dim, layout, experts=experts, **settings)
    fusion.specialise()
    groups = torch.randint(len(masks), (BATCHES, BATCH))
    return training_steps(fusion, [encoded_of(masks[group], group, dim) for group in groups], lazily=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--experts", type=int, default=EXPERTS)
    asked = parser.parse_args()
    torch.manual_seed(0)
    numbers = torch.randperm(2**MODALITIES - 1)[: asked.groups] + 1
    masks = (numbers[:, None] >> torch.arange(MODALITIES) & 1).bool()
    size = asked.dim, asked.experts
    compare(
        f"a training step of REMIND with {asked.groups:,} groups, d = {asked.dim}, {asked.experts} experts",
        step_of("remind", masks, *size),
        step_of("soft_moe", masks, *size, imputation="group"),
        named="a training step of Soft MoE",
        target=1 / 1.15,
    )


if __name__ == "__main__":
    main()
