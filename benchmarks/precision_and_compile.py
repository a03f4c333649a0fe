"""A training step's fusion in float32 as it is, against bf16-mixed, compiled, and both: defaults follow from it.

4 modalities, half of them available; forward, backward, clipping, AdamW.
"""

import argparse
from collections.abc import Callable
from typing import get_args

import torch
from cases import BATCH, DIM, EXPERTS, GROUPS, Precision, encoded_of, masks_of, remind_fusion, training_steps
from timing import DEVICE, medians_of, report

from remind.engine.compiled import compile_fusion
from remind.types import Encoded

MODALITIES, BATCHES = 4, 4


def steps_of(
    batches: list[Encoded], dim: int, experts: int, *, precision: Precision, compiled: bool
) -> Callable[[], None]:
    """Training steps of all batches."""
    fusion = remind_fusion(MODALITIES, dim=dim, experts=experts)
    if compiled:
        compile_fusion(fusion)
    return training_steps(fusion, batches, precision=precision, lazily=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--experts", type=int, default=EXPERTS)
    asked = parser.parse_args()
    torch.manual_seed(0)
    masks = masks_of(BATCHES * BATCH, MODALITIES, available=0.5)
    batches = [encoded_of(part, torch.randint(GROUPS, (BATCH,)), asked.dim) for part in masks.split(BATCH)]
    ways = {
        f"{precision}{', compiled' if compiled else ''}": steps_of(
            batches, asked.dim, asked.experts, precision=precision, compiled=compiled
        )
        for precision in get_args(Precision)
        for compiled in (False, True)
    }
    medians = medians_of(ways)
    reference = medians.pop("32-true")
    best = min(medians, key=medians.__getitem__)
    report(
        f"the fastest of bf16-mixed, compiled, both: {best} (d = {asked.dim}, {asked.experts} experts, {DEVICE})",
        "a training step of the fusion in float32 as it is",
        reference / medians[best],
        1.0,
        median_seconds={"32-true": reference, **medians},
    )


if __name__ == "__main__":
    main()
