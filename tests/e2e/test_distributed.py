"""Two processes that train together give what one gives; over gloo, on this CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import TINY
from releases import screening
from runs import weights

from remind.api import load_model
from remind.cohort.cohort import load
from remind.cohort.combination import GroupTable
from remind.config import load_recipe
from remind.engine.distributed import Team
from remind.engine.sharding import refuse_settings
from remind.errors import RemindError
from remind.sources import embed

SCRIPT = Path(__file__).with_name("ranks.py")
PLAIN = (*TINY, "model.dropout=0", "encoders.tabular.dropout=0")  # dropout differs between ranks, as it must
METHODS = ("soft-moe", "group-dro", "remind", "reweigh", "logit-adjust", "fairbatch")


def together(ranks: int, *words: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """A command on so many ranks of this machine; plainly, for one."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", str(port())]
    command = [sys.executable, *(launcher if ranks > 1 else []), *map(str, words)]
    path = os.pathsep.join([str(SCRIPT.parent), str(SCRIPT.parent.parent)])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)


def port() -> int:
    """One that is free; two tests may run at once."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(ranks: int, folder: Path, jobs: list[dict]) -> subprocess.CompletedProcess[str]:
    for job in jobs:
        job["out"] = str(job["out"])
    return together(ranks, SCRIPT, folder, json.dumps(jobs))


def apart(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[key].double() - second[key].double()).abs().max()) for key in first)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """Every method on one rank and on two, by SGD; batches of 37, so that parts are uneven."""
    place = tmp_path_factory.mktemp("ranks")
    overrides = {name: [*PLAIN, f"method={name}", "train.batch_size=37", "train.lr=0.5"] for name in METHODS}
    for ranks in (1, 2):
        jobs = [{"out": place / f"{name}-{ranks}", "overrides": overrides[name], "sgd": True} for name in METHODS]
        done = train(ranks, folder, jobs)
        assert done.returncode == 0, done.stderr[-3000:]
    return place


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_give_the_weights_of_one(trained, name):
    one, two = trained / f"{name}-1", trained / f"{name}-2"
    assert apart(one, two) < 1e-6
    histories = [pl.read_parquet(run / "history.parquet") for run in (one, two)]
    for column in ("train_loss", "validation_loss", "gate_open"):
        assert histories[0][column].to_list() == pytest.approx(histories[1][column].to_list(), abs=1e-6)
    if histories[0]["group_weights"].null_count() == 0:  # lambda saw the losses of both
        first, second = (history["group_weights"].to_list() for history in histories)
        assert np.array(first) == pytest.approx(np.array(second), abs=1e-7)
        assert len(set(first[-1])) > 1
    start = pl.read_parquet(one / "history.parquet")["train_loss"][0]
    assert histories[0]["train_loss"][-1] < start  # it has learned: equal weights are not those it began with


@pytest.mark.slow
def test_ranks_with_other_combinations_or_no_sample_at_all_hang_nobody(folder, tmp_path):
    """In batches of two, each rank has one sample, mostly of another combination; of 11, the last has one in all."""
    cohort = load(folder)
    rows = cohort.rows("train")
    assert len(rows) % 11 == 1
    assert len(GroupTable.fit(cohort.available[rows], cohort.modalities)) > 4
    for ranks in (1, 2):
        jobs = [
            {"out": tmp_path / f"{size}-{ranks}", "overrides": [*PLAIN, f"train.batch_size={size}"], "sgd": True}
            for size in (2, 11)
        ]
        done = train(ranks, folder, jobs)
        assert done.returncode == 0, done.stderr[-3000:]
    for size in (2, 11):
        assert apart(tmp_path / f"{size}-1", tmp_path / f"{size}-2") < 1e-6


@pytest.mark.slow
def test_killed_ranks_go_on_to_the_same_bits_and_one_goes_on_for_two(folder, tmp_path):
    overrides = [*TINY, "train.checkpoint_every=2", "train.epochs=3"]  # with dropout: each rank's own random numbers
    whole = train(2, folder, [{"out": tmp_path / "whole", "overrides": overrides}])
    assert whole.returncode == 0, whole.stderr[-3000:]
    for name in ("killed", "alone"):
        died = train(2, folder, [{"out": tmp_path / name, "overrides": overrides, "die": 5}])
        assert died.returncode != 0
        assert (tmp_path / name / "checkpoint" / "last").is_dir()
    assert train(2, folder, [{"out": tmp_path / "killed", "overrides": overrides}]).returncode == 0
    assert apart(tmp_path / "killed", tmp_path / "whole") == 0
    same = [(tmp_path / name / "predictions.parquet").read_bytes() for name in ("killed", "whole")]
    assert same[0] == same[1]
    assert train(1, folder, [{"out": tmp_path / "alone", "overrides": overrides}]).returncode == 0
    assert apart(tmp_path / "alone", tmp_path / "whole") < 0.1


@pytest.mark.slow
def test_the_command_line_speaks_once_and_refuses_what_one_process_must_do(folder, tmp_path):
    line = ("-m", "remind", "train", folder, *(word for setting in PLAIN for word in ("-s", setting)))
    done = together(2, *line, "-m", "remind", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("overall") == 1
    assert (tmp_path / "run" / "metrics.json").is_file()
    refused = together(2, *line, "-m", "fair-mixup", "--out", tmp_path / "mixup")
    assert refused.returncode != 0
    assert "needs all of a batch in one process" in refused.stderr
    assert not (tmp_path / "mixup").exists()


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_parts_are_every_row_once_and_as_even_as_can_be(ranks, size):
    bounds = Team(0, ranks).bounds(size)
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(size))
    lengths = [stop - start for start, stop in bounds]
    assert max(lengths) - min(lengths) <= 1
    for rank, (start, stop) in enumerate(bounds):
        expected = slice(start, stop) if stop > start else slice(0, 1)
        assert Team(rank, ranks).part(size) == expected


SHARDED = ("train.shard=true", "data.features=none")


@pytest.fixture(scope="module")
def sharded(folder, tmp_path_factory):
    """REMIND with its weights in two parts by SGD, and by AdamW with dropout, the second killed on the way and not."""
    place = tmp_path_factory.mktemp("sharded")
    plain = [*PLAIN, "method=remind", "train.batch_size=37", "train.lr=0.5"]
    adam = [*TINY, *SHARDED, "method=remind", "train.checkpoint_every=2", "train.epochs=4", "train.batch_size=37"]
    assert train(1, folder, [{"out": place / "one", "overrides": plain, "sgd": True}]).returncode == 0
    jobs = [
        {"out": place / "two", "overrides": [*plain, *SHARDED], "sgd": True},
        {"out": place / "whole", "overrides": adam},
    ]
    done = train(2, folder, jobs)
    assert done.returncode == 0, done.stderr[-3000:]
    for step in (3, 14):  # within the first stage, and the second
        job = {"out": place / f"killed-{step}", "overrides": adam}
        assert train(2, folder, [job | {"die": step}]).returncode != 0
        done = train(2, folder, [job])
        assert done.returncode == 0, done.stderr[-3000:]
    return place


@pytest.mark.slow
def test_a_model_in_parts_learns_what_it_learns_whole(sharded):
    assert apart(sharded / "one", sharded / "two") < 1e-6
    one, two = (pl.read_parquet(sharded / name / "predictions.parquet") for name in ("one", "two"))
    np.testing.assert_allclose(two.select("^p_.*$").to_numpy(), one.select("^p_.*$").to_numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fusemoe", "flex-moe"])
def test_experts_that_one_rank_alone_uses_hang_nobody(folder, tmp_path, method):
    overrides = [*TINY, *SHARDED, f"method={method}", "train.batch_size=2", "train.epochs=1"]
    done = train(2, folder, [{"out": tmp_path / "run", "overrides": overrides}])
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(bool(tensor.isfinite().all()) for tensor in weights(tmp_path / "run").values())


@pytest.mark.slow
def test_rows_that_wait_are_not_lost_where_other_ranks_go_on(folder, tmp_path):
    """One process moves groups' rows when they are seen (more groups than a batch has samples), two all of them."""
    overrides = [
        *PLAIN,
        "train.batch_size=3",
        "fusions.remind.min_count=1",
        "train.checkpoint_every=5",
        "train.lr=1e-4",
    ]
    assert train(1, folder, [{"out": tmp_path / "whole", "overrides": overrides}]).returncode == 0
    for place, (before, after) in enumerate([(1, 2), (2, 1)]):
        job = {"out": tmp_path / f"changed-{place}", "overrides": overrides}
        assert train(before, folder, [job | {"die": 103}]).returncode != 0
        done = train(after, folder, [job])
        assert done.returncode == 0, done.stderr[-3000:]
        name = "fusion.router.residual"
        made, expected = (weights(run)[name] for run in (tmp_path / f"changed-{place}", tmp_path / "whole"))
        assert expected.abs().max() > 1e-4
        assert (made - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 14])
