"""A fitted model and all it needs to be used elsewhere: what it learned of the data, and its weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from remind.cohort.batch import Batch
from remind.cohort.cohort import Cohort, unlabelled
from remind.cohort.combination import Combination, GroupTable
from remind.cohort.dataset import CohortDataset
from remind.cohort.spec import CohortSpec
from remind.cohort.splits import SPLITS
from remind.cohort.survey import admit
from remind.cohort.table import Frame, as_polars
from remind.config import Recipe
from remind.encoders import ENCODERS
from remind.engine.bundle import read_bundle, write_bundle
from remind.engine.device import to_device
from remind.engine.feature_store import FeatureStore, Inputs
from remind.engine.watch import Silence, Watch
from remind.errors import RemindError, unknown
from remind.fusions import FUSIONS
from remind.methods import method
from remind.modalities import TRANSFORMS, Transform
from remind.model import Model
from remind.nn.losses import focal_loss
from remind.pretrained import RANDOM
from remind.types import Layout, Output

FORMAT = 2


@dataclass
class FittedModel:
    """What ``fit`` gives: predicts for any sample of a cohort with these modalities, whatever it lacks."""

    recipe: Recipe
    spec: CohortSpec
    groups: GroupTable
    transforms: Mapping[str, Transform]
    model: Model

    @classmethod
    def create(cls, cohort: Cohort, recipe: Recipe) -> "FittedModel":
        """An untrained model for a cohort; statistics come from its training rows only."""
        for name in recipe.modalities:
            if name not in cohort.spec.modalities:
                raise RemindError(f"the recipe's modalities: {unknown('modality', name, cohort.modalities)}")
        training, transforms = cohort.rows("train"), {}
        for place, (name, modality) in enumerate(cohort.spec.modalities.items()):
            having = training[cohort.available[training, place]]
            settings = recipe.encoder_settings(name, modality.kind)
            transforms[name] = TRANSFORMS.get(modality.kind).fit(cohort.cells(name, having), settings)
        model = build_model(recipe, cohort.spec, cohort.groups, transforms)
        return cls(recipe, cohort.spec, cohort.groups, transforms, model)

    def with_weights(self, weights: Mapping[str, Tensor], device: torch.device) -> "FittedModel":
        """The same with a model of its own, of these weights."""
        model = build_model(self.recipe, self.spec, self.groups, self.transforms, weights=RANDOM)
        model.load_state_dict(weights)
        return replace(self, model=model.to(device))

    @property
    def classes_(self) -> list[str]:
        """Class names, in the order of ``predict_proba``'s columns."""
        return self.spec.label.classes

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of single samples, ``[b]``."""
        return focal_loss(logits.float(), target, gamma=self.recipe.train.focal_gamma)

    def predict_proba(self, samples: Cohort | Frame, *, root: str | Path | None = None) -> np.ndarray:
        """Class probabilities ``float64 [n, c]``, in the order of ``cohort.ids``, or of a table's rows.

        A table needs no label, id, subject or split; ``root`` is where paths in it start, by default the
        spec's ``root``, or here.
        """
        cohort = samples if isinstance(samples, Cohort) else unlabelled(self.spec, as_polars(samples), root)
        frame = self.predictions(cohort, np.arange(len(cohort)))
        return frame.select(probability_columns(self.classes_)).to_numpy()

    def predict(self, samples: Cohort | Frame, *, root: str | Path | None = None) -> list[str]:
        """The most probable class of every sample."""
        return [self.classes_[place] for place in self.predict_proba(samples, root=root).argmax(axis=1)]

    def predictions(self, cohort: Cohort, rows: np.ndarray, store: FeatureStore | None = None) -> pl.DataFrame:
        """One line a sample: id, split, combination, group (-1: unseen in training), target, probabilities, gate.

        With a ``store``, backbones run only on inputs whose features are not there yet.
        """
        self.refuse_other(cohort)
        cohort = self.admit(cohort)
        dataset = self.dataset(cohort, rows)
        with evaluating(self.model):
            if store:
                self.encode_once(cohort, [dataset], store, Silence())
            kept = [
                (out.logits.double().cpu(), out.fused.routing.uncertainty.cpu(), out.fused.routing.opened.cpu())
                for _, out in forward(self.model, dataset, size=self.recipe.train.batch_size)
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

    def refuse_other(self, cohort: Cohort) -> None:
        """Nothing, if the cohort's classes and modalities are those the model was trained on.

        Raises:
            RemindError: naming both, if they are not.
        """
        theirs = {"classes": cohort.classes, "modalities": list(cohort.modalities)}
        for what, known in (("classes", self.classes_), ("modalities", list(self.groups.modalities))):
            if theirs[what] != known:
                raise RemindError(
                    f"{cohort.spec.name}: its {what} ({', '.join(theirs[what])}) are not those the model was trained "
                    f"on ({', '.join(known)}); name them alike, in the same order, in cohort.yaml."
                )

    def dataset(self, cohort: Cohort, rows: np.ndarray) -> CohortDataset:
        """Batches of some samples.

        Raises:
            RemindError: if the cohort's modalities are not those the model was trained on.
        """
        for name, modality in self.spec.modalities.items():
            theirs = cohort.spec.modalities.get(name)
            if theirs and theirs.kind != modality.kind:
                raise RemindError(
                    f"{cohort.spec.name}: modality {name!r} is of kind {theirs.kind}; the model knows it as "
                    f"{modality.kind}."
                )
        return CohortDataset(cohort, rows, self.transforms, self.groups)

    def admit(self, cohort: Cohort, cache: Path | None = None) -> Cohort:
        """The cohort with its files opened, under the recipe's rule for those that cannot be read, however many."""
        data = self.recipe.data
        return admit(cohort, unreadable=data.unreadable, budget=1.0, workers=data.workers, cache=cache)

    def store(self, folder: Path) -> FeatureStore | None:
        """A store of features as the recipe wants it; None if it wants none."""
        data = self.recipe.data
        if data.features == "none":
            return None
        return FeatureStore(folder, precision=data.features, workers=data.workers)

    def encode_once(self, cohort: Cohort, datasets: Sequence[CohortDataset], store: FeatureStore, watch: Watch) -> None:
        """Give the datasets features in place of inputs, wherever a backbone is frozen."""
        for name, encoder in self.model.by_name().items():
            backbone = encoder.backbone
            if backbone is None or any(parameter.requires_grad for parameter in backbone.parameters()):
                continue
            settings = self.recipe.encoder_settings(name, self.spec.modalities[name].kind)
            data = {key: value for key, value in self.transforms[name].to_json().items() if key != "notes"}
            shelf = store.shelf(name, backbone, {"transform": data, "settings": _of_backbone(settings)})
            rows = np.concatenate([dataset.rows.numpy() for dataset in datasets])
            content = cohort.content(name)
            having = rows[[content[row] is not None for row in rows]]
            read = self.transforms[name].reader(cohort.cells(name, having))
            shelf.fill(Inputs([str(content[row]) for row in having], read), watch)
            for dataset in datasets:
                dataset.readers[name] = shelf.reader([content[row] for row in dataset.rows.tolist()])

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
        transforms = {
            name: TRANSFORMS.get(modality.kind).from_json(document["transforms"][name])
            for name, modality in spec.modalities.items()
        }
        model = build_model(recipe, spec, groups, transforms, weights=RANDOM)
        model.load_state_dict(tensors)
        model.requires_grad_(False)
        return cls(recipe, spec, groups, transforms, model)


