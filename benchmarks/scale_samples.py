"""Training against the number of samples, features on disk: seconds an epoch, and memory.

A text of each sample is encoded once, and both stages read its features from the store. What stands for the encoder
draws numbers, for a T5 would take half an hour for a million texts here, and tell nothing of the rest. Memory is what
belongs to the process alone (``RssAnon``): pages of the mapped store are the system's, which takes them back at will.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from timing import exponent, report

from remind.analysis.cost import resident
from remind.cohort.cohort import load
from remind.cohort.table import write_cohort
from remind.config import load_recipe
from remind.encoders import Backbone
from remind.engine import feature_store
from remind.engine.loop import train
from remind.engine.watch import Silence
from remind.modalities.text import TextInput
from remind.types import Ragged

SAMPLES = (10_000, 100_000, 1_000_000)
RECIPE = (
    *("method=remind", "model.dim=32", "model.experts=4"),
    *("modalities.note.weights=random", "modalities.note.frozen=true", "modalities.note.limit=8"),
    *("train.epochs=2", "train.batch_size=256", "train.device=cpu", "train.threads=1"),
    *("train.focal_gamma=0", "train.checkpoint_every=100000"),
)


def write(folder: Path, samples: int) -> None:
    """Notes of a few letters, no two alike; labs for half of the samples, and notes for four in five."""
    rng = np.random.default_rng(0)
    number, labs = np.arange(samples), rng.standard_normal(samples)
    has_labs = rng.random(samples) < 0.5
    has_note = ~has_labs | (rng.random(samples) < 0.6)
    table = pl.DataFrame(
        {
            "id": [f"{n:07d}" for n in number],
            "outcome": np.where(labs * has_labs + rng.standard_normal(samples) > 0, "yes", "no"),
            "glucose": pl.Series(labs).set(pl.Series(~has_labs), None),
            "note": pl.Series([f"{n:x}" for n in number]).set(pl.Series(~has_note), None),
        }
    )
    spec = {
        "name": f"notes of {samples}",
        "id": "id",
        "label": {"column": "outcome", "classes": ["no", "yes"]},
        "modalities": {
            "labs": {"kind": "tabular", "columns": ["glucose"]},
            "note": {"kind": "text", "column": "note"},
        },
    }
    write_cohort(folder, spec, table)


def child(folder: Path) -> None:
    """Train; say how long an epoch of each stage took, and the most memory there was."""
    peak, over = [0], threading.Event()

    def watch_memory() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], resident("RssAnon"))

    class Clock(Silence):
        steps: list[float] = []

        def step(self, done: int) -> None:
            self.steps.append(time.perf_counter())

    def drawn(backbone: Backbone, texts: TextInput) -> Ragged:
        return Ragged(torch.randn(*texts.ids.shape, backbone.width), texts.length)

    feature_store.features = drawn
    threading.Thread(target=watch_memory, daemon=True).start()
    clock = Clock()
    train(load(folder), load_recipe(None, RECIPE), folder / "run", folder / "store", clock)
    over.set()
    half = len(clock.steps) // 2
    ends = clock.steps[half], clock.steps[-1]
    print(json.dumps({"epoch_seconds": ends[1] - ends[0], "steps": half, "mib": peak[0] / 2**20}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES)
    parser.add_argument("--child", type=Path)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child)
        return
    points = []
    for samples in asked.samples:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "cohort"
            write(folder, samples)
            begun = time.perf_counter()
            done = subprocess.run(
                [sys.executable, __file__, "--child", folder], check=True, stdout=subprocess.PIPE, text=True
            )
            store = sum(file.stat().st_size for file in (folder / "store").rglob("*") if file.is_file())
            point = {"samples": samples, "seconds": time.perf_counter() - begun, "store_mib": store / 2**20}
            points.append(point | json.loads(done.stdout))
            print(points[-1], file=sys.stderr)
    slope = exponent(points, "samples", "epoch_seconds")
    grown = points[-1]["mib"] - points[0]["mib"]
    report(
        f"memory of a run, {points[0]['samples']:,} to {points[-1]['samples']:,} samples, features on disk: "
        f"{grown:.0f} MiB more; an epoch's time grows as samples^{slope:.2f}",
        "200 MiB more",
        200 / max(grown, 1),
        1.0,
        points=points,
        exponent=slope,
    )


if __name__ == "__main__":
    main()
