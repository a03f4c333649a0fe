"""Runs side by side on this machine."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from remind.suite.plan import Children, Job, Outcome


def run_here(jobs: Sequence[Job], *, at_once: int) -> Iterator[Outcome]:
    """Run so many at a time, each in a process of its own; give each outcome when it is there.

    Whatever ends this ends the processes, too; what they had reached is in their folders.
    """
    children = Children()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for done in as_completed([pool.submit(job.run, children) for job in jobs]):
                yield done.result()
        finally:
            children.end()
            pool.shutdown(cancel_futures=True)
