"""Shapley values against all orders written out, and the axioms that define them."""

from itertools import permutations

import numpy as np
import pytest

from remind.evaluation.intervals import of_mean
from remind.evaluation.shapley import exact, game, sampled


def by_all_orders(players, worth):
    """Who comes adds what the set is worth with them above without; the mean over every order."""
    values = np.zeros(players)
    orders = list(permutations(range(players)))
    for order in orders:
        there = frozenset()
        for player in order:
            values[player] += worth[there | {player}] - worth[there]
            there = there | {player}
    return values / len(orders)


def of_sets(sets, worth):
    return np.array([worth[frozenset(np.flatnonzero(one).tolist())] for one in sets])


def random_worth(players, seed):
    rng = np.random.default_rng(seed)
    return {frozenset(np.flatnonzero(one).tolist()): rng.normal() for one in exact(players).sets}


@pytest.mark.parametrize("players", [1, 2, 3, 4, 5, 6])
def test_exact_values_are_the_mean_over_all_orders(players):
    worth, played = random_worth(players, players), exact(players)
    assert of_sets(played.sets, worth) @ played.weights == pytest.approx(by_all_orders(players, worth))


@pytest.mark.parametrize("players", [1, 4, 10, 11, 16, 40])
def test_values_add_up_to_what_all_are_worth_above_nobody(players):
    played = game(players)
    assert not played.sets[0].any()
    assert len(np.unique(played.sets, axis=0)) == len(played.sets)
    worth = np.random.default_rng(players).normal(size=len(played.sets))
    everyone = int(np.flatnonzero(played.sets.all(axis=1))[0])
    assert (worth @ played.weights).sum() == pytest.approx(worth[everyone] - worth[0])


@pytest.mark.parametrize("players", [3, 12])
def test_who_adds_nothing_is_worth_nothing_and_twins_the_same(players):
    played = game(players)
    worth = np.sqrt(played.sets[:, :2].sum(axis=1) + 2.0 * played.sets[:, 3:].sum(axis=1))  # the third adds nothing
    values = worth @ played.weights
    assert values[2] == pytest.approx(0)
    if players == 3:
        assert values[0] == pytest.approx(values[1])


@pytest.mark.parametrize("players", [4, 13])
def test_in_a_game_that_adds_up_everyone_is_worth_what_they_bring(players):
    own, played = np.arange(players) - 1.5, game(players)
    assert (played.sets @ own) @ played.weights == pytest.approx(own)


def test_drawn_orders_come_near_the_exact_values():
    worth, whole = random_worth(6, 0), exact(6)
    expected = of_sets(whole.sets, worth) @ whole.weights
    drawn = [sampled(6, 64, seed) for seed in range(100)]
    found = np.array([of_sets(one.sets, worth) @ one.weights for one in drawn])
    assert found.mean(axis=0) == pytest.approx(expected, abs=0.03)
    assert np.abs(found - expected).max() < 0.5


def test_an_interval_of_means_holds_the_truth():
    rng, inside = np.random.default_rng(1), []
    for _ in range(1000):
        subjects = np.repeat(np.arange(40), rng.integers(1, 4, 40))
        values = rng.normal(0.3, 1, (40, 1))[subjects] + rng.normal(0, 1, (len(subjects), 1))
        _, low, high = of_mean(values, subjects, np.ones(len(subjects)))
        inside.append(low[0] <= 0.3 <= high[0])
    assert 0.92 <= np.mean(inside) <= 0.98


def test_weights_of_means_are_how_many_a_sample_stands_for():
    values, weight = np.array([[1.0], [2.0], [6.0]]), np.array([2.0, 1.0, 1.0])
    assert of_mean(values, np.arange(3), weight)[0] == pytest.approx([2.5])
