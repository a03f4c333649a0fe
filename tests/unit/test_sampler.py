"""Batches: every sample once an epoch, alike in size, the same again after a restart."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remind.cohort.sampler import BucketSampler

few = settings(deadline=None, max_examples=30)
SIZES = {
    "samples": st.integers(1, 60),
    "batch_size": st.integers(1, 20),
    "pool": st.integers(1, 5),
    "seed": st.integers(0, 2**31 - 1),
}


def sampler_of(samples, batch_size, pool, seed):
    size = torch.randint(1, 9, (samples,), generator=torch.Generator().manual_seed(samples))
    return BucketSampler(size, batch_size=batch_size, seed=seed, pool=pool)


def take(sampler, batches):
    """This many batches, as a training loop draws them, across epochs."""
    taken = []
    while len(taken) < batches:
        for batch in sampler:
            taken.append(batch)
            sampler.advance()
            if len(taken) == batches:
                break
    return taken


@few
@given(**SIZES)
def test_every_epoch_shows_each_sample_once(samples, batch_size, pool, seed):
    sampler = sampler_of(samples, batch_size, pool, seed)
    for epoch in range(3):
        batches = sampler.order(epoch)
        assert sorted(row for batch in batches for row in batch) == list(range(samples))
        assert len(batches) == len(sampler)
        assert sum(len(batch) < batch_size for batch in batches) == (samples % batch_size > 0)
        assert max(len(batch) for batch in batches) <= batch_size


@few
@given(**SIZES)
def test_the_epochs_follow_one_another(samples, batch_size, pool, seed):
    sampler = sampler_of(samples, batch_size, pool, seed)
    expected = [batch for epoch in range(3) for batch in sampler.order(epoch)]
    assert take(sampler, len(expected)) == expected
    assert sampler.state_dict() == {"epoch": 3, "done": 0}


@few
@given(**SIZES, stop=st.integers(0, 40), ahead=st.integers(0, 3))
def test_it_resumes_anywhere_with_the_same_batches(samples, batch_size, pool, seed, stop, ahead):
    """Whatever a loader fetched ahead and never used comes again."""
    whole, first, second = (sampler_of(samples, batch_size, pool, seed) for _ in range(3))
    expected = take(whole, stop + 12)
    assert take(first, stop) == expected[:stop]
    for _, _ in zip(range(ahead), first, strict=False):
        pass
    second.load_state_dict(first.state_dict())
    assert take(second, 12) == expected[stop:]


@pytest.mark.parametrize("pool", [1, 4])
def test_epochs_and_seeds_give_different_orders(pool):
    one, other = sampler_of(50, 5, pool, seed=1), sampler_of(50, 5, pool, seed=2)
    assert one.order(0) != one.order(1)
    assert one.order(0) != other.order(0)
    assert one.order(1) != other.order(0)


def padding(sampler):
    """Share of a padded batch that is padding, over an epoch."""
    wasted = held = 0
    for batch in sampler.order(0):
        size = sampler.size[batch]
        wasted += int((size.max() - size).sum())
        held += int(size.max()) * len(batch)
    return wasted / held


def test_pools_reduce_padding():
    generator = torch.Generator().manual_seed(0)
    size = torch.randint(1, 800, (2000,), generator=generator)
    plain, some, many = (padding(BucketSampler(size, batch_size=32, seed=0, pool=pool)) for pool in (1, 4, 16))
    assert plain > 0.4
    assert some < 0.6 * plain
    assert many < 0.5 * some


@pytest.mark.parametrize("pool", [1, 3])
@pytest.mark.parametrize("samples", [24, 26])
def test_every_sample_is_equally_likely_in_every_batch_of_an_epoch(samples, pool):
    """4000 epochs; a count off by five standard deviations would be a wonder."""
    sampler = sampler_of(samples, 4, pool, seed=3)
    epochs = 4000
    seen = torch.zeros(len(sampler), samples)
    for epoch in range(epochs):
        for place, batch in enumerate(sampler.order(epoch)):
            seen[place, batch] += 1
    share = seen.sum(1, keepdim=True) / epochs / samples  # how many samples the batch has, of all
    deviation = (seen - epochs * share) / (epochs * share * (1 - share)).sqrt()
    assert deviation.abs().max() < 5


@pytest.mark.parametrize("pool", [1, 20])
def test_long_samples_weigh_no_more_than_short_ones(pool):
    """A sample of a short batch counts for more in its mean; that batch must not always hold the longest."""
    size = torch.randint(1, 1000, (260,), generator=torch.Generator().manual_seed(0))
    sampler = BucketSampler(size, batch_size=16, seed=0, pool=pool)
    weight = torch.zeros(260)
    for epoch in range(500):
        for batch in sampler.order(epoch):
            weight[batch] += 1 / len(batch)
    ordered = weight[size.argsort()]
    assert ordered[-20:].mean().item() == pytest.approx(ordered[:20].mean().item(), rel=0.15)
