"""Reweigh and LogitAdjust against loops over samples, groups and classes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losing import Table, batch_of, loss_is_the_logit
from torch.nn import functional as F

from remind.errors import RemindError
from remind.objectives import OBJECTIVES
from remind.objectives.erm import ERM
from remind.objectives.logit_adjust import LogitAdjust
from remind.objectives.reweigh import Reweigh

few = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**31)


def cross_entropy(logits, target):
    return F.cross_entropy(logits, target, reduction="none")


def sizes_of(seed):
    random = np.random.default_rng(seed)
    return random, np.ceil(10 ** random.uniform(0, 4, size=random.integers(1, 12))).astype(int)


def weights_by_hand(sizes, tau, beta, cap):
    raw = [n**-tau if beta is None else (1 - beta) / (1 - beta ** int(n)) for n in sizes.astype(float)]
    raw = [min(w, cap * min(raw)) for w in raw]
    scale = sum(sizes) / sum(n * w for n, w in zip(sizes, raw, strict=True))
    return [w * scale for w in raw]


@few
@given(
    seed=seeds,
    tau=st.floats(0, 2),
    beta=st.none() | st.sampled_from([0.0, 0.5, 0.999, 0.9999]),
    cap=st.floats(1, 500),
)
def test_reweighed_losses_are_those_of_the_loops(seed, tau, beta, cap):
    random, sizes = sizes_of(seed)
    weights = weights_by_hand(sizes, tau, beta, cap)
    objective = Reweigh(torch.tensor(sizes)[:, None], loss_is_the_logit, tau=tau, beta=beta, cap=cap)
    np.testing.assert_allclose(objective.weights, weights, rtol=1e-9)
    np.testing.assert_allclose(objective.group_weights(), weights * sizes / sizes.sum(), rtol=1e-9)
    group, losses = random.integers(len(sizes), size=7), random.random(7)
    model = Table(losses[:, None])
    loss = objective(model, batch_of(group))
    by_hand = sum(weights[k] * value for k, value in zip(group, losses, strict=True)) / 7
    assert loss.total.item() == pytest.approx(by_hand, rel=1e-9)
    loss.total.backward()
    np.testing.assert_allclose(model.table.grad[:, 0], [weights[k] / 7 for k in group], rtol=1e-9)


def test_with_tau_one_every_group_has_the_same_say_but_for_the_cap():
    sizes = torch.tensor([[60, 20], [15, 5]])
    assert Reweigh(sizes, loss_is_the_logit).weights.tolist() == pytest.approx([100 / (2 * 80), 100 / (2 * 20)])
    assert Reweigh(sizes, loss_is_the_logit).group_weights().tolist() == pytest.approx([0.5, 0.5])
    rare = Reweigh(torch.tensor([[1000], [1]]), loss_is_the_logit)
    assert (rare.weights[1] / rare.weights[0]).item() == pytest.approx(50)
    assert Reweigh(sizes, loss_is_the_logit, tau=0.0).weights.tolist() == pytest.approx([1, 1])


def shares_by_hand(counts, m):
    groups, classes = counts.shape
    everybody = [sum(counts[k][y] for k in range(groups)) / counts.sum() for y in range(classes)]
    return [[(counts[k][y] + m * everybody[y]) / (sum(counts[k]) + m) for y in range(classes)] for k in range(groups)]


@few
@given(seed=seeds, tau=st.floats(0, 2), m=st.none() | st.floats(0.1, 100))
def test_adjusted_losses_are_those_of_the_loops(seed, tau, m):
    random = np.random.default_rng(seed)
    groups, classes = random.integers(1, 6), random.integers(2, 5)
    counts = random.integers(0, 40, size=(groups, classes)) + 1
    share = shares_by_hand(counts, 10 * classes if m is None else m)
    objective = LogitAdjust(torch.tensor(counts), cross_entropy, tau=tau, prior_weight=m)
    group, target = random.integers(groups, size=6), random.integers(classes, size=6)
    logits = random.normal(size=(6, classes))
    by_hand = []
    for i in range(6):
        adjusted = [logits[i][y] + tau * math.log(share[group[i]][y]) for y in range(classes)]
        by_hand.append(math.log(sum(map(math.exp, adjusted))) - adjusted[target[i]])
    loss = objective(Table(logits), batch_of(group, target))
    assert loss.total.item() == pytest.approx(np.mean(by_hand), rel=1e-9)
    assert torch.equal(loss.output.logits, torch.tensor(logits))  # predictions are not adjusted
    plain = F.cross_entropy(torch.tensor(logits), torch.tensor(target), reduction="none")
    torch.testing.assert_close(loss.per_sample, plain)


def test_with_one_group_it_is_menons_cross_entropy_of_logits_plus_log_prior():
    counts, logits, target = torch.tensor([[70, 25, 5]]), torch.randn(8, 3).double(), torch.arange(8) % 3
    prior = torch.tensor([0.7, 0.25, 0.05]).double()
    loss = LogitAdjust(counts, cross_entropy)(Table(logits), batch_of([0] * 8, target))
    torch.testing.assert_close(loss.total, F.cross_entropy(logits + prior.log(), target))


def test_it_balances_the_classes_of_every_group():
    """Where inputs say nothing, equal plain logits minimise it in each group: no class is preferred."""
    counts = torch.tensor([[30, 10], [5, 45]])
    group = torch.tensor([0] * 40 + [1] * 50)
    target = torch.tensor([0] * 30 + [1] * 10 + [0] * 5 + [1] * 45)
    objective = LogitAdjust(counts, cross_entropy, prior_weight=0.0)
    model = Table(torch.zeros(90, 2))
    objective(model, batch_of(group, target)).total.backward()
    of_group = torch.zeros(2, 2, dtype=torch.float64).index_add(0, group, model.table.grad)
    torch.testing.assert_close(of_group, torch.zeros(2, 2, dtype=torch.float64), rtol=0, atol=1e-15)


def test_a_class_without_training_samples_leaves_the_loss_finite():
    objective = LogitAdjust(torch.tensor([[3, 0, 1], [9, 0, 0]]), cross_entropy, prior_weight=0.0)
    model = Table(torch.zeros(3, 3))
    loss = objective(model, batch_of([0, 1, 1], [0, 1, 2]))
    loss.total.backward()
    assert loss.total.isfinite()
    assert model.table.grad.isfinite().all()


@pytest.mark.parametrize("objective", [Reweigh, LogitAdjust])
def test_with_tau_zero_they_are_erm(objective):
    counts, logits = torch.tensor([[9, 1], [2, 2]]), torch.randn(5, 2)
    batch = batch_of([0, 1, 0, 0, 1], [1, 0, 0, 1, 0])
    ours, plain = Table(logits), Table(logits)
    objective(counts, cross_entropy, tau=0.0)(ours, batch).total.backward()
    ERM(counts, cross_entropy)(plain, batch).total.backward()
    torch.testing.assert_close(ours.table.grad, plain.table.grad)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("reweigh", {"beta": 1.0}), ("reweigh", {"cap": 0.5}), ("logit_adjust", {"prior_weight": -1})],
)
def test_settings_out_of_range_are_refused_by_name(name, wrong):
    with pytest.raises(RemindError, match=next(iter(wrong))):
        OBJECTIVES.build(name, torch.tensor([[1]]), cross_entropy, **wrong)
