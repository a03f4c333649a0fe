"""``torchrun ... ranks.py COHORT JOBS``: trains on as many ranks as were started; for test_distributed.

``JOBS`` is JSON: a list of ``{"out", "overrides", "sgd", "die"}``: whether plain SGD takes the place of AdamW, whose
first steps are signs, and so blow rounding up; and a step at which the process kills itself.
"""

import json
import os
import signal
import sys
from unittest.mock import patch

import torch
from killed import Killer

from remind.api import fit
from remind.config import load_recipe
from remind.engine.lazy_adamw import LazyAdamW
from remind.engine.watch import Silence


class Die(Killer):
    def step(self, done: int) -> None:
        if done == self.count:
            os.kill(os.getpid(), signal.SIGKILL)


class SGD(torch.optim.SGD):
    def __init__(self, parts, **_):
        super().__init__(parts)

    def fetch(self, table, rows):
        pass

    def settle(self):
        pass


def main() -> None:
    cohort, jobs = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(1)
    for job in jobs:
        kinds = [SGD, SGD] if job.get("sgd") else [torch.optim.AdamW, LazyAdamW]
        with patch("torch.optim.AdamW", kinds[0]), patch("remind.engine.descent.LazyAdamW", kinds[1]):
            watch = Die("step", job["die"]) if job.get("die") else Silence()
            fit(cohort, recipe=load_recipe(None, job["overrides"]), out=job["out"], watch=watch)


if __name__ == "__main__":
    main()
