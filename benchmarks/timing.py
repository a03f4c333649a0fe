"""Two ways to do the same thing, timed in turn in one process, the answer a ratio; or a command, in one of its own."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

WARM = 3  # repeats that are not counted


def compare(
    claim: str,
    ours: Callable[[], None],
    reference: Callable[[], None],
    *,
    named: str,
    target: float,
    repeats: int = 15,
) -> None:
    """Print one JSON object: how many times faster ours is than the reference, by medians of interleaved repeats."""
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    for repeat in range(WARM + repeats):
        for name, run in (("ours", ours), ("reference", reference)):
            start = time.perf_counter()
            run()
            if repeat >= WARM:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["reference"] / medians["ours"]
    print(
        json.dumps(
            {"claim": claim, "reference": named, "ratio": round(ratio, 3), "target": target, "median_seconds": medians}
        )
    )


def measured(*words: str) -> dict[str, float]:
    """Wall seconds and peak resident GiB of ``remind WORDS``."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "remind", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"remind {' '.join(words)} ended with exit code {child.returncode}")
    return {"seconds": round(time.perf_counter() - start, 2), "gib": round(usage.ru_maxrss / 2**20, 3)}
