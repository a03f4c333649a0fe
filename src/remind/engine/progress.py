"""Where a run stands between two steps, as plain data."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Standing:
    """Everything that is not a tensor and must survive a restart. Floats keep every bit as JSON."""

    stage: int = 0
    epoch: int = 0  # validated, of this stage
    step: int = 0  # of the run
    stale: int = 0  # epochs of this stage since the best score
    best: float | None = None  # validation score
    selected: dict[str, Any] = field(default_factory=dict)  # the epoch that has it
    loss_sum: float = 0.0  # of the epoch under way, as the two below
    opened_sum: float = 0.0
    samples: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    gradients: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)
