"""``python killed.py JOBS``: trains in child processes that kill themselves at a given moment; for test_resume.

``JOBS`` is JSON: a list of ``{"cohort", "out", "overrides", "moment", "count"}``. The moments: a training ``step``, a
validated ``epoch``, the n-th ``save`` of tensors when half of the file is written, the n-th ``rename`` or ``remove``
before it is done, ``hold`` to wait at a step. One process imports the libraries once; its children only ever fork
before any thread is started.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from remind.api import fit
from remind.config import load_recipe
from remind.engine import bundle


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    """A watch that kills, or holds, the process."""

    def __init__(self, moment: str, count: int) -> None:
        self.moment, self.count, self.seen = moment, count, 0

    def _now(self, moment: str) -> None:
        if moment == self.moment:
            self.seen += 1
            if self.seen == self.count:
                die()

    def begin(self, title: str, steps: int) -> None:
        self._now("begin")

    def note(self, sentence: str) -> None:
        self._now("note")

    def opening(self, done: int, total: int) -> None:
        self._now("opening")

    def encoding(self, modality: str, done: int, total: int) -> None:
        self._now("encoding")

    def step(self, done: int) -> None:
        if self.moment == "hold" and done == self.count:
            print("holding", flush=True)
            signal.pause()
        self._now("step")

    def epoch(self, row: dict[str, Any], groups: Any) -> None:
        self._now("epoch")

    def end(self) -> None:
        self._now("end")

    def lurk(self) -> None:
        """Behind the functions that write."""
        save, rename, remove = bundle.save_file, os.replace, shutil.rmtree

        def saving(tensors: Any, path: Path, *rest: Any) -> None:
            save(tensors, path, *rest)
            if self.moment == "save" and self.seen == self.count - 1:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            self._now("save")

        def renaming(*args: Any, **kwargs: Any) -> None:
            self._now("rename")
            rename(*args, **kwargs)

        def removing(*args: Any, **kwargs: Any) -> None:
            self._now("remove")
            remove(*args, **kwargs)

        bundle.save_file = saving
        shutil.rmtree = removing
        os.replace = renaming
        Path.replace = lambda path, target: renaming(path, target)  # type: ignore[method-assign,assignment]


def train(job: dict[str, Any]) -> None:
    """One child: train until the moment has come."""
    killer = Killer(job["moment"], job["count"])
    killer.lurk()
    fit(job["cohort"], recipe=load_recipe(None, job["overrides"]), out=job["out"], watch=killer)


def main() -> None:
    """Run the jobs, one after the other; print how each child ended: 0, or minus the signal."""
    endings = []
    for job in json.loads(sys.argv[1]):
        if child := os.fork():
            endings.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        else:
            train(job)
            os._exit(0)
    print(json.dumps(endings))


if __name__ == "__main__":
    main()
