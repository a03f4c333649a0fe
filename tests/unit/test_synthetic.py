import hashlib
import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from remind.cohort.cohort import load
from remind.cohort.combination import distinct
from remind.errors import RemindError
from remind.sources import synthetic
from remind.sources.synthetic import Law, posterior, write

ALL = np.array(list(product([False, True], repeat=4))[1:])


def read(folder):
    """The cohort, its inputs ``[n, m, f]`` (NaN: missing), its law and its posteriors, rows in one order."""
    cohort, truth = load(folder), json.loads((folder / "truth.json").read_text())
    law = Law(**truth["law"])
    columns = [column for modality in cohort.spec.modalities.values() for column in modality.columns]
    x = cohort.samples.select(columns).to_numpy().reshape(len(cohort), law.modalities, law.features)
    table = pl.read_parquet(folder / "truth.parquet")
    assert table["sample"].to_list() == cohort.ids
    return cohort, x, law, table.drop("sample").to_numpy(), truth


def slow_posterior(law, x, available):
    """One sample, one class, one modality, one feature at a time."""
    shifts = law.shifts(available)
    rows = []
    for n in range(len(x)):
        density = []
        for y in range(law.classes):
            log = 0.0
            for i in range(law.modalities):
                if available[n, i]:
                    mean = law.means[i, (y + int(shifts[n, i])) % law.classes]
                    log -= sum((float(x[n, i, f]) - mean[f]) ** 2 for f in range(law.features)) / 2
            density.append(math.exp(log))
        rows.append([d / sum(density) for d in density])
    return np.array(rows)


