"""The training loop. No method has a name here: stages, objective and fusion say what is particular to each."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from remind.cohort.batch import Batch
from remind.cohort.cohort import Cohort
from remind.cohort.quota_sampler import QuotaSampler
from remind.cohort.sampler import BucketSampler, EpochSampler
from remind.cohort.splits import SPLITS
from remind.cohort.survey import admit
from remind.cohort.workers import worker_settings
from remind.config import Recipe, TrainSettings
from remind.engine.adapt import STAGE, Adaptation
from remind.engine.averaging import WeightAverage
from remind.engine.compiled import compile_fusion, uncompiled
from remind.engine.descent import Descent
from remind.engine.device import to_device
from remind.engine.distributed import Shared, Together, start, team
from remind.engine.fitted import FittedModel
from remind.engine.probe import GradientProbe
from remind.engine.progress import Standing
from remind.engine.resume import restore, save
from remind.engine.run_folder import RunFolder
from remind.engine.sharding import in_parts, join_gradients, kept, refuse_settings, shard, whole
from remind.engine.validation import Validation, validate
from remind.engine.watch import GroupProgress, Silence, Watch
from remind.errors import RemindError
from remind.methods import Stage
from remind.objectives import OBJECTIVES, Loss, Objective


def train(
    cohort: Cohort,
    recipe: Recipe,
    out: Path,
    store: Path,
    watch: Watch | None = None,
    adaptation: Adaptation | None = None,
) -> FittedModel:
    """Train into a run folder: from where it stands, or not at all if it is finished.

    An ``adaptation`` brings a trained model, of which it lets some parts learn, by the plain mean of the losses.

    What is computed of the cohort's files, and may serve other runs, goes into the folder ``store``.

    Raises:
        RemindError: if files cannot be read, the folder is another run's, a checkpoint is damaged, or a loss is not
            finite.
    """
    folder = RunFolder(out)
    watch = watch if watch and team().first else Silence()
    if recipe.train.device == "cuda" and not torch.cuda.is_available():
        raise RemindError("train.device: there is no cuda device here; use cpu or auto.")
    folder.refuse_strangers()
    asked = {"recipe": recipe.model_dump(mode="json"), "cohort": cohort.spec.name, "fingerprint": cohort.fingerprint}
    asked["adapts"] = adaptation.asked() if adaptation else None
    folder.refuse_other(asked)
    if folder.finished:
        folder.drop_checkpoint()  # of a run that was killed when all but that was done
    else:
        try:
            _train(cohort, recipe, folder, store, watch, asked, adaptation)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise RemindError(
                f"{out}: a process that reads ahead has died; set data.workers=0, or, in a script of your own, call "
                "remind under: if __name__ == '__main__'."
            ) from None
        finally:
            watch.end()
    return FittedModel.load(folder.model)


def _train(
    cohort: Cohort,
    recipe: Recipe,
    folder: RunFolder,
    store: Path,
    watch: Watch,
    asked: dict[str, Any],
    adaptation: Adaptation | None,
) -> None:
    """Open the cohort's files, then train from where the run stands."""
    cohort = admit(
        cohort,
        unreadable=recipe.data.unreadable,
        budget=recipe.data.budget,
        workers=recipe.data.workers,
        quarantine=folder.quarantine,
        cache=store,
        progress=watch.opening,
    )
    config = {**asked, "files": cohort.fingerprint}
    folder.refuse_other(config)
    with _threads(recipe.train.threads):
        training = Training(
            cohort, recipe, folder, store, watch, adaptation
        )  # what is wrong shows before a file is made
        with folder.claimed(config) if training.team.first else nullcontext():
            training.run()


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute on so many CPU threads inside, on as many as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Training:
    """A run under way. What must survive a restart, ``save`` writes and ``restore`` puts back."""

    descent: Descent  # a new one each stage

    def __init__(
        self,
        cohort: Cohort,
        recipe: Recipe,
        folder: RunFolder,
        store: Path,
        watch: Watch,
        adaptation: Adaptation | None = None,
    ) -> None:
        self.cohort, self.folder, self.watch = cohort, folder, watch
        self.settings, self.adaptation = recipe.train, adaptation
        self.stages = (STAGE,) if adaptation else recipe.check().stages
        if self.settings.shard:
            refuse_settings(self.settings, team(), recipe.data.features, adapted=adaptation is not None)
        self.team, self.fabric = team(), start(self.settings)
        self.fabric.seed_everything(recipe.seed, verbose=False)
        self.fitted = adaptation.fitted if adaptation else FittedModel.create(cohort, recipe)
        rows = {split: (adaptation.rows if adaptation else Cohort.rows)(cohort, split) for split in SPLITS[:2]}
        for transform in self.fitted.transforms.values():
            for sentence in transform.notes:
                watch.note(sentence)
        self.store = self.fitted.store(store)
        self.training = self.fitted.dataset(cohort, rows["train"])
        self.validation = self.fitted.dataset(cohort, rows["validation"])
        self.judged = np.flatnonzero(cohort.split != SPLITS.index("train"))
        self.fitted.dataset(cohort, self.judged)  # what is wrong with it must show now, not in the end
        if self.settings.compile and not compile_fusion(self.fitted.model.fusion):
            watch.note(
                f"train.compile: nothing of {recipe.method} is compiled, as its experts take what they are sent."
            )
        if self.team.ranks > 1:
            torch.manual_seed(np.random.SeedSequence([recipe.seed, self.team.rank]).generate_state(1).item())
        self.model = self._network()
        self.objective = self._objective().to(self.fabric.device)
        self.probe: GradientProbe | None = None
        if self.settings.gradients_every and not adaptation:
            self.probe = GradientProbe(self.training, self.fitted.criterion, seed=recipe.seed)
        self.objective.check(self.fitted.model)
        if self.team.ranks > 1 and not self.objective.of_outputs:
            raise RemindError(f"method {recipe.method!r} needs all of a batch in one process; start a single one.")
        self.sampler = self._sampler(recipe.seed)
        self.average = WeightAverage(self.fitted.model, decay=self.settings.average)
        self.epochs = _epochs(self.settings, len(self.stages))
        self.standing = Standing()
        self.best: dict[str, Tensor] = {}

    def _network(self) -> nn.Module:
        """The model, as this process and others train it."""
        model = self.fitted.model
        if self.team.ranks == 1:
            return self.fabric.setup_module(model)
        together = Together(model, self.team)
        if self.settings.shard:
            return shard(together.to(self.fabric.device))
        return self.fabric.setup_module(together)

    def _objective(self) -> Objective:
        recipe = self.fitted.recipe
        name = "erm" if self.adaptation else recipe.check().objective
        return OBJECTIVES.build(name, self._counts(), self.fitted.criterion, **recipe.objectives.get(name, {}))

    def _cell(self) -> Tensor:
        """Group and class of each training sample as one number."""
        return self.training.group * len(self.fitted.classes_) + self.training.target

    def _counts(self) -> Tensor:
        """Training samples of each group and class, ``int64 [g, c]``."""
        shape = len(self.fitted.groups), len(self.fitted.classes_)
        return self._cell().bincount(minlength=math.prod(shape)).view(shape)

    def _sampler(self, seed: int) -> EpochSampler:
        """Batches with the shares that the objective wants; each sample once an epoch, if it wants none."""
        size, shares = self.settings.batch_size, self.objective.batch_shares
        if shares() is not None:
            return QuotaSampler(self._cell(), cast(Callable[[], Tensor], shares), batch_size=size, seed=seed)
        lengths = [encoder.num_tokens for encoder in self.fitted.model.by_name().values()]
        tokens = (self.training.available * torch.tensor(lengths)).sum(1)
        return BucketSampler(tokens, batch_size=size, seed=seed, pool=self.settings.pool)

    def run(self) -> None:
        """All stages; then the selected model and its predictions are written."""
        budget = sum(self.epochs) * len(self.sampler)
        self.watch.begin(f"{self.fitted.recipe.method}, seed {self.fitted.recipe.seed}", budget)
        if saved := self.folder.checkpoint():
            restore(self, *saved)
        else:
            self.prepare_stage()
        while self.standing.stage < len(self.stages):
            self._epoch()
        self._finish()

    def prepare_stage(self) -> None:
        """What learns in this stage, a fresh optimiser for it, and features of what does not learn."""
        stage, model = self.stages[self.standing.stage], self.fitted.model
        if stage.specialise:
            model.fusion.specialise()
        self.decide_who_learns(stage)
        later = self.standing.stage > 0 or self.adaptation is not None
        lr = self.settings.lr * (self.settings.later_lr if later else 1.0)
        decay = 0.0 if self.adaptation else self.settings.weight_decay  # rows that do not learn must not shrink
        self.descent = Descent(self.fabric, model, self.settings, lr=lr, decay=decay, lazily=self._lazily())
        self.average.restart()
        if self.store:
            model.eval()
            self.fitted.encode_once(self.cohort, [self.training, self.validation], self.store, self.watch)
        self.loader = DataLoader(
            self.training if self.team.ranks == 1 else Shared(self.training, self.team),
            batch_sampler=self.sampler,
            collate_fn=_as_is,
            generator=torch.Generator(),  # its own: else drawing batches would advance the one that dropout uses
            **worker_settings(self.fitted.recipe.data.workers, len(self.training)),
        )

    def _lazily(self) -> bool:
        """Whether rows of groups may wait: nobody reads all of them each step, or wants their gradients dense."""
        settings = self.settings
        return not (settings.average or settings.compile or self.adaptation or self.team.ranks > 1)

    def decide_who_learns(self, stage: Stage) -> None:
        """Encoders learn in this stage, or not."""
        for encoder in self.fitted.model.by_name().values():
            encoder.learn(stage.encoders)
        if self.adaptation:
            self.adaptation.freeze()

    def _epoch(self) -> None:
        """What is left of an epoch, its validation, and the next stage when its time has come."""
        self.model.train()
        for encoder in self.fitted.model.by_name().values():
            encoder.prepare()
        for batch in self.batches():
            self.step(batch)
            if self.sampler.done and self.standing.step % self.settings.checkpoint_every == 0:
                save(self)
        self.objective.after_epoch()
        self._validate()
        self.descent.schedule.step()
        if self.standing.stale >= self.settings.patience or self.standing.epoch >= self.epochs[self.standing.stage]:
            self._next_stage()
        save(self)

    def batches(self) -> Iterator[Batch]:
        """What is left of the epoch, on the device."""
        for batch in self.loader:
            yield to_device(batch, self.fabric.device)

    def step(self, batch: Batch) -> None:
        """One optimiser step, and all that follows from it."""
        self.descent.fetch(batch.group)
        with self.fabric.autocast():  # the wrapper's is for the model as a whole; objectives also use its parts
            loss: Loss = self.objective(self.model, batch)
        if not bool(loss.per_sample.isfinite().all()):
            self._refuse(batch, loss)
        auxiliary = loss.output.fused.auxiliary
        self.fabric.backward(loss.total if auxiliary is None else loss.total + auxiliary)
        if self.settings.shard:
            join_gradients(self.model, self.team)
        try:
            self.descent.clip(self.model)
        except RuntimeError:  # their norm is not finite
            self._refuse_gradient()
        self.descent.step()
        self.average.update()
        self.objective.after_step(batch, loss)
        if not self.adaptation:  # a gate that follows the routing must not follow that of the new groups
            self.fitted.model.fusion.after_step(loss.output.fused)
        self.sampler.advance()
        standing = self.standing
        standing.step += 1
        standing.loss_sum += float(loss.per_sample.detach().double().sum())
        standing.opened_sum += float(loss.output.fused.routing.opened.sum())
        standing.samples += len(batch.target)
        if self.probe and standing.step % self.settings.gradients_every == 0:
            self.descent.settle()
            of_step = {"step": standing.step, "stage": self.stages[standing.stage].name}
            with uncompiled(self.settings):
                standing.gradients += [of_step | row for row in self.probe.measure(self.fitted.model)]
        self.watch.step(standing.step)

    def _refuse(self, batch: Batch, loss: Loss) -> None:
        broken = batch.row[~loss.per_sample.isfinite()].tolist()
        named = ", ".join(self.cohort.ids[row] for row in broken[:5])
        raise RemindError(
            f"{self.folder.path}: the loss of {len(broken)} samples is not finite at step {self.standing.step + 1} "
            f"(ids {named}); no weight was changed by it. Lower train.lr, or look at their cells."
        )

    def _refuse_gradient(self) -> None:
        weights = self.fitted.model.named_parameters()
        broken = [name for name, weight in weights if weight.grad is not None and not weight.grad.norm().isfinite()]
        raise RemindError(
            f"{self.folder.path}: the gradient of {', '.join(broken[:3])} is not finite at step "
            f"{self.standing.step + 1}; no weight was changed by it. Lower train.lr, or try another "
            f"train.precision than {self.settings.precision}."
        )

    def _validate(self) -> None:
        """Score the epoch, write it into the history, remember the weights if they are the best so far."""
        standing, stage = self.standing, self.stages[self.standing.stage]
        self.descent.settle()
        with self.average.applied(), self.fabric.autocast():
            found = validate(
                self.model,
                self.validation,
                self.team,
                size=self.settings.batch_size,
                focal_gamma=self.settings.focal_gamma,
            )
            score = found.score(self.settings.select)
            better = not math.isnan(score) and (standing.best is None or score > standing.best)
            if better:
                self.best = kept(self.fitted.model.state_dict())
        standing.epoch += 1
        weights = self.objective.group_weights()
        row = {
            "stage": stage.name,
            "epoch": standing.epoch,
            "step": standing.step,
            "lr": self.descent.schedule.get_last_lr()[0],
            "train_loss": standing.loss_sum / standing.samples,
            "validation_loss": found.loss,
            "validation_accuracy": found.accuracy,
            "validation_macro_auroc": found.macro_auroc if not math.isnan(found.macro_auroc) else None,
            "gate_open": standing.opened_sum / standing.samples,
            "group_weights": None if weights is None else weights.tolist(),
        }
        standing.history.append(row)
        standing.loss_sum = standing.opened_sum = 0.0
        standing.samples = 0
        if better:
            standing.best, standing.stale = score, 0
            standing.selected = {key: row[key] for key in ("stage", "epoch", "step")}
        else:
            standing.stale += 1
        self.watch.epoch(row, self._by_group(found, weights))

    def _next_stage(self) -> None:
        """Go on from this stage's best weights; the next stage is judged by its own epochs."""
        self._need_score()
        self.load(self.best)
        self.standing.stage += 1
        if self.standing.stage < len(self.stages):
            self.standing.epoch = self.standing.stale = 0
            self.standing.best = None
            self.prepare_stage()

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Give the model these weights."""
        model = self.fitted.model
        model.load_state_dict(in_parts(weights, model.state_dict()))

    def _need_score(self) -> None:
        if self.standing.best is None:
            raise RemindError(
                f"{self.folder.path}: no epoch has a validation score; give the validation split samples of two "
                "classes or more, or select with train.select=loss."
            )

    def _by_group(self, found: Validation, weights: Tensor | None) -> GroupProgress:
        group, table = self.validation.group.numpy(), self.fitted.groups
        seen = group >= 0
        size = np.bincount(group[seen], minlength=len(table))
        right = np.bincount(group[seen], weights=found.correct[seen], minlength=len(table))
        accuracy = np.divide(right, size, out=np.full(len(table), np.nan), where=size > 0)
        shown = None if weights is None else weights.cpu().numpy()
        return GroupProgress(table.modalities, table.labels(), size, accuracy, shown)

    def _finish(self) -> None:
        """Write the history, the selected model and its predictions; then the run is finished."""
        if self.settings.shard:
            weights = whole(self.fitted.model.state_dict(), self.team)
            if self.team.first:
                self.fitted = self.fitted.with_weights(weights, self.fabric.device)
        if self.team.first:
            self._write()
        self.team.wait()

    def _write(self) -> None:
        standing = self.standing
        self.folder.write_table("history", pl.DataFrame(standing.history, infer_schema_length=None))
        if standing.gradients:
            self.folder.write_table("gradients", pl.DataFrame(standing.gradients, infer_schema_length=None))
        selection = {"rule": self.settings.select, "score": standing.best, **standing.selected}
        self.folder.write_json("selection", selection)
        if self.adaptation:
            shift = self.adaptation.shift(self.cohort, self.judged)
            self.folder.write_json("adaptation", self.adaptation.asked() | {"known": shift})
        self.fitted.save(self.folder.model)
        self.folder.write_table("predictions", self.fitted.predictions(self.cohort, self.judged, self.store))
        self.folder.drop_checkpoint()


def _epochs(settings: TrainSettings, stages: int) -> list[int]:
    """Epochs of each stage: the first has its share of the total, the others what is left, evenly; but at least one."""
    if stages == 1:
        return [settings.epochs]
    first = math.ceil(settings.first_stage * settings.epochs - 1e-9)
    ends = [first + round(place * (settings.epochs - first) / (stages - 1)) for place in range(stages)]
    return [max(1, end - start) for start, end in pairwise([0, *ends])]


def _as_is(batch: Any) -> Any:
    return batch
