"""Intervals hold what they promise, and say why where there are none."""

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from remind.evaluation.intervals import intervals, witnesses
from remind.evaluation.resampling import METRICS


def patients(rng, count, *, prior, shift):
    """Samples of ``count`` patients, one to three of each, who share their class and a part of the error."""
    subject = np.repeat(np.arange(count), rng.integers(1, 4, count))
    target = rng.choice(len(prior), p=prior, size=count)[subject]
    noise = rng.normal(0, 0.7, (count, len(prior)))[subject] + rng.normal(0, 0.7, (len(subject), len(prior)))
    score = np.exp(shift * np.eye(len(prior))[target] + noise)
    return score / score.sum(axis=1, keepdims=True), target, subject


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "prior", "shift"),
    [(50, (0.6, 0.4), 1.0), (60, (0.5, 0.3, 0.2), 2.0), (60, (0.6, 0.4), 2.5), (300, (0.85, 0.15), 1.5)],
)
def test_95_percent_intervals_cover_the_truth_in_92_to_98_percent(count, prior, shift):
    rng = np.random.default_rng(count)
    probability, target, _ = patients(rng, 200_000, prior=prior, shift=shift)
    truth = {name: metric(probability, target, np.ones((1, len(target)))).item() for name, metric in METRICS.items()}
    inside, width = {name: [] for name in METRICS}, {name: [] for name in METRICS}
    for _ in range(400):
        found = intervals(*patients(rng, count, prior=prior, shift=shift), replicates=300)
        for name, said in found.items():
            if "low" in said:
                inside[name].append(said["low"] <= truth[name] <= said["high"])
                width[name].append(said["high"] - said["low"])
    for name, held in inside.items():
        assert len(held) > 250, name
        assert 0.92 <= np.mean(held) <= 0.985, name
        assert np.mean(width[name]) < 0.22, name  # an interval of everything covers too


def test_an_interval_is_around_its_score():
    probability, target, subject = patients(np.random.default_rng(0), 80, prior=(0.6, 0.4), shift=1.0)
    for name, said in intervals(probability, target, subject).items():
        score = METRICS[name](probability, target, np.ones((1, len(target)))).item()
        assert said["by"] == "bootstrap"
        assert said["low"] < score < said["high"]


def test_samples_of_one_patient_are_one_witness():
    probability, target, subject = patients(np.random.default_rng(1), 60, prior=(0.6, 0.4), shift=1.0)
    rows = np.repeat(np.arange(len(target)), 20)
    once, many = intervals(probability, target, subject), intervals(probability[rows], target[rows], subject[rows])
    for name in METRICS:
        width = once[name]["high"] - once[name]["low"]
        assert many[name]["high"] - many[name]["low"] == pytest.approx(width, rel=0.02), name


def test_of_few_samples_accuracy_has_wilsons_interval():
    probability, target, subject = np.tile([0.7, 0.3], (20, 1)), np.array([0] * 17 + [1] * 3), np.arange(20)
    said = intervals(probability, target, subject)["accuracy"]
    assert (said["low"], said["high"]) == pytest.approx(proportion_confint(17, 20, method="wilson"))
    assert said["by"] == "wilson"


@pytest.mark.parametrize(("right", "of"), [(59, 60), (57, 60), (199, 200), (398, 400)])
def test_where_hardly_any_is_wrong_the_interval_is_as_narrow_as_wilsons(right, of):
    target = np.arange(of) % 2
    shown = np.where(np.arange(of) < of - right, 1 - target, target)
    said = intervals(np.eye(2)[shown] * 0.8 + 0.1, target, np.arange(of))
    assert said["accuracy"]["by"] == "wilson"
    low, high = proportion_confint(right, of, method="wilson")
    assert (said["accuracy"]["low"], said["accuracy"]["high"]) == pytest.approx((low, high))
    for name in ("macro_f1", "macro_auroc"):
        assert said[name]["low"] > low - 4 * (high - low)


def test_patients_with_many_samples_count_as_few():
    """One of sixty samples and 29 of one are no thirty witnesses."""
    subjects = np.repeat(np.arange(30), [60, *[1] * 29])
    assert witnesses(subjects) == pytest.approx(89**2 / (60**2 + 29))
    assert witnesses(np.arange(30)) == 30
    assert witnesses(np.repeat(np.arange(30), 7)) == pytest.approx(30)


def test_a_class_that_is_only_predicted_lets_f1_have_no_interval():
    rng = np.random.default_rng(3)
    probability, target = rng.dirichlet([1, 1, 0.4], 100), np.arange(100) % 2
    assert (probability.argmax(axis=1) == 2).any()
    said = intervals(probability, target, np.arange(100))
    assert said["macro_f1"] == {"reason": "a class has 0 subjects, fewer than 10"}
    assert "low" in said["macro_auroc"]


def test_where_all_are_right_nobody_is_sure():
    target = np.arange(100) % 2
    found = intervals(np.eye(2)[target] * 0.8 + 0.1, target, np.arange(100))
    assert found["accuracy"]["by"] == "wilson"
    assert found["accuracy"]["low"] == pytest.approx(0.963, abs=1e-3)
    assert "cannot tell" in found["macro_auroc"]["reason"]


def test_what_has_no_interval_says_why():
    rng = np.random.default_rng(2)
    probability = rng.dirichlet([1, 1, 1], 60)
    one_class = intervals(probability, np.zeros(60, dtype=np.int64), np.arange(60))
    assert one_class["macro_auroc"] == {"reason": "all samples are of one class"}
    assert "low" in one_class["accuracy"]
    rare = intervals(probability, np.array([0] * 40 + [1] * 17 + [2] * 3), np.arange(60))
    assert rare["macro_f1"] == {"reason": "a class has 3 subjects, fewer than 10"}
    few = intervals(probability[:9], np.arange(9) % 3, np.arange(9))
    assert all("too few to judge (9 of 10 subjects)" in said["reason"] for said in few.values())
