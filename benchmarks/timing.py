"""Two ways to do the same thing, timed in turn in one process, the answer a ratio; or a command, in one of its own."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

WARM = 3  # repeats that are not counted
DEVICE = os.environ.get("REMIND_BENCH_DEVICE", "cpu")


def compare(
    claim: str,
    ours: Callable[[], None],
    reference: Callable[[], None],
    *,
    named: str,
    target: float,
    repeats: int = 15,
    **beside: Any,
) -> None:
    """Print one JSON object: how many times faster ours is than the reference, and what is to be told beside."""
    medians = medians_of({"ours": ours, "reference": reference}, repeats=repeats)
    ratio = medians["reference"] / medians["ours"]
    report(claim, named, ratio, target, median_seconds=medians, **beside)


def medians_of(ways: dict[str, Callable[[], None]], *, repeats: int = 15) -> dict[str, float]:
    """Median seconds of each way to do something, by interleaved repeats."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(WARM + repeats):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            if repeat >= WARM:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def exponent(points: Sequence[Mapping[str, float]], of: str, cost: str) -> float:
    """The power of ``of`` that ``cost`` grows as, by least squares of the logarithms."""
    x, y = (np.log([point[key] for point in points]) for key in (of, cost))
    return float(np.polyfit(x, y, 1)[0])


def report(claim: str, named: str, ratio: float, target: float, **beside: Any) -> None:
    """The line that ``run.py`` reads."""
    print(json.dumps({"claim": claim, "reference": named, "ratio": round(ratio, 3), "target": target, **beside}))


def measured(*words: str) -> dict[str, float]:
    """Wall seconds and peak resident GiB of ``remind WORDS``."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "remind", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"remind {' '.join(words)} ended with exit code {child.returncode}")
    return {"seconds": round(time.perf_counter() - start, 2), "gib": round(usage.ru_maxrss / 2**20, 3)}
