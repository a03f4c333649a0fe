"""Calibration and sets of classes: against scikit-learn and MAPIE, and what they promise on made-up truth."""

import json
from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.classification import SplitConformalClassifier
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from remind.cohort.combination import Combination, GroupTable
from remind.evaluation.calibration import brier, fit_temperatures, reliability
from remind.evaluation.conformal import LARGE, fit_thresholds
from remind.evaluation.trust import Calibration, calibrate

CLASSES = ["a", "b", "c"]


def samples(seed, sizes, temperatures):
    """Labels drawn from true probabilities; what is said of them is sharper by a temperature of each combination."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    logits = rng.normal(0, 1.5, (len(group), 3))
    target = (rng.random((len(group), 1)) > softmax(logits, axis=1).cumsum(axis=1)[:, :2]).sum(axis=1)
    return softmax(logits * np.array(temperatures)[group][:, None], axis=1), target, group


def errors(probability, target):
    """Reliability of samples of a patient each."""
    return reliability(probability, target, np.arange(len(target)))


def temperatures(probability, target, group):
    """Temperatures from samples of a patient each."""
    return fit_temperatures(probability, target, group, np.arange(len(target)))


def nll(probability, target):
    return log_loss(target, probability, labels=[0, 1, 2])


# Reliability


@pytest.mark.parametrize("classes", [2, 4])
def test_bins_and_error_are_those_of_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    probability, target = rng.dirichlet(np.ones(classes), 500), rng.integers(classes, size=500)
    found = errors(probability, target)
    right, confidence = probability.argmax(axis=1) == target, probability.max(axis=1)
    true, said = calibration_curve(right, confidence, n_bins=10)
    assert [one["accuracy"] for one in found["bins"]] == pytest.approx(true.tolist())
    assert [one["confidence"] for one in found["bins"]] == pytest.approx(said.tolist())
    sizes = np.array([one["n"] for one in found["bins"]])
    assert found["ece"] == pytest.approx((sizes / 500) @ np.abs(true - said))
    assert found["brier"] == pytest.approx(brier_score_loss(target, probability, scale_by_half=True))


def test_one_hundred_percent_is_in_the_last_bin():
    found = errors(np.array([[1.0, 0.0], [0.0, 1.0], [0.95, 0.05]]), np.array([0, 0, 0]))
    assert [(one["from"], one["to"], one["n"]) for one in found["bins"]] == [(0.9, 1.0, 3)]
    assert found["ece"] == pytest.approx(2.95 / 3 - 2 / 3)


def test_a_model_that_is_not_off_is_rarely_called_off():
    called = [errors(*samples(seed, [40], [1.0])[:2])["beyond_chance"] for seed in range(100)]
    assert np.mean(called) <= 0.12
    assert all(errors(*samples(seed, [400], [3.0])[:2])["beyond_chance"] for seed in range(10))


def test_the_error_by_chance_is_what_calibrated_models_show():
    seen = [errors(*samples(seed, [60], [1.0])[:2]) for seed in range(60)]
    assert np.mean([one["ece_by_chance"] for one in seen]) == pytest.approx(np.mean([o["ece"] for o in seen]), rel=0.1)


@given(st.integers(0, 2**32), st.integers(1, 40))
@settings(deadline=None, max_examples=50)
def test_a_brier_score_is_between_0_and_1(seed, n):
    rng = np.random.default_rng(seed)
    assert 0 <= brier(rng.dirichlet([1, 1, 1], n), rng.integers(3, size=n)) <= 1


@pytest.mark.parametrize("visits", [1, 3, 10])
def test_a_patients_visits_do_not_make_a_good_model_look_bad(visits):
    """Labels of a patient's visits are one label, as probable as was said of each."""
    called = []
    for seed in range(100):
        probability, target, _ = samples(seed, [60], [1.0])
        rows = np.repeat(np.arange(60), visits)
        called.append(reliability(probability[rows], target[rows], rows)["beyond_chance"])
    assert np.mean(called) <= 0.12


def test_the_bins_of_many_visits_are_as_wide_as_those_of_one():
    probability, target, _ = samples(0, [80], [1.0])
    rows = np.repeat(np.arange(80), 20)
    once = reliability(probability, target, np.arange(80))["bins"]
    many = reliability(probability[rows], target[rows], rows)["bins"]
    assert [one["low"] for one in many] == pytest.approx([one["low"] for one in once])


# Temperatures


def test_a_patients_visits_weigh_as_one():
    about = samples(5, [15] * 20, [1.0] * 20)
    rows = np.repeat(np.arange(300), 20)
    once, many = temperatures(*about), fit_temperatures(*(part[rows] for part in about), rows)
    assert many.pooled == pytest.approx(once.pooled, rel=1e-3)
    assert many.between == pytest.approx(once.between, abs=1e-3)


