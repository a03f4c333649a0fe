"""The training loop. No method has a name here: stages, objective and fusion say what is particular to each."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from remind.cohort.batch import Batch
from remind.cohort.cohort import Cohort
from remind.cohort.dataset import CohortDataset
from remind.cohort.sampler import BucketSampler
from remind.config import Recipe
from remind.engine.fitted import FittedModel
from remind.engine.optimizer import load_optimizer, optimizer_tensors
from remind.engine.run_folder import RunFolder
from remind.engine.validation import validate
from remind.engine.watch import GroupProgress, Silence, Watch
from remind.errors import RemindError
from remind.methods import Stage, method
from remind.nn.losses import focal_loss
from remind.objectives import OBJECTIVES, Loss


def train(cohort: Cohort, recipe: Recipe, out: Path, watch: Watch | None = None) -> FittedModel:
    """Train into a run folder: from where it stands, or not at all if it is finished.

    Raises:
        RemindError: if the folder is another run's, a checkpoint is damaged, or a loss is not finite.
    """
    folder = RunFolder(out)
    config = {"recipe": recipe.model_dump(mode="json"), "cohort": cohort.spec.name, "fingerprint": cohort.fingerprint}
    with folder.claimed(config):
        if not folder.finished:
            Training(cohort, recipe, folder, watch or Silence()).run()
    return FittedModel.load(folder.model)


class Training:
    """A run under way. Everything that must survive a restart is in ``state`` or among ``tensors()``."""

    def __init__(self, cohort: Cohort, recipe: Recipe, folder: RunFolder, watch: Watch) -> None:
        self.cohort, self.recipe, self.folder, self.watch = cohort, recipe, folder, watch
        self.settings, self.method = recipe.train, recipe.check()
        self.fabric = Fabric(accelerator=self.settings.device, devices=1, precision=self.settings.precision)
        self.fabric.seed_everything(recipe.seed, verbose=False)
        self.fitted = FittedModel.create(cohort, recipe)
        groups = self.fitted.groups
        self.training = CohortDataset(cohort, cohort.rows("train"), self.fitted.transforms, groups)
        self.validation = CohortDataset(cohort, cohort.rows("validation"), self.fitted.transforms, groups)
        self.model = self.fabric.setup_module(self.fitted.model)
        objective = OBJECTIVES.build(
            self.method.objective,
            torch.tensor(groups.counts),
            lambda logits, target: focal_loss(logits.float(), target, gamma=self.settings.focal_gamma),
            **recipe.objectives.get(self.method.objective, {}),
        )
        self.objective = objective.to(self.fabric.device)
        lengths = torch.tensor(self.fitted.model.lengths)
        self.sampler = BucketSampler(
            (self.training.available * lengths).sum(1),
            batch_size=self.settings.batch_size,
            seed=recipe.seed,
            pool=self.settings.pool,
        )
        self.state: dict[str, Any] = {
            "stage": -1, "epoch": 0, "step": 0, "stale": 0, "best": None, "selected": None,
            "loss_sum": 0.0, "opened_sum": 0.0, "samples": 0, "history": [],
        }  # fmt: skip
        self.best: dict[str, Tensor] = {}

    def run(self) -> None:
        """All stages, then the selected model's predictions."""
        budget = sum(epochs_of(stage, self.settings.epochs) for stage in self.method.stages) * len(self.sampler)
        self.watch.begin(f"{self.recipe.method}, seed {self.recipe.seed}", budget)
        if saved := self.folder.checkpoint():
            self._restore(*saved)
        else:
            self._enter_stage(0)
        while self.state["stage"] < len(self.method.stages):
            self._epoch()
        self.fitted.model.load_state_dict(self.best)
        self._finish()
        self.watch.end()

    def _enter_stage(self, number: int) -> None:
        """Begin a stage from the best weights so far, with its own trainable parts and a fresh optimiser."""
        self.state |= {"stage": number, "epoch": 0, "stale": 0}
        if number == len(self.method.stages):
            return
        if self.best:
            self.fitted.model.load_state_dict(self.best)
        if self.method.stages[number].specialise:
            self.fitted.model.fusion.specialise()
        self._prepare_stage()

    def _prepare_stage(self) -> None:
        stage = self.method.stages[self.state["stage"]]
        self.fitted.model.encoders.requires_grad_(stage.encoders)
        learned = [p for p in self.fitted.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=self.settings.lr, weight_decay=self.settings.weight_decay)
        self.optimizer = self.fabric.setup_optimizers(optimizer)
        self.schedule = torch.optim.lr_scheduler.StepLR(
            self.optimizer, step_size=self.settings.lr_step, gamma=self.settings.lr_gamma
        )

    def _epoch(self) -> None:
        """What is left of an epoch, then its validation."""
        self.model.train()
        if not self.method.stages[self.state["stage"]].encoders:
            self.fitted.model.encoders.eval()  # frozen: their outputs no longer change, not even by dropout
        loader = DataLoader(
            self.training, batch_sampler=self.sampler, collate_fn=_as_is, generator=torch.Generator()
        )  # a generator of its own: else drawing batches would advance the one that dropout uses
        for batch in loader:
            self._step(self.fabric.to_device(batch))
            if self.sampler.done and self.state["step"] % self.settings.checkpoint_every == 0:
                self._save()
        self._validate()
        self._save()

    def _step(self, batch: Batch) -> None:
        loss: Loss = self.objective(self.model, batch)
        if not bool(loss.per_sample.isfinite().all()):
            self._refuse(batch, loss)
        self.fabric.backward(loss.total)
        self.fabric.clip_gradients(self.model, self.optimizer, max_norm=self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.objective.after_step(batch, loss)
        self.fitted.model.fusion.after_step(loss.output.fused)
        self.sampler.advance()
        self.state["step"] += 1
        self.state["loss_sum"] += float(loss.per_sample.detach().double().sum())
        self.state["opened_sum"] += float(loss.output.fused.routing.opened.sum())
        self.state["samples"] += len(batch.target)
        self.watch.step(self.state["step"])

    def _refuse(self, batch: Batch, loss: Loss) -> None:
        broken = batch.row[~loss.per_sample.isfinite()].tolist()
        named = ", ".join(self.cohort.ids[row] for row in broken[:5])
        raise RemindError(
            f"{self.folder.path}: the loss of {len(broken)} samples is not finite at step {self.state['step'] + 1} "
            f"(ids {named}); no weight was changed by it. Lower train.lr, or look at their cells."
        )

    def _validate(self) -> None:
        """Score the epoch, remember the best weights, and end the stage when its time has come."""
        found = validate(self.model, self.validation, focal_gamma=self.settings.focal_gamma)
        state, stage = self.state, self.method.stages[self.state["stage"]]
        score = found.score(self.settings.select)
        state["epoch"] += 1
        better = not math.isnan(score) and (state["best"] is None or score > state["best"])
        weights = self.objective.group_weights()
        row = {
            "stage": stage.name,
            "epoch": state["epoch"],
            "step": state["step"],
            "lr": self.schedule.get_last_lr()[0],
            "train_loss": state["loss_sum"] / state["samples"],
            "validation_loss": found.loss,
            "validation_accuracy": found.accuracy,
            "validation_macro_auroc": found.macro_auroc if not math.isnan(found.macro_auroc) else None,
            "gate_open": state["opened_sum"] / state["samples"],
            "group_weights": None if weights is None else weights.tolist(),
        }
        state["history"].append(row)
        state |= {"loss_sum": 0.0, "opened_sum": 0.0, "samples": 0, "stale": 0 if better else state["stale"] + 1}
        if better:
            state |= {"best": score, "selected": {"stage": stage.name, "epoch": state["epoch"], "step": state["step"]}}
            self.best = {key: tensor.detach().cpu().clone() for key, tensor in self.fitted.model.state_dict().items()}
        self.watch.epoch(row, self._progress(found.correct, weights))
        self.schedule.step()
        if state["stale"] >= self.settings.patience or state["epoch"] >= epochs_of(stage, self.settings.epochs):
            self._enter_stage(state["stage"] + 1)

    def _progress(self, correct: np.ndarray, weights: Tensor | None) -> GroupProgress:
        group, groups = self.validation.group.numpy(), len(self.fitted.groups)
        seen = group >= 0
        size = np.bincount(group[seen], minlength=groups)
        right = np.bincount(group[seen], weights=correct[seen], minlength=groups)
        accuracy = np.divide(right, size, out=np.full(groups, np.nan), where=size > 0)
        return GroupProgress(
            self.fitted.groups.labels(), size, accuracy, None if weights is None else weights.cpu().numpy()
        )

    def _save(self) -> None:
        if self.state["stage"] == len(self.method.stages):
            return
        tensors, groups = optimizer_tensors(self.optimizer.optimizer)
        parts = {
            "model": self.fitted.model.state_dict(),
            "best": self.best,
            "objective": self.objective.state_dict(),
            "optimizer": tensors,
            "rng": {"cpu": torch.get_rng_state()},
        }
        if self.fabric.device.type == "cuda":
            parts["rng"]["cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        document = self.state | {
            "sampler": self.sampler.state_dict(),
            "optimizer": groups,
            "schedule": self.schedule.state_dict(),
        }
        flat = {f"{part}/{key}": tensor for part, content in parts.items() for key, tensor in content.items()}
        self.folder.save_checkpoint(flat, document)

    def _restore(self, flat: dict[str, Tensor], document: dict[str, Any]) -> None:
        parts: dict[str, dict[str, Tensor]] = {"best": {}, "optimizer": {}}
        for name, tensor in flat.items():
            part, key = name.split("/", 1)
            parts.setdefault(part, {})[key] = tensor
        self.state = {key: document[key] for key in self.state}
        self.sampler.load_state_dict(document["sampler"])
        self.fitted.model.load_state_dict(parts["model"])
        self.objective.load_state_dict(parts.get("objective", {}))
        self.best = parts["best"]
        self._prepare_stage()
        load_optimizer(self.optimizer.optimizer, parts["optimizer"], document["optimizer"])
        self.schedule.load_state_dict(document["schedule"])
        torch.set_rng_state(parts["rng"]["cpu"])
        if "cuda" in parts["rng"] and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(parts["rng"]["cuda"], self.fabric.device)

    def _finish(self) -> None:
        """Write the history, the selected model and its predictions; then the run is finished."""
        if not self.best:
            raise RemindError(f"{self.folder.path}: no epoch had a validation score; {self._why_no_score()}")
        self.folder.write_table("history", pl.DataFrame(self.state["history"], infer_schema_length=None))
        self.folder.write_json("selection", {"rule": self.settings.select, "score": self.state["best"]}
                               | self.state["selected"])
        self.fitted.save(self.folder.model)
        rows = np.sort(np.concatenate([self.cohort.rows("validation"), self.cohort.rows("test")]))
        self.folder.write_table("predictions", self.fitted.predictions(self.cohort, rows))
        self.folder.drop_checkpoint()

    def _why_no_score(self) -> str:
        return "give the validation split samples of at least two classes, or select by train.select=loss."


def epochs_of(stage: Stage, total: int) -> int:
    """Epochs of a stage out of a run's total, at least one."""
    return max(1, round(stage.share * total))


def _as_is(batch: Batch) -> Batch:
    return batch
