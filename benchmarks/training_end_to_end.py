"""Seconds from cohort to finished run on NHANES for every method; an epoch of REMIND's stage two against plain code.

Both train the same model: before any is timed, the plain one must give the product's logits with its weights.
"""

import tempfile
import time
from pathlib import Path

import torch
from reference.plain_remind import PlainRemind, PlainTraining
from timing import compare
from torch.utils.data import TensorDataset

from remind.api import fit
from remind.cohort.cohort import Cohort, load
from remind.config import load_recipe
from remind.encoders.tabular import TabularEncoder
from remind.engine.loop import Training
from remind.engine.run_folder import RunFolder
from remind.engine.watch import Silence
from remind.methods import METHODS
from remind.modalities.tabular import TabularInput, TabularTransform
from remind.sources import nhanes

# A mean of the weights over steps, and groups without parameters, are the product's own: the plain code has neither.
SAME = ("method=remind", "train.average=0", "fusions.remind.min_count=1")


def stage_two(cohort: Cohort, folder: Path) -> Training:
    """REMIND's training where its second stage begins, with residuals that say something."""
    training = Training(cohort, load_recipe("demo", SAME), RunFolder(folder / "ours"), folder, Silence())
    training.standing.stage = 1
    training.prepare_stage()
    for parameter in training.fitted.model.fusion.of_groups():
        torch.nn.init.normal_(parameter, std=0.1)
    return training


def plainly(training: Training) -> PlainTraining:
    """The same stage of the same model, plain.

    Raises:
        SystemExit: if its logits are others.
    """
    fitted, dataset = training.fitted, training.training
    sizes, settings = fitted.recipe.model, fitted.recipe.train
    encoders = [
        TabularEncoder(transform.shape, sizes.dim, tokens=2, dropout=0.3)
        for transform in fitted.transforms.values()
        if isinstance(transform, TabularTransform)
    ]
    plain = PlainRemind(
        encoders,
        dim=sizes.dim,
        experts=sizes.experts,
        heads=sizes.heads,
        dropout=sizes.dropout,
        groups=len(fitted.groups),
        classes=len(fitted.classes_),
    )
    plain.take(fitted.model)
    every = range(len(dataset))
    columns = [column for read in dataset.readers.values() for column in read(every)]
    first = slice(0, 200)
    inputs = [TabularInput(*(one[first] for one in columns[at : at + 3])) for at in range(0, len(columns), 3)]
    with torch.no_grad():
        ours = fitted.model.eval()(dataset.__getitems__(every[first])).logits
        theirs = plain.eval()(inputs, dataset.available[first], dataset.group[first])
    if not torch.allclose(ours, theirs, atol=1e-4):
        raise SystemExit(f"the plain model's logits are others, by up to {(ours - theirs).abs().max():.2g}")
    shares = torch.tensor(fitted.groups.counts) / sum(fitted.groups.counts)
    return PlainTraining(
        plain,
        TensorDataset(dataset.available, dataset.group, dataset.target, *columns),
        shares,
        batch_size=settings.batch_size,
        lr=settings.lr * settings.later_lr,
        decay=settings.weight_decay,
        every=fitted.recipe.objectives["group_dro"]["refresh_every"],
    )


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        cohort, seconds = load(nhanes.write(folder / "cohort")), {}
        for method in METHODS:
            begun = time.perf_counter()
            fit(cohort, method, recipe=load_recipe("demo"), out=folder / method)
            seconds[method] = round(time.perf_counter() - begun, 1)
        training = stage_two(cohort, folder)
        plain = plainly(training)

        def epoch() -> None:
            training.model.train()
            for batch in training.batches():
                training.step(batch)

        compare(
            "an epoch of REMIND's second stage on NHANES",
            epoch,
            plain.epoch,
            named="the same model written plainly (`benchmarks/reference/plain_remind.py`)",
            target=4.0,
            repeats=7,
            run_seconds=seconds,
        )


if __name__ == "__main__":
    main()