def test_a_model_that_is_always_right_is_not_made_sure_of_everything():
    rng = np.random.default_rng(0)
    probability = softmax(rng.normal(0, 1, (30, 3)), axis=1)
    found = temperatures(probability, probability.argmax(axis=1), np.zeros(30, dtype=np.int64))
    assert found.pooled > 0.2
    assert found.applied(np.array([[0.5, 0.3, 0.2]]), np.array([0])).max() < 0.97


def test_a_common_temperature_is_found_and_groups_are_not_told_apart():
    found = temperatures(*samples(0, [900, *[12] * 40], [1.5] * 41))
    assert found.pooled == pytest.approx(1.5, rel=0.1)
    assert all(one == pytest.approx(found.pooled, rel=0.15) for one in found.groups.values())


def test_temperatures_of_combinations_are_found_where_they_differ():
    true = [0.6, 1.5, 2.5]
    found = temperatures(*samples(1, [1500, 1500, 1500], true))
    assert [found.groups[group] for group in range(3)] == pytest.approx(true, rel=0.15)


def test_a_rare_combination_is_drawn_to_the_pooled_temperature():
    sizes, true = [1500, 1500, 1500, 8], [0.6, 1.5, 2.5, 3.0]
    probability, target, group = samples(2, sizes, true)
    found, alone = temperatures(probability, target, group), {}
    for one in (0, 3):
        alone[one] = temperatures(probability[group == one], target[group == one], group[group == one]).pooled
    pulled = {one: np.log(found.groups[one] / alone[one]) / np.log(found.pooled / alone[one]) for one in alone}
    assert pulled[0] < 0.05
    assert pulled[3] > 0.2


def test_calibration_helps_on_other_samples_and_keeps_the_most_probable_class():
    sizes, true = [800, 1200, 800, 40, 20], [0.6, 1.8, 2.5, 2.0, 1.0]
    found = temperatures(*samples(3, sizes, true))
    probability, target, group = samples(4, sizes, true)
    mended = found.applied(probability, group)
    assert mended.sum(axis=1) == pytest.approx(1)
    assert (mended.argmax(axis=1) == probability.argmax(axis=1)).all()
    assert nll(mended, target) < nll(probability, target) - 0.05
    assert errors(mended, target)["ece"] < errors(probability, target)["ece"] / 2


def test_a_combination_that_validation_lacks_has_the_pooled_temperature():
    found = temperatures(*samples(1, [900, 900, 900], [0.6, 1.5, 2.5]))
    assert found.of(np.array([-1, 17])).tolist() == [found.pooled] * 2


@pytest.mark.parametrize("target", [[0], [1], [0, 0, 0]])
def test_certain_and_few_samples_have_temperatures_too(target):
    probability = np.tile([1.0, 0.0, 0.0], (len(target), 1))
    found = temperatures(probability, np.array(target), np.arange(len(target)))
    assert np.isfinite(found.applied(probability, np.array([0] * len(target)))).all()


# Sets


class Said(ClassifierMixin, BaseEstimator):
    """Says what it is given, so that MAPIE sees the same probabilities."""

    def fit(self, x, y):
        self.classes_, self.is_fitted_ = np.arange(3), True
        return self

    def predict_proba(self, x):
        return x

    def predict(self, x):
        return x.argmax(axis=1)


@pytest.mark.parametrize(("coverage", "seed"), [*product((0.8, 0.9, 0.95), range(3))])
def test_sets_are_mapies_in_each_combination(coverage, seed):
    probability, target, group = samples(seed, [200, 60], [1.5, 0.7])
    fitted = fit_thresholds(probability, target, group, np.arange(260), coverage=coverage)
    fresh, _, of = samples(seed + 100, [150, 150], [1.5, 0.7])
    found = fitted.sets(fresh, of)
    for one in (0, 1):
        theirs = SplitConformalClassifier(
            Said().fit(None, None), confidence_level=coverage, conformity_score="lac", prefit=True
        )
        theirs.conformalize(probability[group == one], target[group == one])
        _, sets = theirs.predict_set(fresh[of == one])
        sets = sets[..., 0] | (np.eye(3, dtype=bool)[fresh[of == one].argmax(axis=1)])  # ours are never empty
        assert (found[of == one] == sets).all()


@pytest.mark.slow
def test_coverage_is_held_within_2_points_in_every_combination_of_a_thousand():
    held = []
    for seed in range(40):
        sizes, temperatures = [1000, 1000, 1000], [0.5, 1.0, 3.0]
        probability, target, group = samples(seed, sizes, temperatures)
        fitted = fit_thresholds(probability, target, group, np.arange(3000), coverage=0.9)
        fresh, true, of = samples(seed + 1000, sizes, temperatures)
        inside = fitted.sets(fresh, of)[np.arange(3000), true]
        held.append([inside[of == one].mean() for one in range(3)])
    assert np.mean(held, axis=0) == pytest.approx([0.9] * 3, abs=0.02)


