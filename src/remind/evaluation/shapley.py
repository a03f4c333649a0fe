"""Shapley values: what each of some players adds, in the mean over all orders in which they could come.

Letters: ``k`` players, ``u`` sets of them.
"""

from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

EXACT = 10  # players up to which every set is looked at
ORDERS = 64  # that are drawn beyond, each also backwards


class Game(NamedTuple):
    """The sets whose worth must be known, the empty one first, and what each counts for each player.

    Shapley values are ``worth @ weights``, for ``worth [n, u]`` of as many games as you like.
    """

    sets: Bool[np.ndarray, "u k"]
    weights: Float[np.ndarray, "u k"]


def game(players: int, *, seed: int = 0) -> Game:
    """All sets of up to ten players; of more, those that random orders run through."""
    return exact(players) if players <= EXACT else sampled(players, ORDERS, seed)


def exact(players: int) -> Game:
    """Every set (Shapley 1953): one of ``s`` others counts ``1 / (k binom(k - 1, s))`` for who joins it."""
    sets = (np.arange(2**players)[:, None] >> np.arange(players) & 1).astype(bool)
    size = sets.sum(axis=1, keepdims=True)
    joined = np.array([1 / (players * comb(players - 1, s)) for s in range(players)])
    weights = np.where(sets, joined[(size - 1).clip(0)], -joined[size.clip(max=players - 1)])
    return Game(sets, weights)


def sampled(players: int, orders: int, seed: int) -> Game:
    """The sets along random orders and the same backwards (antithetic; Mitchell et al. 2022): unbiased, and exact in
    that the values add up to what all players together are worth.
    """
    rng = np.random.default_rng(seed)
    drawn = np.array([rng.permutation(players) for _ in range(orders)])
    drawn = np.concatenate([drawn, drawn[:, ::-1]])
    steps = np.zeros((len(drawn), players + 1, players), dtype=bool)
    steps[:, 1:] = (drawn[:, :, None] == np.arange(players)).cumsum(axis=1) > 0
    sets, which = np.unique(steps.reshape(-1, players), axis=0, return_inverse=True)
    which = which.reshape(len(drawn), players + 1)
    weights = np.zeros((len(sets), players))
    for place in range(players):
        np.add.at(weights, (which[:, place + 1], drawn[:, place]), 1 / len(drawn))
        np.add.at(weights, (which[:, place], drawn[:, place]), -1 / len(drawn))
    return Game(sets, weights)
