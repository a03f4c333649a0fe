"""A training step's fusion in float32 as it is, against bf16-mixed, compiled, and both: defaults follow from it.

4 modalities, half of them available; forward, backward, clipping, AdamW.
"""

import argparse
from collections.abc import Callable
from typing import Literal, get_args

import torch
from cases import BATCH, DIM, EXPERTS, GROUPS, encoded_of, masks_of, remind_fusion
from lightning_fabric import Fabric
from timing import DEVICE, medians_of, report

from remind.config import TrainSettings
from remind.engine.compiled import compile_fusion
from remind.engine.descent import Descent
from remind.model import Model
from remind.types import Encoded

MODALITIES, BATCHES = 4, 4
Precision = Literal["32-true", "bf16-mixed"]


def steps_of(
    batches: list[Encoded], dim: int, experts: int, *, precision: Precision, compiled: bool
) -> Callable[[], None]:
    """Training steps of all batches."""
    fusion = remind_fusion(MODALITIES, dim=dim, experts=experts)
    if compiled:
        compile_fusion(fusion)
    model = Model((), (), fusion, classes=2).to(DEVICE)
    fabric = Fabric(accelerator=DEVICE, devices=1, precision=precision)
    descent = Descent(fabric, model, TrainSettings(batch_size=BATCH), lr=1e-4, decay=0.01, lazily=False)

    def steps() -> None:
        for encoded in batches:
            descent.fetch(encoded.group)
            with fabric.autocast():
                loss = model.classify(fusion(encoded)).logits.float().square().mean()
            loss.backward()
            descent.clip(model)
            descent.step()

    return steps


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
