"""The golden curves. ``python -m tests.golden.regenerate`` writes them anew; say so under "Numbers" in CHANGELOG.md."""

import json
import tempfile
from pathlib import Path

import polars as pl

from remind.api import fit
from remind.config import load_recipe
from remind.sources.synthetic import write

METHODS = ("soft-moe", "remind")
FILE = Path(__file__).with_name("curves.json")
OVERRIDES = (  # thirty steps, three an epoch; no dropout, whose masks are not the same on every kind of processor
    *("model.dim=16", "model.experts=4", "model.dropout=0", "encoders.tabular.tokens=2", "encoders.tabular.dropout=0"),
    *(
        "train.epochs=10",
        "train.batch_size=70",
        "train.patience=10",
        "train.lr=0.003",
        "train.later_lr=1",
        "train.device=cpu",
    ),
    *("objectives.group_dro.step_size=0.2", "objectives.group_dro.refresh_every=4"),
)


def curves(method: str) -> dict[str, list[float]]:
    """Of each epoch: the mean loss of its steps, the validation loss, and the weight of the rarest group."""
    with tempfile.TemporaryDirectory() as place:
        write(Path(place) / "cohort", samples=300)
        fit(Path(place) / "cohort", recipe=load_recipe(None, OVERRIDES, method=method), out=Path(place) / "run")
        history = pl.read_parquet(Path(place) / "run" / "history.parquet")
    assert history["step"].to_list() == list(range(3, 31, 3))
    found = {name: history[name].to_list() for name in ("train_loss", "validation_loss", "gate_open")}
    if (weights := history["group_weights"].to_list())[0] is not None:
        found["rarest_weight"] = [row[-1] for row in weights]
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps({method: curves(method) for method in METHODS}, indent=1) + "\n")