def test_parts_of_killed_ranks_go_on_to_the_same_bits(sharded, step):
    assert apart(sharded / f"killed-{step}", sharded / "whole") == 0


@pytest.mark.slow
def test_the_papers_largest_model_trains_in_parts_at_a_smaller_width(tmp_path):
    """EMBED's recipe with its 128 experts, on two ranks; one process loads it and predicts the same.

    Encoders learn, and mostly one rank's sample lacks a view that the other's has.
    """
    folder = embed.write(tmp_path / "cohort", root=str(screening().write(tmp_path / "release")))
    images = ("backbone=resnet50", "weights=random", "size=33", "tokens=1")
    small = ("model.dim=16", "model.heads=2", *(f"encoders.image.{setting}" for setting in images))
    settings = ("train.epochs=2", "train.batch_size=2", "train.device=cpu", "train.threads=1", *SHARDED)  # one each
    words = [word for override in (*small, *settings) for word in ("-s", override)]
    run = tmp_path / "run"
    done = together(2, "-m", "remind", "train", folder, "-r", "embed", "-m", "remind", *words, "--out", run)
    assert done.returncode == 0, done.stderr[-3000:]
    assert weights(run)["fusion.block.moe.experts.up.weight"].shape == (128, 16, 64)
    cohort, fitted = load(folder), load_model(run)
    expected = pl.read_parquet(run / "predictions.parquet")
    made = fitted.predictions(cohort, np.flatnonzero(cohort.split != 0))
    np.testing.assert_allclose(made.select("^p_.*$").to_numpy(), expected.select("^p_.*$").to_numpy(), atol=1e-6)


def test_one_process_has_no_parts(folder, tiny_words, tmp_path, remind):
    words = ("-m", "remind", *tiny_words, "-s", "train.shard=true", "--out", tmp_path / "run")
    done = remind("train", folder, *words)
    assert done.code == 2
    assert "start several by torchrun" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({}, "set data.features=none"),
        ({"data.features": "none", "train.average": 0.9}, "does not go with train.average"),
        ({"data.features": "none", "train.compile": True}, "does not go with train.compile"),
    ],
)
def test_what_does_not_go_with_parts_is_named(overrides, said):
    recipe = load_recipe(None, [f"{key}={value}" for key, value in ({"train.shard": True} | overrides).items()])
    with pytest.raises(RemindError, match=said):
        refuse_settings(recipe.train, Team(0, 2), recipe.data.features, adapted=False)
