"""``remind compare --trials``: every method tries as many settings, and validation, not the test split, chooses."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import yaml

from remind.config import Recipe, load_recipe
from remind.errors import RemindError
from remind.evaluation.references import REFERENCES, flat_table, reference_predictions
from remind.fusions import FUSIONS
from remind.methods import METHODS
from remind.objectives import OBJECTIVES
from remind.report.comparison import markdown
from remind.suite.compare import compare
from remind.suite.trials import settings_of


def score(run):
    return json.loads((run / "selection.json").read_text())["score"]


@pytest.fixture(scope="module")
def suite(folder, tiny, tmp_path_factory):
    out, told = tmp_path_factory.mktemp("trials") / "s", []
    result = compare(
        folder,
        ["soft-moe", "remind"],
        (1,),
        overrides=tiny,
        out=out,
        trials=3,
        jobs=2,
        replicates=200,
        told=lambda outcome, total: told.append((outcome, total)),
    )
    return out, result, told


def test_every_method_goes_on_with_the_best_of_as_many_trials(suite, tiny):
    out, result, told = suite
    assert {(len(told), total) for _, total in told} == {(8, 8)}  # twice three trials, and two runs
    for name in ("soft-moe", "remind"):
        scores = [score(out / "trials" / f"{name}-{trial}") for trial in range(3)]
        best = scores.index(max(scores))
        chosen = settings_of(name, load_recipe(None, [*tiny, "train.threads=1"]), best)
        assert result["trials"][name] == {"settings": chosen, "score": max(scores)}
        expected = load_recipe(None, [*tiny, "train.threads=1", *chosen], method=name, seed=1)
        run = yaml.safe_load((out / f"{name}-seed1" / "config.yaml").read_text())["recipe"]
        assert run == expected.model_dump(mode="json")
        assert f"- {name}: `{' '.join(chosen) or 'the recipe'}`" in markdown(result)


def test_test_samples_have_no_say(suite, folder, tiny, tmp_path):
    """With other labels on the test split, the same settings are chosen."""
    _, result, _ = suite
    changed = shutil.copytree(folder, tmp_path / "c")
    spec = yaml.safe_load((changed / "cohort.yaml").read_text())
    from remind.cohort.cohort import load
    from remind.cohort.splits import SPLITS

    split = [SPLITS[place] for place in load(folder).split]
    table = pl.read_parquet(changed / "samples.parquet").with_columns(pl.Series("part", split))
    other = pl.when(pl.col("part") == "test").then(pl.lit("c0")).otherwise(pl.col("outcome")).alias("outcome")
    table.with_columns(other).write_parquet(changed / "samples.parquet")
    (changed / "cohort.yaml").write_text(yaml.safe_dump(spec | {"split": {"column": "part"}}, sort_keys=False))
    again = compare(changed, ["remind"], (1,), overrides=tiny, out=tmp_path / "s", trials=3, replicates=200)
    assert again["trials"]["remind"] == result["trials"]["remind"]


def test_the_same_call_tries_nothing_again(suite, folder, tiny):
    out, result, _ = suite
    told = []
    again = compare(
        folder,
        ["soft-moe", "remind"],
        (1,),
        overrides=tiny,
        out=out,
        trials=3,
        replicates=200,
        told=lambda outcome, _: told.append(outcome),
    )
    assert again == result
    assert {outcome.state for outcome in told} == {"there"}


def test_another_number_of_trials_needs_another_folder(suite, folder, tiny):
    out, *_ = suite
    with pytest.raises(RemindError, match="--trials 3"):
        compare(folder, ["remind"], (1,), overrides=tiny, out=out, trials=2)
    with pytest.raises(RemindError, match="trials"):
        compare(folder, ["remind"], (1,), overrides=tiny, out=out, trials=0)
    with pytest.raises(RemindError, match="to 8"):
        compare(folder, ["remind"], (1,), overrides=tiny, out=out, trials=9)


def test_a_method_of_which_a_trial_fails_is_left_out(suite, folder, tiny, tmp_path):
    """It would have had fewer trials than the others."""
    out, *_ = suite
    place = shutil.copytree(out, tmp_path / "s")
    trial = place / "trials" / "remind-1"
    shutil.rmtree(trial)
    trial.mkdir()
    (trial / "thesis.txt").write_text("mine")
    words = {"overrides": tiny, "out": place, "trials": 3, "replicates": 200}
    again = compare(folder, ["soft-moe", "remind"], (1,), **words)
    assert again["failed"].keys() == {"remind-1"}
    assert again["trials"].keys() == {"soft-moe"}
    assert "remind" not in again["methods"]
    with pytest.raises(RemindError, match=r"no run finished.*not empty"):
        compare(folder, ["remind"], (1,), **words)


def test_what_is_shared_is_tried_alike_by_every_method():
    recipe = Recipe()
    shared = ("train.lr=", "model.dropout=", "train.weight_decay=")
    for trial in range(1, 20):
        drawn = {tuple(s for s in settings_of(name, recipe, trial) if s.startswith(shared)) for name in METHODS}
        assert len(drawn) == 1
        assert len(drawn.pop()) == 3
    first = {tuple(settings_of("soft-moe", recipe, trial)) for trial in range(18)}
    assert len(first) == 18  # none twice


@pytest.mark.parametrize("registry", [FUSIONS, OBJECTIVES], ids=["fusions", "objectives"])
def test_what_components_try_are_settings_of_theirs(registry):
    for name in registry.names():
        for key, values in registry.get(name).tries.items():
            for value in values:
                registry.check(name, {key: value})
            assert len(set(values)) == len(values) > 1


def test_reference_models_try_as_many_settings_and_keep_the_best_on_validation(cohort):
    columns = [f"p_{name}" for name in cohort.classes]
    for name, (make, settings) in REFERENCES.items():
        x, training, validation = flat_table(cohort), cohort.rows("train"), cohort.rows("validation")
        losses = []
        for one in settings[:4]:
            model = make(0, **one).fit(x[training], cohort.target[training])
            likelihood = model.predict_proba(x[validation])[range(len(validation)), cohort.target[validation]]
            losses.append(-np.log(likelihood).mean())
        best = make(0, **settings[losses.index(min(losses))]).fit(x[training], cohort.target[training])
        found = reference_predictions(cohort, name, 0, trials=4).select(columns).to_numpy()
        assert found == pytest.approx(best.predict_proba(x[cohort.rows("test")]))
