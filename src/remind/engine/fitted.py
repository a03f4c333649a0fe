"""A fitted model and all it needs to be used elsewhere: what it learned of the data, and its weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

from remind.cohort.batch import Batch
from remind.cohort.cohort import Cohort
from remind.cohort.combination import Combination, GroupTable
from remind.cohort.dataset import CohortDataset
from remind.cohort.spec import CohortSpec
from remind.cohort.splits import SPLITS
from remind.cohort.tabular import TabularTransform
from remind.config import Recipe
from remind.encoders import ENCODERS
from remind.engine.bundle import read_bundle, write_bundle
from remind.errors import RemindError
from remind.fusions import FUSIONS
from remind.methods import method
from remind.model import Model
from remind.types import Output

FORMAT = 1
CHUNK = 512  # samples a forward pass of prediction


@dataclass
class FittedModel:
    """What ``fit`` gives: predicts for any sample of a cohort with these modalities, whatever it lacks."""

    recipe: Recipe
    spec: CohortSpec
    groups: GroupTable
    transforms: Mapping[str, TabularTransform]
    model: Model

    @classmethod
    def create(cls, cohort: Cohort, recipe: Recipe) -> "FittedModel":
        """An untrained model for a cohort; statistics come from its training rows only."""
        training = cohort.samples[cohort.rows("train")]
        transforms = {name: TabularTransform.fit(training, m) for name, m in cohort.spec.modalities.items()}
        model = build_model(recipe, cohort.spec, cohort.groups, transforms)
        return cls(recipe, cohort.spec, cohort.groups, transforms, model)

    @property
    def classes_(self) -> list[str]:
        """Class names, in the order of ``predict_proba``'s columns."""
        return self.spec.label.classes

    def predict_proba(self, cohort: Cohort) -> np.ndarray:
        """Class probabilities of every sample, ``float64 [n, c]``, in the order of ``cohort.ids``."""
        frame = self.predictions(cohort, np.arange(len(cohort)))
        return frame.select(probability_columns(self.classes_)).to_numpy()

    def predict(self, cohort: Cohort) -> list[str]:
        """The most probable class of every sample."""
        return [self.classes_[place] for place in self.predict_proba(cohort).argmax(axis=1)]

    def predictions(self, cohort: Cohort, rows: np.ndarray) -> pl.DataFrame:
        """One line a sample: id, split, combination, group (-1: unseen in training), target, probabilities, gate."""
        if cohort.classes != self.classes_:
            raise RemindError(
                f"{cohort.spec.name}: its classes ({', '.join(cohort.classes)}) are not those the model was trained on "
                f"({', '.join(self.classes_)})."
            )
        dataset = CohortDataset(cohort, rows, self.transforms, self.groups)
        kept = [
            (output.logits.double().cpu(), output.fused.routing.uncertainty.cpu(), output.fused.routing.opened.cpu())
            for _, output in forward(self.model, dataset)
        ]
        logits, uncertainty, opened = (torch.cat(parts) for parts in zip(*kept, strict=True))
        masks = cohort.available[rows]
        probabilities = logits.softmax(1).numpy()
        return pl.DataFrame(
            {
                "id": [cohort.ids[row] for row in rows],
                "subject": cohort.subjects[rows],
                "split": [SPLITS[place] for place in cohort.split[rows]],
                "combination": [Combination.of(mask).label(cohort.modalities) for mask in masks],
                "group": dataset.group.numpy(),
                "target": dataset.target.numpy(),
                **dict(zip(probability_columns(self.classes_), probabilities.T, strict=True)),
                "uncertainty": uncertainty.numpy(),
                "opened": opened.numpy(),
            }
        )

    def save(self, folder: Path) -> None:
        """Write everything into a bundle."""
        document = {
            "format": FORMAT,
            "recipe": self.recipe.model_dump(mode="json"),
            "spec": self.spec.model_dump(mode="json"),
            "groups": self.groups.to_json(),
            "transforms": {name: transform.to_json() for name, transform in self.transforms.items()},
        }
        write_bundle(folder, self.model.state_dict(), document)

    @classmethod
    def load(cls, folder: Path) -> "FittedModel":
        """Read a bundle that ``save`` wrote.

        Raises:
            RemindError: if it is damaged, or of another version's format.
        """
        tensors, document = read_bundle(folder)
        if document.get("format") != FORMAT:
            raise RemindError(f"{folder}: has format {document.get('format')}; this version reads format {FORMAT}.")
        recipe = Recipe.model_validate(document["recipe"])
        spec = CohortSpec.model_validate(document["spec"])
        groups = GroupTable.from_json(document["groups"])
        transforms = {name: TabularTransform.from_json(data) for name, data in document["transforms"].items()}
        model = build_model(recipe, spec, groups, transforms)
        model.load_state_dict(tensors)
        return cls(recipe, spec, groups, transforms, model)


def build_model(
    recipe: Recipe, spec: CohortSpec, groups: GroupTable, transforms: Mapping[str, TabularTransform]
) -> Model:
    """A model of the recipe's sizes for a cohort's modalities, groups and classes."""
    fusion, dim = method(recipe.method).fusion, recipe.model.dim
    encoders = [
        ENCODERS.build(modality.kind, transforms[name].shape, dim, **recipe.encoders.get(modality.kind, {}))
        for name, modality in spec.modalities.items()
    ]
    return Model(
        tuple(spec.modalities),
        encoders,
        FUSIONS.build(fusion, dim, len(groups), **recipe.fusion_settings(fusion)),
        dim=dim,
        classes=len(spec.label.classes),
        masks=torch.from_numpy(groups.masks),
        shares=torch.from_numpy(groups.shares),
        imputation=recipe.model.imputation,
    )


def probability_columns(classes: list[str]) -> list[str]:
    """The columns of a table of predictions that hold probabilities."""
    return [f"p_{name}" for name in classes]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off and no gradients inside; every part's mode as it was, outside."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def forward(model: nn.Module, dataset: CohortDataset) -> Iterator[tuple[Batch, Output]]:
    """Run a model over a data set, in order, without gradients."""
    device = next(model.parameters()).device
    with evaluating(model):
        for chunk in torch.arange(len(dataset)).split(CHUNK):
            batch = to_device(dataset.__getitems__(chunk.tolist()), device)
            yield batch, model(batch)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch, moved."""
    from lightning_fabric.utilities.apply_func import move_data_to_device

    return move_data_to_device(batch, device)