def test_rare_combinations_share_a_threshold_and_it_holds_for_them_together():
    held, sizes, temperatures = [], [800, *[15] * 20], [1.0, *[4.0] * 20]
    for seed in range(40):
        probability, target, group = samples(seed, sizes, temperatures)
        fitted = fit_thresholds(probability, target, group, np.arange(len(group)), coverage=0.9)
        fresh, true, of = samples(seed + 1000, sizes, temperatures)
        held.append(fitted.sets(fresh, of)[np.arange(len(of)), true][of > 0].mean())
    assert fitted.by(0) == "combination"
    assert fitted.by(7) == "rare combinations"
    assert fitted.by(-1) == "none"
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)


def test_where_all_rare_ones_are_too_few_they_have_the_threshold_of_all():
    fitted = fit_thresholds(*samples(0, [200, 20], [1.0, 1.0]), np.arange(220), coverage=0.9)
    assert fitted.rare is None
    assert fitted.by(1) == "all"
    assert fitted.of(np.array([1, -1])).tolist() == [fitted.pooled] * 2


def test_a_combination_that_calibration_lacks_has_the_threshold_of_all():
    fitted = fit_thresholds(*samples(0, [200, *[15] * 5], [1.0, *[4.0] * 5]), np.arange(275), coverage=0.9)
    assert fitted.by(3) == "rare combinations"
    assert fitted.by(99) == "all"
    assert fitted.of(np.array([3, 99])).tolist() == [fitted.rare, fitted.pooled]


def test_samples_of_one_patient_weigh_as_one():
    probability, target, group = samples(0, [100], [1.0])
    once = fit_thresholds(probability, target, group, np.arange(100), coverage=0.9)
    rows = np.repeat(np.arange(100), np.random.default_rng(0).integers(1, 9, 100))
    many = fit_thresholds(probability[rows], target[rows], group[rows], rows, coverage=0.9)
    assert many == once


def test_a_hundred_visits_of_nine_patients_do_not_speak_for_90_percent():
    probability, target, group = samples(0, [100], [1.0])
    fitted = fit_thresholds(probability, target, group, np.arange(100) % 8, coverage=0.9)
    assert fitted.pooled == 1.0
    assert fitted.sets(probability, group).all()


# A run's predictions


def predictions(seed, sizes, temperatures):
    parts = []
    for split, place in (("validation", 0), ("test", 1)):
        probability, target, group = samples(2 * seed + place, sizes, temperatures)
        names = np.array(["x+y", "x", "y"])[group]
        columns = dict(zip(["p_a", "p_b", "p_c"], probability.T, strict=True))
        parts.append(
            pl.DataFrame({"subject": [f"{split}{n}" for n in range(len(group))], "split": split, "combination": names,
                          "group": group, "target": target, **columns})
        )  # fmt: skip
    return pl.concat(parts)


TABLE = GroupTable(("x", "y"), (Combination(3), Combination(1), Combination(2)), (500, 300, 8))


def test_what_is_promised_is_checked_on_the_test_split():
    table = predictions(0, [500, 300, 6], [2.5, 1.0, 1.0])
    found = calibrate(table, TABLE, CLASSES)
    assert found["test"]["overall"]["n"] == 806
    assert found["test"]["overall"]["calibrated"]["ece"] < found["test"]["overall"]["raw"]["ece"]
    lines = {line["combination"]: line for line in found["combinations"]}
    assert lines["x+y"]["temperature"] > lines["x"]["temperature"]
    assert lines["x+y"]["raw"]["beyond_chance"]
    for name in ("x+y", "x"):
        assert lines[name]["held"] == "combination"
        assert lines[name]["coverage"]["share"] == pytest.approx(0.9, abs=0.05)
    assert lines["y"]["reason"] == "too few to judge (6 of 10 subjects)"
    assert "coverage" not in lines["y"]
    json.dumps(found, allow_nan=False)


def test_coverage_is_checked_by_patients_as_it_is_promised():
    table = predictions(0, [500, 300, 6], [1.0, 1.0, 1.0]).with_columns(
        hard=(pl.col("split") == "test") & (pl.col("target") != pl.col("target").first())
    )
    once = calibrate(table, TABLE, CLASSES)["test"]["overall"]["coverage"]
    again = pl.concat([table, *[table.filter("hard")] * 9])  # who is hard comes ten times
    assert calibrate(again, TABLE, CLASSES)["test"]["overall"]["coverage"] == pytest.approx(once)


def test_nothing_of_the_test_split_is_learned_from():
    table = predictions(0, [500, 300, 6], [2.5, 1.0, 1.0])
    other = table.with_columns(target=pl.when(pl.col("split") == "test").then(0).otherwise("target"))
    for key in ("temperature", "conformal"):
        assert calibrate(table, TABLE, CLASSES)[key] == calibrate(other, TABLE, CLASSES)[key]


def test_more_coverage_takes_larger_sets():
    table = predictions(1, [500, 300, 6], [1.0, 1.0, 1.0])
    validation, test = table.filter(split="validation"), table.filter(split="test")
    sizes = [Calibration.fit(validation, CLASSES, coverage=c).of(test)[1].sum() for c in (0.6, 0.8, 0.9, 0.99)]
    assert sizes == sorted(set(sizes))
    assert LARGE < 300
