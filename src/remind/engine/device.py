"""Batches to devices."""

from typing import TypeVar

import torch

T = TypeVar("T")


def to_device(data: T, device: torch.device) -> T:
    """The same nest of tensors, moved; a batch that need not move is not taken apart."""
    if device.type == "cpu":
        return data
    from lightning_fabric.utilities.apply_func import move_data_to_device

    return move_data_to_device(data, device)
