"""``train.compile``: the same numbers within rounding, at every width of a batch."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from remind.api import fit
from remind.config import load_recipe
from remind.errors import RemindError

HERE = Path(__file__).parent
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


def run(*words):
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("method", ["soft-moe", "remind"])
def test_logits_and_gradients_are_those_of_the_fusion_as_it_is(folder, tiny, method):
    apart, askew = map(float, run(HERE / "compiled.py", folder, method, *tiny).split())
    assert apart < 1e-5
    assert askew < 1e-4


@needs_compiler
@pytest.mark.slow
def test_a_run_is_the_run_without_within_rounding(folder, tiny, tmp_path):
    """Its records of gradients too, which come from hooks that compiled code would not call."""
    overrides = [*tiny, "model.dropout=0", "encoders.tabular.dropout=0", "train.gradients_every=2"]
    found = []
    for compiled in ("false", "true"):
        settings = [word for one in [*overrides, f"train.compile={compiled}"] for word in ("-s", one)]
        run("-m", "remind", "train", folder, "-m", "remind", *settings, "--out", tmp_path / compiled)
        found.append(
            [pl.read_parquet(tmp_path / compiled / f"{name}.parquet") for name in ("predictions", "gradients")]
        )
    (predictions, gradients), (those, of_them) = found
    columns = [name for name in predictions.columns if name.startswith("p_")]
    assert columns
    np.testing.assert_allclose(those.select(columns).to_numpy(), predictions.select(columns).to_numpy(), atol=1e-3)
    np.testing.assert_allclose(of_them["mean"].to_numpy(), gradients["mean"].to_numpy(), atol=0.05)


def test_without_a_compiler_it_says_so(cohort, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RemindError, match=r"train\.compile: there is no C\+\+ compiler \(no-such-compiler\)"):
        fit(cohort, recipe=load_recipe(None, [*tiny, "train.compile=true"]), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["fusemoe", "flex-moe"])
def test_sparse_experts_are_not_compiled_and_it_says_so(folder, tiny_words, tmp_path, method, remind):
    words = ("-m", method, *tiny_words, "-s", "train.compile=true", "--out", tmp_path / "run")
    done = remind("train", folder, *words)
    assert done.code == 0
    assert f"nothing of {method} is compiled" in done.said
