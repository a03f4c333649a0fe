"""The focal loss, in plain numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from remind.nn.losses import focal_loss


def by_hand(logits, target, gamma):
    """``-(1 - p)^gamma log p``, one sample at a time."""
    losses = []
    for row, true in zip(logits.tolist(), target.tolist(), strict=True):
        p = math.exp(row[true]) / sum(math.exp(x) for x in row)
        losses.append(-((1 - p) ** gamma) * math.log(p))
    return torch.tensor(losses, dtype=torch.float64)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 9), classes=st.integers(2, 6), gamma=st.floats(0, 5))
def test_the_focal_loss_equals_its_formula(seed, batch, classes, gamma):
    torch.manual_seed(seed)
    logits, target = 3 * torch.randn(batch, classes).double(), torch.randint(classes, (batch,))
    made = focal_loss(logits, target, gamma=gamma)
    torch.testing.assert_close(made, by_hand(logits, target, gamma), rtol=1e-9, atol=1e-12)
    single = focal_loss(logits.float(), target, gamma=gamma)
    torch.testing.assert_close(single.double(), made, rtol=1e-4, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 9), classes=st.integers(2, 6))
def test_gamma_zero_is_cross_entropy_gradient_and_all(seed, batch, classes):
    torch.manual_seed(seed)
    target = torch.randint(classes, (batch,))
    focal = (3 * torch.randn(batch, classes).double()).requires_grad_()
    plain = focal.detach().clone().requires_grad_()
    ours, theirs = focal_loss(focal, target, gamma=0.0), F.cross_entropy(plain, target, reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    ours.sum().backward(), theirs.sum().backward()
    torch.testing.assert_close(focal.grad, plain.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("margin", [-1e4, -100.0, 0.0, 17.0, 100.0, 1e4])
def test_loss_and_gradient_are_finite_however_sure_the_model_is(gamma, margin):
    logits = torch.tensor([[margin, 0.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0]), gamma=gamma)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()


@settings(deadline=None, max_examples=30)
@given(gamma=st.floats(0, 5), margin=st.floats(-10, 10))
def test_the_surer_the_right_answer_the_smaller_the_loss(gamma, margin):
    logits = torch.tensor([[margin, 0.0], [margin + 0.5, 0.0]]).double()
    less, more = focal_loss(logits, torch.tensor([0, 0]), gamma=gamma)
    assert less > more > 0
