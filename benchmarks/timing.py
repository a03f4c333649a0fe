"""Two ways to do the same thing, timed in turn in one process; the answer is a ratio."""

import json
import statistics
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
