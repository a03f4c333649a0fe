"""One token for all that is missing, against the same written out: forward and backward of REMIND's fusion.

8 modalities of 16 tokens, width 128, 32 experts, batches of 32; a share of the modalities missing at random, sample by
sample. Batches come as ``train.pool: 16`` makes them: samples with like numbers of tokens, whatever their combination.
"""

import argparse

import torch
from cases import BATCH, DIM, EXPERTS, GROUPS, encoded_of, forward_and_backward, masks_of, remind_fusion
from timing import compare

from remind.cohort.sampler import BucketSampler

MODALITIES, POOL = 8, 16


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--missing", type=float, default=0.8)
    parser.add_argument("--target", type=float, default=2.0)
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--experts", type=int, default=EXPERTS)
    asked = parser.parse_args()
    torch.manual_seed(0)
    masks = masks_of(BATCH * POOL, MODALITIES, available=1 - asked.missing)
    sampler = BucketSampler(masks.sum(1), batch_size=BATCH, seed=0, pool=POOL)
    batches = [encoded_of(masks[rows], torch.randint(GROUPS, (len(rows),)), asked.dim) for rows in sampler.order(0)]
    fusion = remind_fusion(MODALITIES, dim=asked.dim, experts=asked.experts)
    compare(
        f"a fusion step at {asked.missing:.0%} missing: collapsed tokens, batches of like length",
        lambda: forward_and_backward(fusion, batches, collapsed=True),
        lambda: forward_and_backward(fusion, batches, collapsed=False),
        named="every missing token written out",
        target=asked.target,
    )


if __name__ == "__main__":
    main()
