"""The dot matrix of an UpSet plot, and the two greys of head and tail."""

from collections.abc import Sequence
from typing import Any

HEAD, TAIL = "#4d4d4d", "#bdbdbd"


def dot_matrix(axes: Any, modalities: Sequence[str], names: Sequence[str]) -> None:
    """Dots where a combination, one a column, holds a modality, one a row."""
    for row, modality in enumerate(modalities):
        for column, name in enumerate(names):
            there = modality in name.split("+")
            axes.plot(column, row, "o", color="#333333" if there else "#e3e3e3", markersize=5)
    axes.set_yticks(range(len(modalities)), modalities, fontsize=8, parse_math=False)
    axes.set_ylim(len(modalities) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
