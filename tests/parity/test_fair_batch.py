"""FairBatch's shares against the rule of its paper, written out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losing import Table, batch_of, loss_is_the_logit

from remind.objectives.fair_batch import FairBatch

few = settings(deadline=None, max_examples=60)


def train(objective, epoch):
    """One epoch of batches ``(losses, groups, targets)``."""
    for losses, group, target in epoch:
        batch = batch_of(group, target)
        objective.after_step(batch, objective(Table(np.reshape(losses, (-1, 1))), batch))
    objective.after_epoch()


def by_hand(start, weights, risk, sizes, alpha, floor, min_count):
    """The worst of the groups that can be compared gains alpha, the others lose in proportion; clip, renormalise."""
    compared = [k for k in range(len(sizes)) if sizes[k] >= min_count and not np.isnan(risk[k])]
    if not compared or max(risk[k] for k in compared) == min(risk[k] for k in compared):
        return list(weights)
    worst = max(compared, key=lambda k: risk[k])
    held = sum(weights[k] for k in compared)
    moved = list(weights)
    for k in compared:
        if k == worst:
            moved[k] += alpha
        elif weights[k] > 0:
            moved[k] -= alpha * weights[k] / (held - weights[worst])
        moved[k] = min(max(moved[k], floor * start[k]), 1.0)
    now = sum(moved[k] for k in compared)
    for k in compared:
        moved[k] *= held / now
    return moved


def epoch_of(random, groups, classes, batches=3, size=6):
    return [
        (random.random(size), random.integers(groups, size=size), random.integers(classes, size=size))
        for _ in range(batches)
    ]


def means(epoch, groups, of_class=None):
    """Mean loss of each group in an epoch, one sample at a time; NaN where there was none."""
    found = [[] for _ in range(groups)]
    for losses, group, target in epoch:
        for value, k, y in zip(losses, group, target, strict=True):
            if of_class is None or y == of_class:
                found[k].append(value)
    return [np.mean(values) if values else np.nan for values in found]


SETTINGS = {
    "seed": st.integers(0, 2**31),
    "groups": st.integers(1, 8),
    "alpha": st.floats(0, 0.9),
    "floor": st.just(0.0) | st.floats(0.01, 0.9),
}


@few
@given(**SETTINGS)
def test_shares_of_groups_move_as_by_hand(seed, groups, alpha, floor):
    random = np.random.default_rng(seed)
    counts = random.integers(1, 9, size=(groups, 3))
    sizes = counts.sum(1)
    objective = FairBatch(torch.tensor(counts), loss_is_the_logit, alpha=alpha, floor=floor, min_count=10)
    weights = start = sizes / sizes.sum()
    for _ in range(4):
        epoch = epoch_of(random, groups, 3)
        train(objective, epoch)
        weights = by_hand(start, weights, means(epoch, groups), sizes, alpha, floor, 10)
        np.testing.assert_allclose(objective.group_weights(), weights, rtol=1e-9, atol=1e-12)
        expected = [[weights[k] * counts[k][y] / sizes[k] for y in range(3)] for k in range(groups)]
        np.testing.assert_allclose(objective.batch_shares(), expected, rtol=1e-9, atol=1e-12)


@few
@given(**SETTINGS)
def test_equalised_odds_moves_only_the_class_that_is_furthest_apart(seed, groups, alpha, floor):
    random = np.random.default_rng(seed)
    counts = random.integers(0, 9, size=(groups, 2))
    counts[0] += 1
    objective = FairBatch(
        torch.tensor(counts), loss_is_the_logit, alpha=alpha, floor=floor, min_count=4, mode="class_group"
    )
    weights = start = [counts[:, y] / counts[:, y].sum() for y in range(2)]
    for _ in range(4):
        epoch = epoch_of(random, groups, 2)
        train(objective, epoch)
        risk = [np.array(means(epoch, groups, of_class=y)) for y in range(2)]
        gaps = []
        for y in range(2):
            known = risk[y][~np.isnan(risk[y]) & (counts[:, y] >= 4)]
            gaps.append(known.max() - known.min() if len(known) else -1)
        y = int(np.argmax(gaps))
        weights = list(weights)
        weights[y] = by_hand(start[y], weights[y], risk[y], counts[:, y], alpha, floor, 4)
        expected = [[counts[:, y].sum() / counts.sum() * weights[y][k] for y in range(2)] for k in range(groups)]
        np.testing.assert_allclose(objective.batch_shares(), expected, rtol=1e-9, atol=1e-12)


def test_at_first_batches_are_as_the_training_samples():
    counts = torch.tensor([[30, 10], [0, 2], [5, 3]])
    for mode in ("group", "class_group"):
        torch.testing.assert_close(FairBatch(counts, loss_is_the_logit, mode=mode).batch_shares(), counts.double() / 50)


def test_two_groups_move_by_alpha_as_in_the_paper():
    objective = FairBatch(torch.tensor([[60], [40]]), loss_is_the_logit, alpha=0.05)
    train(objective, [([0.2, 0.9], [0, 1], [0, 0])])
    assert objective.group_weights().tolist() == pytest.approx([0.55, 0.45])
    train(objective, [([0.9, 0.2], [0, 1], [0, 0])])
    assert objective.group_weights().tolist() == pytest.approx([0.60, 0.40])


def test_small_and_unseen_groups_keep_their_shares_however_they_fare():
    objective = FairBatch(torch.tensor([[50], [30], [15], [5]]), loss_is_the_logit, alpha=0.1)
    train(objective, [([0.2, 0.4, 9.0], [0, 1, 3], [0, 0, 0])])
    assert objective.group_weights().tolist() == pytest.approx([0.40, 0.40, 0.15, 0.05])


def test_an_epoch_is_forgotten_when_it_is_over_and_equal_losses_move_nothing():
    objective = FairBatch(torch.tensor([[50], [50]]), loss_is_the_logit, alpha=0.1)
    train(objective, [([0.2, 5.0], [0, 1], [0, 0])])
    train(objective, [([0.3, 0.3], [0, 1], [0, 0])])
    assert objective.group_weights().tolist() == pytest.approx([0.4, 0.6])
    train(objective, [([0.4, 0.3], [0, 1], [0, 0])])
    assert objective.group_weights().tolist() == pytest.approx([0.5, 0.5])


def test_the_loss_of_a_batch_is_its_plain_mean_and_shares_move_between_epochs_only():
    objective = FairBatch(torch.tensor([[50], [50]]), loss_is_the_logit)
    batch = batch_of([0, 1, 1])
    loss = objective(Table([[0.1], [0.2], [0.6]]), batch)
    assert loss.total.item() == pytest.approx(0.3)
    objective.after_step(batch, loss)
    assert objective.group_weights().tolist() == [0.5, 0.5]
    objective.after_epoch()
    assert objective.group_weights().tolist() == pytest.approx([0.45, 0.55])