def hashes(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_the_folder_is_a_sound_cohort(tmp_path):
    cohort, x, law, truth, _ = read(write(tmp_path / "c", samples=500))
    assert (len(cohort), cohort.modalities, cohort.classes) == (500, ("m1", "m2", "m3", "m4"), ["c0", "c1", "c2"])
    assert cohort.samples.schema["m1_1"] == pl.Float32
    stored = pl.read_parquet(tmp_path / "c" / "samples.parquet").select(pl.selectors.float())
    assert not any(stored.select(pl.all().is_nan().any()).row(0))  # missing is null, never NaN
    np.testing.assert_array_equal(np.isnan(x).all(axis=2), ~cohort.available)
    np.testing.assert_array_equal(np.isnan(x).any(axis=2), ~cohort.available)
    assert truth.sum(axis=1) == pytest.approx(1)
    assert law.shift == 0.5


@pytest.mark.parametrize(("classes", "features"), [(3, 8), (4, 2), (2, 1)])
def test_the_posterior_equals_a_slow_loop(tmp_path, classes, features):
    folder = write(tmp_path / "c", samples=200, modalities=3, classes=classes, features=features, seed=3)
    cohort, x, law, truth, _ = read(folder)
    np.testing.assert_allclose(truth, slow_posterior(law, x, cohort.available), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(posterior(law, x, cohort.available), truth)  # NaN where missing is not read


def test_the_best_guess_is_right_as_often_as_stated(tmp_path):
    cohort, _, _, best, truth = read(write(tmp_path / "c", samples=40_000, seed=1))
    right = best.argmax(axis=1) == cohort.target
    assert right.mean() == pytest.approx(truth["bayes_accuracy"], abs=4 * 0.5 / math.sqrt(len(right)))
    assert truth["on_samples"] == pytest.approx(truth["bayes_accuracy"], abs=4 * 0.25 / math.sqrt(len(right)))
    masks, which, counts = distinct(cohort.available)
    names = ["+".join(np.array(cohort.modalities)[mask]) for mask in masks]
    assert set(names) == set(truth["combinations"])
    for group, name in enumerate(names):
        stated = truth["combinations"][name]
        assert stated["samples"] == counts[group]
        slack = 4 * math.hypot(stated["standard_error"], 0.5 / math.sqrt(counts[group]))
        assert right[which == group].mean() == pytest.approx(stated["bayes_accuracy"], abs=slack)


def test_fresh_logits_have_the_law_of_fresh_inputs():
    law = Law(3, 4, 2, shift=0.5, signal=1.5, seed=2)  # fewer features than classes: the Gram matrix is singular
    mask, n = np.array([True, False, True]), 40_000
    rng, rows, target = np.random.default_rng(0), np.tile([True, False, True], (n, 1)), np.arange(n) % 4
    x = law.centres(rows, target) + rng.standard_normal((n, 3, 2))
    best = posterior(law, x, rows).max(axis=1)
    assert synthetic._fresh(law, mask, n).mean() == pytest.approx(best.mean(), abs=0.006)


def test_the_default_signal_leaves_room_above_one_modality(tmp_path):
    truth = read(write(tmp_path / "c"))[-1]
    assert 0.83 < truth["bayes_accuracy"] < 0.9
    assert 0.87 < truth["combinations"]["m1+m2+m3+m4"]["bayes_accuracy"] < 0.92
    assert all(0.6 < truth["combinations"][name]["bayes_accuracy"] < 0.7 for name in ("m1", "m2", "m3", "m4"))


def test_without_shift_a_modality_means_the_same_everywhere():
    law = Law(4, 3, 8, shift=0.0, signal=1.0, seed=0)
    assert not law.shifts(ALL).any()
    for y in range(3):
        np.testing.assert_array_equal(law.centres(ALL, np.full(15, y)), np.tile(law.means[:, y], (15, 1, 1)))


def test_with_full_shift_every_modality_is_shifted_and_not_everywhere_alike():
    shifts = Law(4, 3, 8, shift=1.0, signal=1.0, seed=0).shifts(ALL)
    assert (shifts[ALL] > 0).all()
    assert not shifts[~ALL].any()
    assert all(set(shifts[ALL[:, i], i]) == {1, 2} for i in range(4))


def test_a_shift_belongs_to_the_combination_and_not_to_who_drew_it():
    law = Law(4, 3, 8, shift=0.5, signal=1.0, seed=0)
    alone = np.concatenate([law.shifts(mask[None]) for mask in ALL])
    np.testing.assert_array_equal(alone, law.shifts(ALL))
    np.testing.assert_array_equal(law.shifts(ALL[::-1])[::-1], alone)
    counts = Law(1, 4, 4, shift=0.5, signal=1.0, seed=0)
    drawn = [int(replace(counts, seed=seed).shifts(np.array([[True]]))[0, 0]) for seed in range(2000)]
    assert np.bincount(drawn) / 2000 == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.04)


def test_ignoring_the_combination_costs_under_shift_and_nothing_without(tmp_path):
    lost = {}
    for shift in (0.0, 1.0):
        cohort, x, law, best, _ = read(write(tmp_path / str(shift), samples=6000, shift=shift, seed=5))
        flat, half = np.nan_to_num(x).reshape(len(x), -1), len(x) // 2
        fitted = LogisticRegression(max_iter=500).fit(flat[:half], cohort.target[:half])
        right = (best.argmax(axis=1) == cohort.target)[half:].mean()
        lost[shift] = right - fitted.score(flat[half:], cohort.target[half:])
        blind = posterior(replace(law, shift=0.0), x, cohort.available).argmax(axis=1)
        assert (np.mean(blind == cohort.target) < right - 0.2) == (shift == 1.0)
    assert abs(lost[0.0]) < 0.02
    assert lost[1.0] > 0.1


def test_a_shift_makes_no_combination_harder():
    accuracy = [
        [synthetic._fresh(Law(4, 3, 8, shift, 1.1, 0), mask, 20_000).mean() for mask in ALL] for shift in (0.0, 1.0)
    ]
    np.testing.assert_allclose(accuracy[0], accuracy[1], atol=0.006)


def test_the_class_says_nothing_of_the_combination(tmp_path):
    cohort = load(write(tmp_path / "c", samples=20_000))
    for place in range(4):
        there = cohort.available[:, place]
        shares = [there[cohort.target == y].mean() for y in range(3)]
        assert shares == pytest.approx([there.mean()] * 3, abs=0.025)
    assert np.bincount(cohort.target) / len(cohort) == pytest.approx([1 / 3] * 3, abs=0.015)


def test_available_is_the_law_given_that_something_is_there(tmp_path):
    p = [0.3, 0.2, 0.1]
    cohort = load(write(tmp_path / "c", samples=20_000, modalities=3, available=p))
    assert cohort.available.any(axis=1).all()
    something = 1 - math.prod(1 - q for q in p)
    for mask in product([False, True], repeat=3):
        if any(mask):
            share = math.prod(q if there else 1 - q for q, there in zip(p, mask, strict=True)) / something
            found = (cohort.available == mask).all(axis=1).mean()
            assert found == pytest.approx(share, abs=4 * math.sqrt(share / 20_000))


def test_shares_are_exact_to_rounding(tmp_path):
    shares = {"m1+m2": 0.61, "m3": 0.29, "m1+m2+m3": 0.0999, "m2": 0.0001}
    cohort = load(write(tmp_path / "c", samples=1003, modalities=3, shares=shares))
    found = [0, 0, 0, 0]
    for mask in cohort.available:
        found[list(shares).index("+".join(np.array(cohort.modalities)[mask]))] += 1
    assert found == [612, 291, 100, 0]  # quotas 611.83, 290.87, 100.2, 0.1
    assert len(set(map(tuple, cohort.available[:20]))) > 1  # rows are not sorted by combination


def test_default_availability_has_a_long_tail(tmp_path):
    groups = load(write(tmp_path / "c")).groups
    assert len(groups) == 15
    assert 2 <= (~groups.tail).sum() <= 3
    assert 0.2 < groups.shares[groups.tail].sum() < 0.6


def test_one_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    first, again, other = (hashes(write(tmp_path / n, samples=300, seed=s)) for n, s in (("a", 7), ("b", 7), ("c", 8)))
    assert set(first) == {"cohort.yaml", "samples.parquet", "truth.parquet", "truth.json"}
    assert first == again
    assert not set(first.values()) & set(other.values())


def test_seventy_modalities(tmp_path):
    cohort, x, law, truth, _ = read(write(tmp_path / "c", samples=300, modalities=70))
    assert cohort.available.shape == (300, 70)
    everything = np.ones((1, 70), dtype=bool)
    but_last = everything.copy()
    but_last[0, 69] = False
    assert (law.shifts(everything)[:, :69] != law.shifts(but_last)[:, :69]).any()
    np.testing.assert_allclose(truth[:20], slow_posterior(law, x[:20], cohort.available[:20]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "settings", [{"samples": 1}, {"modalities": 1}, {"features": 1}, {"signal": 0.0}, {"shift": 1.0}]
)
def test_the_smallest_settings_work(tmp_path, settings):
    assert len(load(write(tmp_path / "c", **{"samples": 20, **settings})))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"samples": 0}, "synthetic: samples is 0; it must be at least 1."),
        ({"modalities": 0}, "synthetic: modalities is 0; it must be at least 1."),
        ({"classes": 1}, "synthetic: classes is 1; it must be at least 2."),
        ({"features": 0}, "synthetic: features is 0; it must be at least 1."),
        ({"signal": math.nan}, "synthetic: signal is nan; it must be at least 0."),
        ({"seed": -1}, "synthetic: seed is -1; it must be at least 0."),
        ({"shift": 1.5}, "synthetic: shift is 1.5; it must be at least 0 and at most 1."),
        ({"available": [0.5] * 3}, "synthetic: 'available' has 3 numbers for 4 modalities; give one each."),
        (
            {"available": [0.5, 0.5, 1.0, 0.0]},
            "synthetic: 'available' holds a number that is not above 0 and at most 1",
        ),
        ({"shares": {"m1": 1.0, "m2": math.nan}}, "synthetic: 'shares' holds a number that is not above 0 and at most"),
        (
            {"shares": {"m1": 0.5, "m2+m9": 0.5}},
            "synthetic: 'shares' names an unknown modality 'm9'. Known: m1, m2, m3, m4.",
        ),
        ({"shares": {"m1+m2": 0.5, "m2+m1": 0.5}}, "synthetic: 'shares' names a combination twice; name each once."),
        ({"shares": {"m1": 0.5, "m2": 0.4}}, "synthetic: 'shares' sum to 0.9; they must sum to 1."),
        ({"shares": {}}, "synthetic: 'shares' sum to 0; they must sum to 1."),
        ({"shares": {"m1": 1.0}, "available": [1.0] * 4}, "synthetic: give 'available' or 'shares', not both;"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(tmp_path, settings, sentence):
    with pytest.raises(RemindError) as caught:
        write(tmp_path / "c", **settings)
    assert str(caught.value).startswith(sentence)
    assert not (tmp_path / "c").exists()
