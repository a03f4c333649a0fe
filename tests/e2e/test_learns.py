"""Models learn what there is to learn, and no more."""

import json

import numpy as np
import polars as pl
import pytest
import yaml

from remind.api import evaluate, fit
from remind.cohort.cohort import load
from remind.cohort.splits import SPLITS
from remind.config import load_recipe
from remind.engine.loop import Training
from remind.sources.synthetic import write


def test_sixty_four_patients_are_learned_by_heart(tmp_path):
    """Validation and test are the same patients under other names: the weights that know them best are selected."""
    folder = write(tmp_path / "c", samples=64)
    table = pl.read_parquet(folder / "samples.parquet")
    copies = [table.with_columns(split=pl.lit(name), sample=f"{name}-" + pl.col("sample")) for name in SPLITS]
    pl.concat(copies).write_parquet(folder / "samples.parquet")
    spec = yaml.safe_load((folder / "cohort.yaml").read_text()) | {"split": {"column": "split"}}
    (folder / "cohort.yaml").write_text(yaml.safe_dump(spec))
    overrides = (
        *("model.dim=32", "model.dropout=0", "encoders.tabular.dropout=0", "train.batch_size=16", "train.lr=0.003"),
        *("train.epochs=60", "train.lr_step=60", "train.patience=60", "train.device=cpu"),
    )
    model = fit(folder, recipe=load_recipe(None, overrides, method="remind"))
    found = evaluate(model, folder, split="train")["overall"]
    assert found["n"] == 64
    assert found["accuracy"] >= 0.99


@pytest.mark.slow
def test_remind_lies_between_guessing_and_the_best_there_is(tmp_path):
    """Mean over three seeds, on three times 400 test samples of a law whose best accuracy is known."""
    found, best, majority = [], [], []
    for seed in range(3):
        cohort = load(write(tmp_path / str(seed), samples=2000, seed=seed))
        overrides = (
            "model.dim=32",
            "train.epochs=16",
            "train.lr=0.003",
            "encoders.tabular.tokens=4",
            "train.device=cpu",
        )
        model = fit(cohort, method="remind", seed=seed, recipe=load_recipe(None, overrides))
        found.append(evaluate(model, cohort)["overall"]["accuracy"])
        best.append(json.loads((tmp_path / str(seed) / "truth.json").read_text())["bayes_accuracy"])
        majority.append(np.bincount(cohort.target[cohort.rows("test")]).max() / len(cohort.rows("test")))
    noise = 3 * 0.5 / np.sqrt(3 * 400)
    assert np.mean(found) < np.mean(best) + noise
    assert np.mean(found) > np.mean(majority) + 0.2


def test_shuffled_labels_teach_nothing(tmp_path):
    """If test accuracy rose above guessing here, something of the test split would leak into training."""
    folder = write(tmp_path / "c", samples=600)
    table = pl.read_parquet(folder / "samples.parquet")
    table = table.with_columns(outcome=pl.Series(np.random.default_rng(0).permutation(table["outcome"].to_numpy())))
    table.write_parquet(folder / "samples.parquet")
    overrides = ("model.dim=16", "model.experts=4", "encoders.tabular.tokens=2", "train.epochs=8", "train.device=cpu")
    auroc = [
        evaluate(fit(folder, method="remind", seed=seed, recipe=load_recipe(None, overrides)), folder)["overall"][
            "macro_auroc"
        ]
        for seed in range(2)
    ]
    assert np.mean(auroc) == pytest.approx(0.5, abs=0.12)


def test_what_is_learned_of_the_data_is_learned_of_the_training_rows_alone(clinic, tiny):
    """Wild validation and test cells change no statistic, no category, no weight."""

    def table(wild):
        def change(samples):
            parts = pl.Series(["train"] * 24 + ["validation"] * 8 + ["test"] * 8)
            outside = parts.is_in(["test"])
            return samples.with_columns(
                part=parts,
                pulse=pl.when(outside & wild).then(-1e6).otherwise("pulse"),
                comment=pl.when(outside & wild).then(pl.lit("new word")).otherwise("comment"),
                grade=pl.when(outside & wild).then(pl.lit("mild")).otherwise("grade"),
            )

        return change

    plain, wild = (
        fit(clinic(name, table=table(change), split={"column": "part"}), recipe=load_recipe(None, tiny))
        for name, change in (("plain", pl.lit(False)), ("wild", pl.lit(True)))
    )
    assert plain.transforms == wild.transforms
    assert plain.groups == wild.groups
    twin = wild.model.state_dict()
    assert all(tensor.equal(twin[name]) for name, tensor in plain.model.state_dict().items())


def test_in_the_second_stage_the_encoders_stand_still_and_the_residuals_move(cohort, tiny, monkeypatch):
    seen = {"shared": [], "specialised": []}
    step = Training.step

    def watched(self, batch):
        step(self, batch)
        model = self.fitted.model
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        learning = any(parameter.requires_grad for parameter in model.encoders.parameters())
        seen[self.stages[self.standing.stage].name].append((state, learning))

    monkeypatch.setattr(Training, "step", watched)
    fit(cohort, method="remind", recipe=load_recipe(None, tiny))

    def moved(stage, part):
        (first, _), *_, (last, _) = seen[stage]
        return any(not tensor.equal(last[name]) for name, tensor in first.items() if part in name)

    assert moved("shared", "encoders.")
    assert not moved("specialised", "encoders.")
    assert all(learning for _, learning in seen["shared"])
    assert not any(learning for _, learning in seen["specialised"])
    assert not moved("shared", "router.residual")
    assert moved("specialised", "router.residual")
    assert moved("specialised", "head.")
