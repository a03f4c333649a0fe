"""Runs side by side on a Ray cluster, all of whose machines see the cohort and the suite under the same paths."""

import socket
from collections.abc import Iterator, Sequence

from remind.errors import RemindError, install
from remind.suite.plan import Children, Job, Outcome


def run_on_ray(jobs: Sequence[Job], *, address: str | None, gpus: float) -> Iterator[Outcome]:
    """Run them as Ray has room, each in a process of its own; give each outcome when it is there.

    Args:
        address: of a cluster, as ``ray.init`` takes it; None starts one on this machine.
        gpus: GPUs that a run takes; Ray hides all others from it.

    Raises:
        RemindError: if Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray  # an extra, and slow to import
        from ray.exceptions import RayError
    except ImportError:
        raise RemindError(f"--on ray needs Ray: {install('ray')}.") from None
    _refuse_unreachable(address)
    began = not ray.is_initialized()
    try:
        if began:
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RemindError(f"no Ray cluster at {address or 'this machine'} ({type(error).__name__}).") from None
    try:
        room = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        if jobs[0].threads > room:
            raise RemindError(
                f"a run takes {jobs[0].threads} CPUs, no machine of the cluster has more than {room:g}; "
                "lower train.threads."
            )
        remote = ray.remote(max_retries=0)(_run)
        pending = {remote.options(num_cpus=job.threads, num_gpus=gpus, name=job.name).remote(job): job for job in jobs}
        while pending:
            (done, *_), _ = ray.wait(list(pending), num_returns=1)
            job = pending.pop(done)
            try:
                yield ray.get(done)
            except RayError as error:
                yield Outcome(job.name, "failed", f"Ray lost it ({type(error).__name__}); run the same command.", 0.0)
    finally:
        if began:
            ray.shutdown()


def _refuse_unreachable(address: str | None) -> None:
    """Nothing, if somebody listens at ``host:port``; Ray itself would wait for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise RemindError(f"no Ray cluster at {address} ({error.strerror or 'it does not answer'}).") from None


def _run(job: Job) -> Outcome:
    return job.run(Children())
