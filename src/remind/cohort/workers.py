"""Processes that read ahead."""

from typing import Any

WORTH_IT = 200  # inputs; fewer are read before processes have started


def worker_settings(count: int, inputs: int) -> dict[str, Any]:
    """What a DataLoader must be told to read this many inputs in so many processes; none: in this one.

    They are spawned: a forked child of a process in which polars has threads would wait for locks that no one holds.
    """
    if not count or inputs < WORTH_IT:
        return {}
    return {"num_workers": count, "multiprocessing_context": "spawn", "persistent_workers": True}
