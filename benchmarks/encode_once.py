"""Stage-two steps on four images (ViT-B/16, all tokens, batch 4): features stored once, or encoded in each step.

The same training, step for step: the weights of both after the timed steps must be equal to the last bit, or there is
no result. Images are random; with random weights the encoders cost what pretrained ones cost.
"""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image
from timing import compare

from remind.cohort.cohort import Cohort, load
from remind.cohort.survey import admit
from remind.config import Recipe
from remind.engine.loop import Training
from remind.engine.run_folder import RunFolder
from remind.engine.watch import Silence

VIEWS, SAMPLES, REPEATS = ("cc", "mlo", "cview_cc", "cview_mlo"), 16, 6


def write_cohort(folder: Path) -> Cohort:
    """Every sample has all four views: the case in which encoding costs most."""
    rng = np.random.default_rng(0)
    rows = []
    for sample in range(SAMPLES):
        row: dict[str, str] = {"exam": f"e{sample:02d}", "density": "ab"[sample % 2]}
        row["part"] = "train" if sample < SAMPLES - 4 else ("validation", "test")[sample % 2]
        for view in VIEWS:
            Image.fromarray(rng.integers(0, 256, (224, 224), dtype=np.uint8)).save(folder / f"{sample}-{view}.png")
            row[view] = f"{sample}-{view}.png"
        rows.append(row)
    spec = {
        "name": "views",
        "id": "exam",
        "label": {"column": "density", "classes": ["a", "b"]},
        "modalities": {view: {"kind": "image", "column": view} for view in VIEWS},
        "split": {"column": "part"},
    }
    return admit(load(pl.DataFrame(rows), spec, root=folder))


def stage_two(cohort: Cohort, folder: Path, features: str) -> Training:
    """REMIND's training at the beginning of its second stage: encoders frozen, residuals in play."""
    settings = {
        "model": {"dim": 128, "experts": 32, "heads": 8, "dropout": 0.0},
        "encoders": {"image": {"weights": "random"}},
        "train": {"batch_size": 4},
        "data": {"features": features},
    }
    training = Training(cohort, Recipe.model_validate(settings), RunFolder(folder / features), folder, Silence())
    training.standing.stage = 1
    training.prepare_stage()
    training.model.train()
    for encoder in training.fitted.model.by_name().values():
        encoder.prepare()
    return training


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cohort = write_cohort(Path(folder))
        stored, live = (stage_two(cohort, Path(folder), features) for features in ("float32", "none"))

        def one(training: Training) -> None:
            training.step(next(training.batches()))

        compare(
            "a stage-two step on four ViT-B/16 views, batch 4, with features stored once",
            lambda: one(stored),
            lambda: one(live),
            named="the same step that runs its frozen encoders",
            target=10.0,
            repeats=REPEATS,
        )
        weights = zip(stored.fitted.model.state_dict().items(), live.fitted.model.state_dict().values(), strict=True)
        for (name, ours), theirs in weights:
            if not torch.equal(ours, theirs):
                raise SystemExit(f"{name} differs between the two trainings; the ratio means nothing.")


if __name__ == "__main__":
    main()
