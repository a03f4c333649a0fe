"""Group DRO against equations 2 to 4, written in numpy."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from remind.cohort.batch import Batch
from remind.errors import RemindError
from remind.objectives import OBJECTIVES
from remind.objectives.erm import ERM
from remind.objectives.group_dro import GroupDRO, climb
from remind.types import Output

few = settings(deadline=None, max_examples=30)


class Table(nn.Module):
    """A model that is a table of losses: row ``i`` of the cohort loses ``losses[i]``."""

    def __init__(self, losses):
        super().__init__()
        self.losses = nn.Parameter(torch.as_tensor(losses, dtype=torch.float64))

    def forward(self, batch):
        return Output(self.losses[batch.row][:, None], None)


def loss_is_the_logit(logits, target):
    return logits[:, 0]


def counts(*sizes):
    """Training samples of groups of one class."""
    return torch.tensor(sizes)[:, None]


def batch_of(group, rows=None):
    group = torch.as_tensor(group)
    rows = torch.arange(len(group)) if rows is None else torch.as_tensor(rows)
    return Batch({}, torch.ones(len(group), 1, dtype=torch.bool), group, torch.zeros_like(group), rows)


def step(objective, losses, group):
    """One training step on samples with these losses."""
    batch = batch_of(group)
    loss = objective(Table(losses), batch)
    objective.after_step(batch, loss)
    return loss


def eq_4(weights, risk, gamma):
    """``lambda_k exp(gamma R_k)``, normalised."""
    raised = np.array([w * np.exp(gamma * r) for w, r in zip(weights, risk, strict=True)])
    return raised / raised.sum()


@few
@given(seed=st.integers(0, 2**31), groups=st.integers(1, 20), gamma=st.floats(0, 10))
def test_the_weights_climb_as_eq_4_says(seed, groups, gamma):
    rng = np.random.default_rng(seed)
    weights, risk = rng.dirichlet(np.ones(groups)), 3 * rng.random(groups)
    made = climb(torch.from_numpy(weights), torch.from_numpy(risk), gamma)
    np.testing.assert_allclose(made, eq_4(weights, risk, gamma), rtol=1e-12, atol=1e-12)


def test_equal_losses_move_no_weight_however_seldom_a_group_is_seen():
    """The official code takes an absent group's risk for 0, and a rare group's weight decays for being rare."""
    rng = np.random.default_rng(0)
    objective = GroupDRO(counts(900, 90, 9, 1), loss_is_the_logit, step_size=0.5, refresh_every=3)
    before = objective.weights.clone()
    for _ in range(200):
        group = rng.choice(4, size=16, p=[0.9, 0.09, 0.009, 0.001]).tolist()
        step(objective, [0.6] * 16, group)
    torch.testing.assert_close(objective.weights, before, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("losses", [[1e6, 0.0, 1.0], [1e6, 1e6, 1e6], [1e6, -1e6, 0.0]])
def test_huge_losses_leave_the_weights_finite_and_on_the_simplex(losses):
    objective = GroupDRO(counts(5, 3, 2), loss_is_the_logit, step_size=10.0, refresh_every=1)
    for _ in range(3):
        loss = step(objective, losses, [0, 1, 2])
        assert loss.total.isfinite()
        weights = objective.group_weights()
        assert weights.isfinite().all()
        assert weights.min() >= 0
        assert weights.sum().item() == pytest.approx(1, abs=1e-12)


def test_a_refresh_sees_every_loss_since_the_last_one():
    """Three steps to a refresh; group 2 is not seen before the first; the second starts from nothing."""
    objective = GroupDRO(counts(6, 3, 1), loss_is_the_logit, step_size=0.3, refresh_every=3, start="uniform", cap=100.0)
    steps = [([1.0, 2.0], [0, 1]), ([4.0, 6.0], [0, 0]), ([5.0], [1])]
    for taken, (losses, group) in enumerate(steps, start=1):
        assert objective.weights.tolist() == pytest.approx([1 / 3] * 3), f"the weights moved before step {taken}"
        step(objective, losses, group)
    risk = [(1 + 4 + 6) / 3, (2 + 5) / 2]
    first = eq_4([1 / 3] * 3, [*risk, np.mean(risk)], 0.3)
    assert objective.weights.tolist() == pytest.approx(first.tolist(), rel=1e-12)
    for losses, group in [([7.0], [2]), ([3.0], [0]), ([9.0], [2])]:
        step(objective, losses, group)
    assert objective.weights.tolist() == pytest.approx(
        eq_4(first, [3.0, risk[1], (7 + 9) / 2], 0.3).tolist(), rel=1e-12
    )


@few
@given(seed=st.integers(0, 2**31), size=st.integers(1, 6))
def test_importance_averages_to_the_weighted_risk_over_all_batches(seed, size):
    """Eq. 2 without bias: every batch of ``size`` out of seven samples, each once."""
    rng = np.random.default_rng(seed)
    group, losses = np.array([0, 0, 0, 0, 1, 1, 2]), rng.random(7)
    weights = rng.dirichlet(np.ones(3))
    objective = GroupDRO(counts(4, 2, 1), loss_is_the_logit, estimate="importance", cap=1e9)
    objective.weights.copy_(torch.from_numpy(weights))
    model = Table(losses)
    totals = [
        objective(model, batch_of(group[list(rows)], list(rows))).total.item() for rows in combinations(range(7), size)
    ]
    risk = [losses[group == k].mean() for k in range(3)]
    assert np.mean(totals) == pytest.approx(weights @ risk, rel=1e-12)


@few
@given(seed=st.integers(0, 2**31), size=st.integers(1, 9))
def test_group_means_are_eq_3_to_the_letter(seed, size):
    rng = np.random.default_rng(seed)
    group, losses, weights = rng.integers(4, size=size), rng.random(size), rng.dirichlet(np.ones(4))
    objective = GroupDRO(counts(40, 30, 20, 10), loss_is_the_logit, estimate="group_means")
    objective.weights.copy_(torch.from_numpy(weights))
    expected = 0.0
    for k in range(4):
        of_group = [losses[i] for i in range(size) if group[i] == k]
        if of_group:
            expected += weights[k] * sum(of_group) / len(of_group)
    assert objective(Table(losses), batch_of(group)).total.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("cap", [0.5, 2.0, 1e9])
def test_no_sample_counts_more_than_the_cap(cap):
    objective = GroupDRO(counts(90, 9, 1), loss_is_the_logit, estimate="importance", cap=cap)
    objective.weights.copy_(torch.tensor([0.5, 0.2, 0.3]))
    model = Table([1.0, 1.0, 1.0])
    objective(model, batch_of([0, 1, 2])).total.backward()
    ratio = [min(w / share, cap) for w, share in zip([0.5, 0.2, 0.3], [0.9, 0.09, 0.01], strict=True)]
    assert (3 * model.losses.grad).tolist() == pytest.approx(ratio, rel=1e-6)


@few
@given(
    seed=st.integers(0, 2**31),
    estimate=st.sampled_from(["importance", "group_means"]),
    start=st.sampled_from(["shares", "uniform"]),
)
def test_one_group_is_erm(seed, estimate, start):
    losses = np.random.default_rng(seed).random(6).tolist()
    criterion = loss_is_the_logit
    dro, erm = GroupDRO(counts(6), criterion, estimate=estimate, start=start, refresh_every=1), None
    erm = ERM(counts(6), criterion)
    for _ in range(3):
        ours, plain = Table(losses), Table(losses)
        batch = batch_of([0] * 6)
        loss = dro(ours, batch)
        dro.after_step(batch, loss)
        expected = erm(plain, batch)
        loss.total.backward(), expected.total.backward()
        assert loss.total.item() == pytest.approx(expected.total.item(), abs=1e-7)
        torch.testing.assert_close(ours.losses.grad, plain.losses.grad, rtol=0, atol=1e-7)


def test_with_shares_as_start_the_first_step_is_erm():
    losses, group = [0.3, 0.9, 0.4, 0.7], [0, 1, 0, 2]
    dro = GroupDRO(counts(70, 20, 10), loss_is_the_logit, estimate="importance", start="shares")
    assert dro(Table(losses), batch_of(group)).total.item() == pytest.approx(np.mean(losses), rel=1e-12)


@few
@given(seed=st.integers(0, 2**31), groups=st.integers(1, 8), loss=st.floats(0, 50), gamma=st.floats(0, 5))
def test_groups_that_fare_alike_keep_their_weights(seed, groups, loss, gamma):
    sizes = np.random.default_rng(seed).integers(1, 99, size=groups)
    objective = GroupDRO(counts(*sizes), loss_is_the_logit, step_size=gamma, refresh_every=1)
    before = objective.weights.clone()
    step(objective, [loss] * groups, list(range(groups)))
    torch.testing.assert_close(objective.weights, before, rtol=0, atol=1e-12)


def test_weights_start_at_the_shares_or_uniform():
    table = torch.tensor([[2, 4], [3, 0], [0, 1]])  # of each class
    assert GroupDRO(table, loss_is_the_logit).weights.tolist() == pytest.approx([0.6, 0.3, 0.1])
    assert GroupDRO(table, loss_is_the_logit, start="uniform").weights.tolist() == pytest.approx([1 / 3] * 3)


def test_the_adjustment_adds_c_over_root_n_to_the_risks():
    objective = GroupDRO(
        counts(16, 4), loss_is_the_logit, step_size=1.0, refresh_every=1, start="uniform", adjustment=2.0
    )
    step(objective, [0.7, 0.7], [0, 1])
    expected = eq_4([0.5, 0.5], [0.7 + 2 / 4, 0.7 + 2 / 2], 1.0)
    assert objective.weights.tolist() == pytest.approx(expected.tolist(), rel=1e-12)


def test_only_the_losses_get_a_gradient_and_only_after_a_step_are_weights_moved():
    objective = GroupDRO(counts(2, 1), loss_is_the_logit, refresh_every=1)
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    loss = objective(Table([1.0, 2.0]), batch_of([0, 1]))
    assert all(torch.equal(value, before[key]) for key, value in objective.state_dict().items())
    objective.after_step(batch_of([0, 1]), loss)
    assert not objective.weights.requires_grad
    assert not torch.equal(objective.weights, before["weights"])


def test_a_restart_between_two_refreshes_goes_on_as_if_nothing_had_happened():
    rng = np.random.default_rng(0)
    steps = [(rng.random(5).tolist(), rng.integers(3, size=5).tolist()) for _ in range(20)]

    def made():
        return GroupDRO(counts(9, 5, 1), loss_is_the_logit, step_size=0.5, refresh_every=4)

    whole, first, second = made(), made(), made()
    for losses, group in steps:
        step(whole, losses, group)
    for losses, group in steps[:10]:
        step(first, losses, group)
    second.load_state_dict(first.state_dict())
    for losses, group in steps[10:]:
        step(second, losses, group)
    assert whole.state_dict().keys() == second.state_dict().keys()
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in whole.state_dict().items())


def test_a_refresh_every_zero_steps_is_refused():
    with pytest.raises(RemindError, match="refresh_every"):
        OBJECTIVES.build("group_dro", counts(1), loss_is_the_logit, refresh_every=0)
