"""``remind adapt``: a trained model goes on to combinations that it never saw."""

import json
import shutil

import numpy as np
import pytest
import torch

from remind.api import adapt, evaluate, fit, load_model
from remind.cohort.cohort import load
from remind.cohort.missingness import mask
from remind.config import load_recipe
from remind.engine.adapt import Tune
from remind.errors import RemindError
from remind.sources.synthetic import write

HELD = ("m1+m3", "m2+m3")


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny):
    """A cohort, the same without two of its combinations, and a model of each method trained on that."""
    place = tmp_path_factory.mktemp("adapt")
    write(place / "whole", samples=900, modalities=3, available=[0.7] * 3, seed=2)
    mask(load(place / "whole"), place / "held", "hold-out", combinations=list(HELD))
    settings = [*tiny, "train.focal_gamma=0", "model.router_scale=3", "fusions.remind.gate=always", "train.epochs=6"]
    for method in ("remind", "soft-moe", "flex-moe"):
        fit(place / "held", recipe=load_recipe(None, settings, method=method, seed=0), out=place / method)
    return place


def learned(before, after):
    """Names of the tensors that differ, and which of their first rows do."""
    old, new = before.model.state_dict(), after.model.state_dict()
    assert old.keys() == new.keys()
    return {
        name: [row for row in range(len(old[name])) if not old[name][row].equal(new[name][row])]
        if old[name].ndim
        else []
        for name in old
        if old[name].shape != new[name].shape or not old[name].equal(new[name])
    }


def test_with_rows_alone_everything_known_stays_the_same_to_the_bit(place, tmp_path):
    base, cohort = load_model(place / "remind"), load(place / "whole")
    fitted = adapt(place / "remind", cohort, tune="rows", out=tmp_path / "run", overrides=["train.epochs=4"])
    assert learned(base, fitted) == {"fusion.router.residual": [], "fusion.imputation.vectors": []}
    assert fitted.groups.added == 2
    assert set(fitted.groups.labels()[-2:]) == set(HELD)
    known = np.flatnonzero(base.groups.index(cohort.available) >= 0)
    columns = [f"p_{name}" for name in cohort.classes]
    before, after = (one.predictions(cohort, known).select(columns).to_numpy() for one in (base, fitted))
    assert np.array_equal(before, after)
    document = json.loads((tmp_path / "run" / "adaptation.json").read_text())
    assert document["known"]["largest"] == document["known"]["mean"] == 0
    assert document["tune"] == "rows"
    rows = fitted.model.fusion.imputation.vectors[-2:] - base.model.fusion.imputation.vectors.mean(0)
    assert rows.abs().max() > 0


def test_a_stranger_to_both_is_answered_as_before(place, tmp_path):
    """New groups stand in for nobody: what is unseen, or rare, has the nearest of the groups of the first training."""
    base = load_model(place / "remind")
    fitted = adapt(place / "remind", place / "whole", tune="rows", out=tmp_path / "run")
    available = torch.tensor([[False, False, True], [True, False, True]])
    unseen = torch.tensor([-1, -1])
    for one in (base, fitted):
        one.model.eval()
    assert fitted.model.fusion.imputation(unseen, available).equal(base.model.fusion.imputation(unseen, available))


@pytest.mark.parametrize(("tune", "parts"), [("head", {"norm", "head"}), ("head,router", {"norm", "head", "router"})])
@pytest.mark.parametrize("method", ["remind", "soft-moe"])
def test_what_is_named_learns_and_nothing_else(place, tmp_path, method, tune, parts):
    base = load_model(place / method)
    fitted = adapt(place / method, place / "whole", tune=tune, out=tmp_path / "run")
    changed = {name for name, rows in learned(base, fitted).items() if rows or base.model.state_dict()[name].ndim == 0}
    tables = {"fusion.router.residual", "fusion.imputation.vectors"}
    grown = {
        name
        for name, tensor in fitted.model.named_parameters()
        if tensor.shape != dict(base.model.named_parameters())[name].shape
    }
    assert grown == (tables if method == "remind" else set())
    assert {name.removeprefix("fusion.").split(".")[0] for name in changed - tables} == parts
    document = json.loads((tmp_path / "run" / "adaptation.json").read_text())
    assert document["known"]["largest"] > 0


def test_a_share_of_the_experts_learns(place, tmp_path):
    base = load_model(place / "remind")
    fitted = adapt(place / "remind", place / "whole", tune="experts=0.5", out=tmp_path / "run")
    changed = learned(base, fitted)
    experts = {name: rows for name, rows in changed.items() if "experts" in name}
    assert len(experts) == 4
    assert {tuple(rows) for rows in experts.values()} == {tuple(next(iter(experts.values())))}
    assert all(len(rows) == 2 for rows in experts.values())


def test_it_learns_the_new_combinations(place, tmp_path):
    """On their training samples; the cohort is small, and the model too."""
    base, cohort = load_model(place / "remind"), load(place / "whole")
    fitted = adapt(
        place / "remind",
        cohort,
        tune="head,router,experts",
        out=tmp_path / "run",
        overrides=["train.epochs=20", "train.later_lr=1"],
    )
    rows = cohort.rows("train")
    rows = rows[fitted.groups.index(cohort.available[rows]) >= len(base.groups)]

    def loss(one):
        table = one.predictions(cohort, rows)
        chosen = table.select([f"p_{name}" for name in cohort.classes]).to_numpy()[range(len(rows)), table["target"]]
        return -np.log(chosen).mean()

    assert loss(fitted) < loss(base) - 0.05