def build_model(
    recipe: Recipe,
    spec: CohortSpec,
    groups: GroupTable,
    transforms: Mapping[str, Transform],
    *,
    weights: str | None = None,
) -> Model:
    """A model of the recipe's sizes for a cohort's modalities, groups and classes.

    ``weights`` says where every pretrained encoder's come from, in place of what the recipe says.
    """
    fusion, dim = method(recipe.method).fusion, recipe.model.dim
    encoders = []
    for name, modality in spec.modalities.items():
        settings = recipe.encoder_settings(name, modality.kind)
        if weights and "weights" in settings:
            settings["weights"] = weights
        encoders.append(ENCODERS.build(modality.kind, transforms[name].shape, dim, **settings))
    lengths = tuple(encoder.num_tokens for encoder in encoders)
    layout = Layout(lengths, torch.from_numpy(groups.masks), groups.counts, groups.added)
    built = FUSIONS.build(fusion, dim, layout, **recipe.fusion_settings(fusion))
    return Model(tuple(spec.modalities), encoders, built, classes=len(spec.label.classes))


def _of_backbone(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What shapes features, but for the weights, which have a checksum of their own."""
    return {key: value for key, value in settings.items() if key not in ("weights", "frozen", "dropout")}


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


def forward(
    model: nn.Module, dataset: CohortDataset, *, size: int, rows: slice | Tensor = slice(None)
) -> Iterator[tuple[Batch, Output]]:
    """What a model makes of all the samples, or of some ``rows``, in their order, ``size`` at a time."""
    device = next(model.parameters()).device
    with evaluating(model):
        for chunk in torch.arange(len(dataset))[rows].split(size):
            batch = to_device(dataset.__getitems__(chunk.tolist()), device)
            yield batch, model(batch)
