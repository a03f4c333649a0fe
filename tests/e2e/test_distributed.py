"""Two processes that train together give what one gives; over gloo, on this CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file

from remind.cohort.cohort import load
from remind.cohort.combination import GroupTable
from remind.engine.distributed import Team

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


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / "model" / "tensors.safetensors")


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