def test_the_same_call_leaves_it_alone_another_is_refused_and_it_can_be_adapted_again(place, tmp_path, remind):
    words = ("adapt", place / "remind", place / "whole", "--out", tmp_path / "run")
    done = remind(*words, "--tune", "rows")
    assert done.code == 0, done.said
    assert "moved by at most 0." in done.out
    stamp = (tmp_path / "run" / "predictions.parquet").stat().st_mtime_ns
    assert json.loads(remind(*words, "--tune", "rows", "--json").out)["tune"] == "rows"
    assert (tmp_path / "run" / "predictions.parquet").stat().st_mtime_ns == stamp
    assert evaluate(tmp_path / "run")["overall"]["n"] == len(load(place / "whole").rows("test"))
    other = remind(*words, "--tune", "head")
    assert (other.code, "holds another run" in other.err) == (2, True)
    again = remind("adapt", tmp_path / "run", place / "whole", "--out", tmp_path / "again")
    assert again.code == 2
    assert "nothing to adapt to" in again.err


@pytest.mark.parametrize(
    ("run", "words", "said"),
    [
        ("remind", ("--tune", "heads"), ("'heads'", "Did you mean 'head'?")),
        ("remind", ("--tune", "experts=2"), ("experts=2", "at most 1")),
        ("remind", ("--tune", "head=1"), ("head takes no share",)),
        ("flex-moe", (), ("flex-moe", "cannot be adapted")),
        ("soft-moe", ("--tune", "rows"), ("no rows to learn", "head,router")),
        ("remind", ("-s", "fusions.remind.min_count=1"), ("fusions", "as it was built")),
        ("remind", ("-s", "model.dim=8"), ("model", "as it was built")),
        ("nowhere", (), ("not a finished run",)),
    ],
)
def test_mistakes_are_sentences_and_leave_nothing_behind(place, tmp_path, remind, run, words, said):
    done = remind("adapt", place / run, place / "whole", "--out", tmp_path / "run", *words)
    assert done.code == 2
    for part in said:
        assert part in done.err
    assert not (tmp_path / "run").exists()


def test_tune_reads_what_it_says():
    for text in ("rows", "rows,head", "head,router", "router,experts=0.25", "experts=1"):
        assert Tune.parse(text).said() == text
    assert Tune.parse("rows,router") == Tune.parse("router")
    for text in ("experts=none", ","):
        with pytest.raises(RemindError, match="--tune"):
            Tune.parse(text)


def test_a_killed_adaptation_goes_on_to_the_same_bits(place, tmp_path):
    from remind.engine.loop import Training

    often = ["train.checkpoint_every=2"]
    whole = adapt(place / "remind", place / "whole", tune="head,router", overrides=often, out=tmp_path / "a")
    step, count = Training.step, [0]

    def dying(self, batch):
        count[0] += 1
        if count[0] == 4:
            raise KeyboardInterrupt
        step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            adapt(place / "remind", place / "whole", tune="head,router", overrides=often, out=tmp_path / "b")
    shutil.rmtree(tmp_path / "features", ignore_errors=True)
    resumed = adapt(place / "remind", place / "whole", tune="head,router", overrides=often, out=tmp_path / "b")
    assert not learned(whole, resumed)


def test_a_second_adaptation_leaves_what_the_first_has_learned(place, tiny, tmp_path):
    """First one of two held-out combinations, then the other; the first one's row stays to the bit."""
    mask(load(place / "whole"), tmp_path / "half", "hold-out", combinations=[HELD[1]])
    first = adapt(place / "remind", tmp_path / "half", tune="rows", out=tmp_path / "first")
    assert first.groups.labels()[-1] == HELD[0]
    second = adapt(tmp_path / "first", place / "whole", tune="rows", out=tmp_path / "second")
    assert second.groups.labels()[-2:] == list(HELD)
    assert second.groups.added == 2
    assert learned(first, second) == {"fusion.router.residual": [], "fusion.imputation.vectors": []}


def test_other_classes_are_a_sentence_before_anything_is_trained(place, tmp_path):
    import yaml

    changed = shutil.copytree(place / "whole", tmp_path / "c")
    spec = yaml.safe_load((changed / "cohort.yaml").read_text())
    spec["label"]["classes"].reverse()
    (changed / "cohort.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    with pytest.raises(RemindError, match="classes"):
        adapt(place / "remind", changed, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_gate_that_follows_the_routing_does_not_follow_the_new_groups(place, tiny, tmp_path):
    settings = [*tiny, "model.router_scale=3", "fusions.remind.threshold=quantile:0.5"]
    base = fit(place / "held", recipe=load_recipe(None, settings, method="remind", seed=0), out=tmp_path / "base")
    fitted = adapt(tmp_path / "base", place / "whole", tune="rows", out=tmp_path / "run")
    assert fitted.model.fusion.router.gate.threshold.equal(base.model.fusion.router.gate.threshold)
