"""A run that was killed goes on to the same bits, whenever it was killed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from runs import Stop, StopAt, weights

from remind.api import fit
from remind.cohort.sampler import BucketSampler
from remind.config import load_recipe
from remind.engine import loop, resume
from remind.engine.averaging import WeightAverage
from remind.engine.checkpoint import unflatten
from remind.errors import RemindError
from remind.objectives.fair_batch import FairBatch
from remind.objectives.fair_mixup import FairMixup
from remind.objectives.group_dro import GroupDRO

# Four steps an epoch, three epochs a stage; what is remembered between steps changes every few of them.
OVERRIDES = (
    *("method=remind", "seed=10", "model.dim=16", "model.experts=4", "model.dropout=0.2"),
    *("encoders.tabular.tokens=2", "encoders.tabular.dropout=0.2", "fusions.remind.threshold=quantile:0.5"),
    *("objectives.group_dro.refresh_every=3", "objectives.group_dro.step_size=0.5"),
    *("train.epochs=6", "train.batch_size=64", "train.checkpoint_every=3", "train.lr_step=2", "train.lr_gamma=0.5"),
    *("train.lr=0.02", "train.later_lr=1", "train.average=0.6", "train.device=cpu", "train.pool=2"),
)
SAVES = 6 + 6 + 1  # of tensors: every third step that ends no epoch, every epoch, and the model


@pytest.fixture(scope="module")
def recipe():
    return load_recipe(None, OVERRIDES)


@pytest.fixture(scope="module")
def whole(folder, recipe, tmp_path_factory):
    """A run that nothing interrupted."""
    place = tmp_path_factory.mktemp("whole") / "run"
    fit(folder, recipe=recipe, out=place)
    return place


def content(place):
    """Every file of a run, byte by byte; that of the machine it ran on may differ."""
    paths = (path for path in place.rglob("*") if path.is_file() and path.name not in (".lock", "environment.json"))
    return {str(path.relative_to(place)): path.read_bytes() for path in paths}


def same(place, whole):
    """Weights, history with its group weights, predictions: the same bits; and nothing more in the folder."""
    tensors, expected = (weights(run) for run in (place, whole))
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[name]), name
    for name in ("history", "predictions"):
        assert pl.read_parquet(place / f"{name}.parquet").equals(pl.read_parquet(whole / f"{name}.parquet")), name
    assert content(place) == content(whole)


def stopped(cohort, recipe, place, step):
    with pytest.raises(Stop):
        fit(cohort, recipe=recipe, out=place, watch=StopAt(step))
    return place


def test_the_run_has_something_to_lose(whole):
    """Else the tests below would prove nothing: group weights move, the learning rate falls, the gate decides."""
    history = pl.read_parquet(whole / "history.parquet")
    assert history["stage"].to_list() == ["shared"] * 3 + ["specialised"] * 3
    assert history["step"].to_list() == [4 * epoch for epoch in range(1, 7)]
    moved = history["group_weights"].to_list()
    assert all(moved[epoch] != moved[epoch + 1] for epoch in range(5))
    assert history["lr"].to_list() == [0.02, 0.02, 0.01] * 2
    assert 0 < history["gate_open"][-1] < 1
    assert history["validation_loss"].n_unique() == 6
    assert json.loads((whole / "selection.json").read_text())["step"] == 20  # not the last epoch
    tensors = weights(whole)
    assert tensors["fusion.router.residual"].abs().max() > 0
    assert tensors["fusion.router.gate.threshold"].isfinite()


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(cohort, folder, recipe, whole, tmp_path):
    torch.rand(5)  # whatever was drawn before
    same_again = fit(cohort, recipe=recipe, out=tmp_path / "again")
    same(tmp_path / "again", whole)
    other = fit(cohort, recipe=recipe, seed=7, out=tmp_path / "other")
    assert not torch.equal(same_again.model.head.weight, other.model.head.weight)


def test_a_run_without_a_folder_gives_the_same_model(cohort, recipe, whole):
    fitted = fit(cohort, recipe=recipe)
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in fitted.model.state_dict().items())


MOMENTS = [
    ("step", 1),  # before there is any checkpoint
    ("step", 5),  # between two checkpoints, in the middle of an epoch
    ("step", 8),  # an epoch is over, not yet validated
    ("epoch", 2),  # validated, not yet saved
    ("step", 12),  # the last of stage one
    ("epoch", 3),  # stage one is validated; the next one begins
    ("step", 13),  # the first of stage two
    ("step", 17),  # stage two, in the middle of an epoch
    ("step", 24),  # the last
    ("epoch", 6),
    ("save", 1),
    ("save", 4),
    ("save", SAVES),  # the model itself
    ("rename", 1),  # of config.yaml
    ("rename", 8),
    ("end", 1),  # everything is written but the metrics
]


def kill(folder, tmp_path, moments):
    """A run killed at each moment; where each stands."""
    jobs = [
        {
            "cohort": str(folder),
            "out": str(tmp_path / f"{moment}-{count}"),
            "overrides": OVERRIDES,
            "moment": moment,
            "count": count,
        }
        for moment, count in moments
    ]
    script = Path(__file__).with_name("killed.py")
    done = subprocess.run([sys.executable, script, json.dumps(jobs)], capture_output=True, text=True, check=True)
    endings = json.loads(done.stdout.splitlines()[-1])
    return {moment: (Path(job["out"]), end) for moment, job, end in zip(moments, jobs, endings, strict=True)}


@pytest.fixture(scope="module")
def killed(folder, tmp_path_factory):
    return kill(folder, tmp_path_factory.mktemp("killed"), MOMENTS)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: "-".join(map(str, moment)))
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(killed, cohort, recipe, whole, moment):
    place, ending = killed[moment]
    assert ending == -signal.SIGKILL
    fit(cohort, recipe=recipe, out=place)
    same(place, whole)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["rename", "remove"])
def test_a_run_killed_at_any_change_of_its_folder_goes_on_to_the_same_bits(
    folder, cohort, recipe, whole, tmp_path, what
):
    """Every file appears by a rename, and every old one is removed: these are all the states a folder can be in."""
    killed = kill(folder, tmp_path, [(what, count) for count in range(1, 45)])
    endings = [ending for _, ending in killed.values()]
    assert 20 < endings.count(-signal.SIGKILL) < 44  # the last ones were not reached
    assert set(endings) == {-signal.SIGKILL, 0}
    broken = []
    for moment, (place, _) in killed.items():
        try:
            fit(cohort, recipe=recipe, out=place)
            same(place, whole)
        except (AssertionError, RemindError) as error:
            broken.append(f"{moment}: {str(error)[:200]}")
    assert not broken


def test_a_run_killed_again_and_again_goes_on_to_the_same_bits(cohort, recipe, whole, tmp_path):
    for step in (2, 5, 7, 11, 12, 14, 23):
        stopped(cohort, recipe, tmp_path / "run", step)
    fit(cohort, recipe=recipe, out=tmp_path / "run")
    same(tmp_path / "run", whole)


def test_a_damaged_checkpoint_costs_some_steps_and_no_bits(cohort, recipe, whole, tmp_path):
    place = stopped(cohort, recipe, tmp_path / "run", 17)
    tensors = place / "checkpoint" / "last" / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)
    fit(cohort, recipe=recipe, out=place)
    same(place, whole)


def test_two_damaged_checkpoints_are_refused_by_name(cohort, recipe, tmp_path):
    place = stopped(cohort, recipe, tmp_path / "run", 17)
    for name in ("last", "last.previous"):
        (place / "checkpoint" / name / "document.json").write_text("{}")
    with pytest.raises(RemindError, match=r"checkpoint/last/document\.json: is damaged"):
        fit(cohort, recipe=recipe, out=place)


def test_an_interrupted_run_is_not_evaluated_and_not_taken_over_by_another(cohort, folder, recipe, tmp_path):
    from remind.api import evaluate, load_model

    place = stopped(cohort, recipe, tmp_path / "run", 17)
    for function in (evaluate, load_model):
        with pytest.raises(RemindError, match="not a finished run"):
            function(place)
    with pytest.raises(RemindError, match=r"holds another run \(recipe\.seed: 10 there, 7 asked\)"):
        fit(cohort, recipe=recipe, seed=7, out=place)


def test_a_second_process_is_refused_while_the_first_trains_and_may_go_on_once_it_is_dead(
    folder, cohort, recipe, whole, tmp_path
):
    job = {"cohort": str(folder), "out": str(tmp_path / "run"), "overrides": OVERRIDES, "moment": "hold", "count": 5}
    script = Path(__file__).with_name("killed.py")
    command = [sys.executable, "-c", f"import json, sys; sys.path.insert(0, {str(script.parent)!r}); import killed; "
               "killed.train(json.loads(sys.argv[1]))", json.dumps(job)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "holding\n"
            before = content(tmp_path / "run")
            with pytest.raises(RemindError, match="another process is training into this folder"):
                fit(cohort, recipe=recipe, out=tmp_path / "run")
            assert content(tmp_path / "run") == before
        finally:
            first.kill()
    fit(cohort, recipe=recipe, out=tmp_path / "run")
    same(tmp_path / "run", whole)


# What the other objectives remember: two epochs of batches with quotas, or of pairs and running losses

JOINT = ("method=fairbatch", "objectives.fair_batch.alpha=0.2", "objectives.fair_batch.min_count=2", "train.epochs=3")
MIXED = ("method=fair-mixup", "objectives.fair_mixup.min_count=2", "train.epochs=3")


@pytest.fixture(scope="module", params=[JOINT, MIXED], ids=lambda overrides: overrides[0])
def other(request, folder, tmp_path_factory):
    """The recipe of another method, and a run of it that nothing interrupted."""
    recipe = load_recipe(None, [*OVERRIDES, *request.param])
    place = tmp_path_factory.mktemp("other") / "run"
    fit(folder, recipe=recipe, out=place)
    return recipe, place


@pytest.mark.parametrize("step", [3, 6, 7, 11])
def test_other_methods_resume_to_the_same_bits_in_the_middle_of_an_epoch(cohort, other, tmp_path, step):
    recipe, whole = other
    fit(cohort, recipe=recipe, out=stopped(cohort, recipe, tmp_path / "run", step))
    same(tmp_path / "run", whole)


def test_without_what_they_remember_they_do_not(cohort, other, tmp_path, monkeypatch):
    recipe, whole = other
    place = stopped(cohort, recipe, tmp_path / "run", 7)
    monkeypatch.setattr(FairBatch if recipe.method == "fairbatch" else FairMixup, "load_state_dict", nothing)
    fit(cohort, recipe=recipe, out=place)
    assert content(place)["history.parquet"] != content(whole)["history.parquet"]


def test_where_another_version_left_a_run_it_is_not_taken_up(cohort, other, tmp_path, monkeypatch):
    recipe, _ = other
    place = stopped(cohort, recipe, tmp_path / "run", 7)
    objective = FairBatch if recipe.method == "fairbatch" else FairMixup
    monkeypatch.setattr(objective, "state_dict", lambda self: {"momentum": torch.zeros(1)})
    with pytest.raises(RemindError, match="another version of remind"):
        fit(cohort, recipe=recipe, out=place)


@pytest.mark.slow
def test_batches_with_quotas_are_the_same_from_processes_that_read_ahead(folder, tmp_path):
    recipes = [load_recipe(None, [*OVERRIDES, *JOINT, f"data.workers={count}"]) for count in (0, 1)]
    alone, ahead = (fit(folder, recipe=recipe, out=tmp_path / str(recipe.data.workers)) for recipe in recipes)
    assert all(torch.equal(t, ahead.model.state_dict()[name]) for name, t in alone.model.state_dict().items())
    shares = pl.read_parquet(tmp_path / "1" / "history.parquet")["group_weights"].to_list()
    assert shares[0] != shares[1] != shares[2]


# Each part of the state matters: without it the resumed run is another one


def nothing(*args, **kwargs):
    """In place of what puts a part of the state back."""


def best_forgotten(tensors, parts):
    found = unflatten(tensors, parts)
    return {**found, "best": found["model"]}


MUTANTS = {
    "nothing": (7, loop, "_as_is", loop._as_is),
    "objective": (7, GroupDRO, "load_state_dict", nothing),
    "optimizer": (7, resume, "load_optimizer_state", nothing),
    "rng": (7, resume, "load_rng_state", nothing),
    "sampler": (7, BucketSampler, "load_state_dict", nothing),
    "schedule": (7, torch.optim.lr_scheduler.StepLR, "load_state_dict", nothing),
    "average": (7, WeightAverage, "load_state_dict", nothing),
    "best": (23, resume, "unflatten", best_forgotten),
}


@pytest.mark.parametrize("part", MUTANTS)
def test_a_checkpoint_without_one_of_its_parts_gives_another_run(cohort, recipe, whole, tmp_path, monkeypatch, part):
    step, *mutant = MUTANTS[part]
    place = stopped(cohort, recipe, tmp_path / "run", step)
    monkeypatch.setattr(*mutant)
    fit(cohort, recipe=recipe, out=place)
    name = "checkpoint/model/tensors.safetensors"
    assert (content(place)[name] == content(whole)[name]) == (part == "nothing")
    assert (content(place) == content(whole)) == (part == "nothing")
