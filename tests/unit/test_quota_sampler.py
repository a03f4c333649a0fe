"""Batches with quotas: what is wanted of each cell, evenly, and members in turn."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remind.cohort.quota_sampler import QuotaSampler
from remind.cohort.sampler import BucketSampler

few = settings(deadline=None, max_examples=40)
SIZES = {
    "seed": st.integers(0, 2**31 - 1),
    "cells": st.integers(1, 40),
    "samples": st.integers(1, 300),
    "batch_size": st.integers(1, 70),
}


def case(seed, cells, samples, batch_size):
    """A sampler with random shares, some cells without members; and the cell of each sample, and the shares."""
    random = np.random.default_rng(seed)
    cell = torch.from_numpy(random.integers(cells, size=samples))
    shares = torch.from_numpy(random.dirichlet(np.full(cells, 0.3))) + 1e-4
    shares[cell.bincount(minlength=cells) == 0] = 0
    shares /= shares.sum()
    return QuotaSampler(cell, lambda: shares[:, None], batch_size=batch_size, seed=seed), cell, shares


def own(cell):
    """The samples' own shares."""
    return lambda: (cell.bincount().double() / len(cell))[None]


@few
@given(**SIZES)
def test_after_any_number_of_batches_every_cell_has_had_its_share(seed, cells, samples, batch_size):
    """Off by less than one draw, and by as much of it as others are off together: less than one each."""
    sampler, cell, shares = case(seed, cells, samples, batch_size)
    size = min(batch_size, samples)
    drawn = torch.zeros(cells)
    for t, batch in enumerate(sampler.order(0), start=1):
        drawn += cell[batch].bincount(minlength=cells)
        due = t * size * shares
        others = int((shares > 0).sum()) - 1
        assert ((drawn - due).abs() <= 1 + shares * others + 1e-9).all()


@few
@given(**SIZES)
def test_batches_are_full_and_as_many_as_every_methods(seed, cells, samples, batch_size):
    sampler, _, _ = case(seed, cells, samples, batch_size)
    plain = BucketSampler(torch.ones(samples, dtype=torch.int64), batch_size=batch_size, seed=seed)
    order = sampler.order(0)
    assert len(order) == len(sampler) == len(plain.order(0))
    assert {len(batch) for batch in order} == {min(batch_size, samples)}


@few
@given(**SIZES)
def test_all_members_of_a_cell_come_before_any_comes_again(seed, cells, samples, batch_size):
    sampler, cell, _ = case(seed, cells, samples, batch_size)
    members = cell.bincount(minlength=cells)
    times, drawn = Counter(), Counter()
    for row in (row for batch in sampler.order(1) for row in batch):
        k = int(cell[row])
        assert times[row] == drawn[k] // int(members[k])  # as often as there were whole rounds
        times[row] += 1
        drawn[k] += 1


@few
@given(seed=st.integers(0, 2**31 - 1), batches=st.integers(1, 9), batch_size=st.integers(1, 20))
def test_with_the_samples_own_shares_each_comes_once(seed, batches, batch_size):
    cell = torch.from_numpy(np.random.default_rng(seed).integers(7, size=batches * batch_size))
    order = QuotaSampler(cell, own(cell), batch_size=batch_size, seed=seed).order(3)
    assert sorted(row for batch in order for row in batch) == list(range(len(cell)))


def test_a_part_of_a_draw_is_a_chance_of_one_and_comes_at_any_time():
    """One sample of a hundred, wanted half as often as its share says, over 2000 epochs of ten batches."""
    cell = torch.tensor([0] * 99 + [1])
    sampler = QuotaSampler(cell, lambda: torch.tensor([[0.995, 0.005]]).double(), batch_size=10, seed=0)
    seen = torch.zeros(10)
    for epoch in range(2000):
        for place, batch in enumerate(sampler.order(epoch)):
            seen[place] += 99 in batch
    assert seen.sum().item() == pytest.approx(1000, abs=5 * 500**0.5)
    assert (seen - 100).abs().max() < 5 * 10


def test_the_shares_are_those_of_the_epochs_beginning():
    shares = torch.tensor([[0.5, 0.5]])
    cell = torch.tensor([0] * 20 + [1] * 20)
    sampler = QuotaSampler(cell, lambda: shares, batch_size=10, seed=0)
    assert [int(cell[batch].sum()) for batch in sampler.order(0)] == pytest.approx([5] * 4, abs=2)
    shares.copy_(torch.tensor([[1.0, 0.0]]))
    assert sum(int(cell[batch].sum()) for batch in sampler.order(1)) == 0


@few
@given(**SIZES, stop=st.integers(0, 20))
def test_it_resumes_anywhere_with_the_same_batches(seed, cells, samples, batch_size, stop):
    def batches(sampler, count):
        taken = []
        while len(taken) < count:
            for batch in sampler:
                taken.append(batch)
                sampler.advance()
                if len(taken) == count:
                    break
        return taken

    whole, first, second = (case(seed, cells, samples, batch_size)[0] for _ in range(3))
    expected = batches(whole, stop + 8)
    assert batches(first, stop) == expected[:stop]
    second.load_state_dict(first.state_dict())
    assert batches(second, 8) == expected[stop:]


def test_epochs_and_seeds_give_different_orders():
    cell = torch.arange(50) % 3
    one, other = (QuotaSampler(cell, own(cell), batch_size=5, seed=seed) for seed in (1, 2))
    assert one.order(0) != one.order(1)
    assert one.order(0) != other.order(0)
