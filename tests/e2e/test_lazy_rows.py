"""A run with more groups than a batch has samples moves a group's residual when the group is next seen."""

import polars as pl
import pytest
import torch
from runs import Stop, StopAt, weights

from remind.api import fit
from remind.config import load_recipe
from remind.engine import descent
from remind.engine.lazy_adamw import LazyAdamW

OVERRIDES = (
    *("method=remind", "model.dim=8", "model.experts=3", "model.heads=2", "fusions.remind.min_count=1"),
    *("train.epochs=4", "train.batch_size=3", "train.checkpoint_every=7", "train.device=cpu", "train.threads=1"),
    *("train.lr=0.01", "train.later_lr=1", "train.lr_step=1", "train.lr_gamma=0.7", "train.gradients_every=50"),
)


@pytest.fixture(scope="module")
def recipe():
    return load_recipe(None, OVERRIDES)


@pytest.fixture(scope="module")
def lazy(cohort, recipe, tmp_path_factory):
    place = tmp_path_factory.mktemp("lazy") / "run"
    fit(cohort, recipe=recipe, out=place)
    return place


def test_it_is_the_run_of_torchs_adamw(cohort, recipe, lazy, tmp_path, monkeypatch):
    """Both to the rounding of some hundred steps; the residuals have learned, and the history tells the same."""

    class Written(LazyAdamW):
        """torch's own, of the same gradients written out; it leaves nothing to make up for."""

        def step(self, closure=None):
            for group in self.param_groups:
                for table in group["params"]:
                    if table.grad is not None and table.grad.is_sparse:
                        table.grad = table.grad.to_dense()
            torch.optim.AdamW.step(self)

        def fetch(self, table, rows):
            pass

    monkeypatch.setattr(descent, "LazyAdamW", Written)
    fit(cohort, recipe=recipe, out=tmp_path / "run")
    made, expected = weights(lazy), weights(tmp_path / "run")
    moved = expected["fusion.router.residual"].flatten(1).norm(dim=1)
    assert len(moved) > 3
    assert (moved > 1e-3).all()
    off = (made["fusion.router.residual"] - expected["fusion.router.residual"]).flatten(1).norm(dim=1)
    assert (off < 1e-2 * moved).all()
    one, two = (pl.read_parquet(run / "history.parquet") for run in (lazy, tmp_path / "run"))
    torch.testing.assert_close(one["validation_loss"].to_torch(), two["validation_loss"].to_torch(), rtol=0, atol=1e-4)
    one, two = (pl.read_parquet(run / "gradients.parquet") for run in (lazy, tmp_path / "run"))
    torch.testing.assert_close(one["mean"].to_torch(), two["mean"].to_torch(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("after", [1, 7, 30])
def test_it_goes_on_to_the_same_bits(cohort, recipe, lazy, tmp_path, after):
    history = pl.read_parquet(lazy / "history.parquet")
    begun = history.filter(pl.col("stage") == "specialised")["step"].to_list()[0]
    with pytest.raises(Stop):
        fit(cohort, recipe=recipe, out=tmp_path / "run", watch=StopAt(begun + after))
    fit(cohort, recipe=recipe, out=tmp_path / "run")
    made, expected = weights(tmp_path / "run"), weights(lazy)
    assert all(torch.equal(made[name], tensor) for name, tensor in expected.items())
    assert pl.read_parquet(tmp_path / "run" / "history.parquet").equals(history)
