"""Batches of tokens, and a fusion for them, at the size that the claims about a step are made for."""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from lightning_fabric import Fabric
from timing import DEVICE
from torch import Tensor

from remind.config import TrainSettings
from remind.engine.descent import Descent
from remind.fusions import Fusion
from remind.fusions.remind import RemindFusion
from remind.model import Model
from remind.types import Encoded, Layout, Ragged

LENGTH, DIM, EXPERTS, BATCH, GROUPS = 16, 128, 32, 32, 40
Precision = Literal["32-true", "bf16-mixed"]


def masks_of(samples: int, modalities: int, *, available: float) -> Tensor:
    """Which modalities each of some samples has, drawn one by one; at least one."""
    drawn = torch.rand(samples, modalities) < available
    drawn[torch.arange(samples), torch.randint(modalities, (samples,))] = True
    return drawn


def encoded_of(available: Tensor, group: Tensor, dim: int = DIM) -> Encoded:
    """What encoders would make of a batch."""
    available, group = available.to(DEVICE), group.to(DEVICE)
    rows = tuple(column.nonzero().ravel() for column in available.unbind(1))
    tokens = tuple(Ragged(torch.randn(len(here), LENGTH, dim, device=DEVICE)) for here in rows)
    return Encoded(tokens, rows, available, group)


def remind_fusion(modalities: int, *, dim: int = DIM, experts: int = EXPERTS) -> RemindFusion:
    """With ``GROUPS`` groups, all with parameters of their own, and the residuals in play."""
    layout = Layout((LENGTH,) * modalities, torch.rand(GROUPS, modalities) < 0.5, (100,) * GROUPS)
    fusion = RemindFusion(dim, layout, experts=experts)
    fusion.specialise()
    return fusion.to(DEVICE)


def forward_and_backward(fusion: RemindFusion, batches: Iterable[Encoded], *, collapsed: bool) -> None:
    """A step's fusion for each batch, from its encoded modalities to the gradients of them and of the weights."""
    for encoded in batches:
        fusion.zero_grad()
        tokens = fusion.tokens(encoded) if collapsed else fusion.broadcast(encoded)
        fusion.fuse(tokens, encoded.group).pooled.square().sum().backward()


def training_steps(
    fusion: Fusion, batches: Iterable[Encoded], *, precision: Precision = "32-true", lazily: bool
) -> Callable[[], None]:
    """A step for each batch by the engine's own optimiser: forward, backward, clipping, AdamW."""
    model = Model((), (), fusion, classes=2).to(DEVICE)
    fabric = Fabric(accelerator=DEVICE, devices=1, precision=precision)
    descent = Descent(fabric, model, TrainSettings(batch_size=BATCH), lr=1e-4, decay=0.01, lazily=lazily)

    def steps() -> None:
        for encoded in batches:
            descent.fetch(encoded.group)
            with fabric.autocast():
                loss = model.classify(fusion(encoded)).logits.float().square().mean()
            loss.backward()
            descent.clip(model)
            descent.step()

    return steps
