"""``remind analyze unseen`` and the other analyses on the command line."""

import json

import numpy as np
import polars as pl
import pytest

from remind.analysis.unseen import ARMS, NOTHING, unseen
from remind.api import load_model
from remind.cohort.cohort import load
from remind.engine.run_folder import RunFolder
from remind.errors import RemindError
from remind.sources.synthetic import write
from remind.suite.plan import Job, Outcome

HELD = ["m1+m3", "m2+m3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write(tmp_path_factory.mktemp("unseen") / "c", samples=900, modalities=3, available=[0.7] * 3, seed=2)


@pytest.fixture(scope="module")
def in_process():
    """Runs of a suite in this process: thirty imports of torch would take minutes."""

    def run(self, children):
        from remind.api import fit
        from remind.config import load_recipe

        fit(self.cohort, recipe=load_recipe(self.recipe, method=self.method, seed=self.seed), out=self.out)
        return Outcome(self.name, "finished", None, 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "run", run)
        yield


@pytest.fixture(scope="module")
def found(place, tiny, tmp_path_factory, in_process):
    out = tmp_path_factory.mktemp("found")
    return out, unseen(place, out, hold=HELD, methods=["remind"], seeds=(0, 1), overrides=tiny)


@pytest.mark.slow
def test_scores_are_of_the_held_out_test_samples_alone(place, found):
    out, finding = found
    cohort, table = load(place), finding.table
    assert table["tuned"].unique(maintain_order=True).to_list() == [NOTHING, *ARMS]
    names = np.array(["+".join(np.array(cohort.modalities)[mask]) for mask in cohort.available])
    rows = [row for row in cohort.rows("test") if names[row] in HELD]
    assert set(table["n"]) == {len(rows)}
    for arm, tune in ((NOTHING, None), ("head", 0), ("head, router, all experts", 4)):
        right = []
        for seed in (0, 1):
            run = out / "suite" / f"remind-seed{seed}"
            run = run if tune is None else out / "adapted" / f"remind-seed{seed}-{tune}"
            predicted = load_model(run).predictions(cohort, np.array(rows))
            probability = predicted.select([f"p_{name}" for name in cohort.classes]).to_numpy()
            right.append((probability.argmax(1) == predicted["target"].to_numpy()).mean())
        line = table.filter(tuned=arm, metric="accuracy").row(0, named=True)
        assert line["mean"] == pytest.approx(np.mean(right))


@pytest.mark.slow
def test_the_base_never_saw_them_and_the_adapted_did(place, found):
    out, _ = found
    base = load_model(out / "suite" / "remind-seed0")
    assert not set(HELD) & set(base.groups.labels())
    adapted = load_model(out / "adapted" / "remind-seed0-1")
    assert set(adapted.groups.labels()[-2:]) == set(HELD)
    document = json.loads((out / "adapted" / "remind-seed0-1" / "adaptation.json").read_text())
    assert document["tune"] == "head,router"


@pytest.mark.slow
def test_the_same_call_trains_nothing_again(place, tiny, found, in_process):
    out, finding = found
    before = {path: path.stat().st_mtime_ns for path in out.rglob("predictions.parquet")}
    again = unseen(place, out, hold=HELD, methods=["remind"], seeds=(0, 1), overrides=tiny)
    assert again.table.equals(finding.table)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("predictions.parquet")} == before
    with pytest.raises(RemindError, match="was masked with"):
        unseen(place, out, hold=["m1+m3"], methods=["remind"], seeds=(0,), overrides=tiny)


def test_too_few_large_combinations_must_be_named(tmp_path, tiny):
    small = write(tmp_path / "c", samples=80, modalities=3)
    with pytest.raises(RemindError, match="--hold"):
        unseen(small, tmp_path / "out", overrides=tiny)


@pytest.mark.slow
def test_gradients_and_experts_on_the_command_line(place, tiny_words, remind, in_process, tmp_path):
    words = ("-m", "soft-moe,remind", "--out", tmp_path / "out", *tiny_words)
    done = remind("analyze", "gradients", place, "--every", 5, *words)
    assert done.code == 0, done.said
    for name in ("gradients.parquet", "gradients.json", "gradients.png", "gradients.svg"):
        assert (tmp_path / "out" / name).is_file()
    table = pl.read_parquet(tmp_path / "out" / "gradients.parquet")
    assert set(table["method"]) == {"soft-moe", "remind"}
    assert table.filter(pl.col("step") == 5).height > 0
    assert "head" in done.out
    runs = [tmp_path / "out" / "recorded" / f"{name}-seed0" for name in ("soft-moe", "remind")]
    of_runs = remind("analyze", "experts", *runs, "--cohort", place, "--out", tmp_path / "experts", "--json")
    assert of_runs.code == 0, of_runs.said
    assert len(json.loads(of_runs.out)["files"]) == 4
    of_suite = remind("analyze", "experts", runs[0].parent, "--cohort", place, "--out", tmp_path / "again", "--json")
    assert sorted(json.loads(of_suite.out)["says"]) == sorted(json.loads(of_runs.out)["says"])
    recorded = RunFolder(runs[0]).read_table("gradients")
    assert table.filter(pl.col("step").is_not_null(), method="soft-moe").height == recorded.height


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gradients", "nowhere"), ("nowhere", "--cohort")),
        (("experts", "COHORT", "--split", "tests"), ("'tests'", "Did you mean 'test'?")),
        (("experts", "nowhere", "--cohort", "COHORT"), ("nowhere", "not a finished run")),
        (("missingness", "COHORT", "--modalities", "m9"), ("'m9'",)),
        (("unseen", "COHORT", "--hold", "m1+m9"), ("'m9'",)),
        (("ablation", "COHORT", "--seeds", "zero"), ("'zero'", "whole number")),
        (("cost", "COHORT", "-m", "remynd"), ("'remynd'", "Did you mean 'remind'?")),
        (("sensitivity", "nowhere"), ("nowhere",)),
    ],
)
def test_mistakes_are_sentences(place, remind, tmp_path, words, said):
    out = tmp_path / "out"
    done = remind("analyze", *[place if word == "COHORT" else word for word in words], "--out", out)
    assert done.code == 2, done.said
    for part in said:
        assert part in done.err
    assert not out.exists() or not any(out.rglob("*.parquet"))
