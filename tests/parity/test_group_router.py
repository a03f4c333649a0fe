"""Eq. 7 and 8 against loops over plain numbers: the residual router and the gate that opens it."""

import math
from itertools import product

import pytest
import torch
from collapsing import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from remind.nn.gate import expert_uncertainty, joint_uncertainty
from remind.nn.group_router import GroupRouter

few = settings(deadline=None, max_examples=25)
SIZES = {
    "seed": st.integers(0, 2**31),
    "batch": st.integers(1, 4),
    "modalities": st.integers(1, 5),
    "experts": st.integers(1, 4),
    "slots": st.integers(1, 3),
}
DIM, GROUPS = 6, 3


def router(experts, slots, *, gate="always", **settings):
    """In its second stage, with random residuals."""
    made = GroupRouter(DIM, experts, GROUPS, slots=slots, gate=gate, start=2.5, **settings).double()
    nn.init.normal_(made.residual)
    made.specialise()
    return made


def logits_by_hand(made, z, group, use):
    """``scale * z_hat . normalise(phi_shared + a * phi_k)``, one number at a time; ``use`` is each sample's ``a``."""
    _, experts, slots = made.shared.phi.shape
    logits = torch.zeros(*z.shape[:2], experts, slots, dtype=torch.float64)
    for i, t, e, s in product(*map(range, logits.shape)):
        token, phi = z[i, t].tolist(), made.shared.phi[:, e, s].tolist()
        if use[i]:
            phi = [shared + own for shared, own in zip(phi, made.residual[group[i], :, e, s].tolist(), strict=True)]
        dot = sum(a * b for a, b in zip(token, phi, strict=True))
        logits[i, t, e, s] = made.shared.scale.item() * dot / math.hypot(*token) / math.hypot(*phi)
    return logits


def routing_by_hand(logits, count):
    """Softmax over the counted tokens of every slot, and over the slots of every token."""
    weight = logits.exp()
    counted = weight * count[:, :, None, None]
    return counted / counted.sum(1, keepdim=True), weight / weight.sum((2, 3), keepdim=True)


def joint_by_hand(logits, count):
    """Eq. 8: the entropy of all token-slot probabilities of a sample, copies written out, over ``ln(M n)``."""
    found = []
    for sample, counts in zip(logits, count, strict=True):
        pairs = [math.exp(x) for row, c in zip(sample, counts, strict=True) for _ in range(int(c)) for x in row.ravel()]
        entropy = -sum(p / sum(pairs) * math.log(p / sum(pairs)) for p in pairs)
        found.append(entropy / math.log(len(pairs)) if len(pairs) > 1 else 0.0)
    return torch.tensor(found, dtype=torch.float64)


def expert_by_hand(logits, count):
    """App. 7.2.4: each token's entropy over slots, copies written out, averaged, over ``ln n``."""
    found = []
    for sample, counts in zip(logits, count, strict=True):
        entropies = []
        for row, c in zip(sample, counts, strict=True):
            weight = [math.exp(x) for x in row.ravel()]
            entropies += [-sum(w / sum(weight) * math.log(w / sum(weight)) for w in weight)] * int(c)
        slots = sample[0].numel()
        found.append(sum(entropies) / len(entropies) / math.log(slots) if slots > 1 else 0.0)
    return torch.tensor(found, dtype=torch.float64)


@few
@given(**SIZES)
def test_an_open_gate_routes_by_the_shared_vectors_plus_the_groups_own(seed, batch, modalities, experts, slots):
    torch.manual_seed(seed)
    (z, log_count), group = (
        draw("scattered", batch, modalities, DIM, torch.float64),
        torch.randint(-1, GROUPS, (batch,)),
    )
    made = router(experts, slots)
    routing = made(z, log_count, group)
    known = group >= 0
    assert routing.opened.equal(known)
    dispatch, combine = routing_by_hand(logits_by_hand(made, z, group, known), log_count.exp())
    torch.testing.assert_close(routing.dispatch, dispatch, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(routing.combine, combine, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("gate", "by_hand"), [("joint", joint_by_hand), ("expert", expert_by_hand)])
@few
@given(**SIZES, threshold=st.floats(0.5, 1))
def test_the_gate_opens_for_the_samples_whose_shared_routing_is_unsure(
    gate, by_hand, threshold, seed, batch, modalities, experts, slots
):
    torch.manual_seed(seed)
    (z, log_count), group = (
        draw("scattered", batch, modalities, DIM, torch.float64),
        torch.randint(-1, GROUPS, (batch,)),
    )
    made = router(experts, slots, gate=gate, threshold=threshold)
    routing, count = made(z, log_count, group), log_count.exp().round()
    uncertainty = by_hand(logits_by_hand(made, z, group, [False] * batch), count)
    torch.testing.assert_close(routing.uncertainty, uncertainty, rtol=1e-12, atol=1e-12)
    unsure = routing.uncertainty >= made.gate.threshold
    assert routing.opened.equal(unsure & (group >= 0))
    dispatch, combine = routing_by_hand(logits_by_hand(made, z, group, routing.opened), count)
    torch.testing.assert_close(routing.dispatch, dispatch, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(routing.combine, combine, rtol=1e-12, atol=1e-12)


@few
@given(**SIZES)
def test_the_uncertainty_of_any_logits_equals_the_naive_loop(seed, batch, modalities, experts, slots):
    torch.manual_seed(seed)
    log_count = draw("scattered", batch, modalities, 1, torch.float64).log_count
    logits = 5 * torch.randn(batch, modalities, experts, slots).double()
    count = log_count.exp().round()
    for made, by_hand in ((joint_uncertainty, joint_by_hand), (expert_uncertainty, expert_by_hand)):
        found = made(logits, log_count)
        torch.testing.assert_close(found, by_hand(logits, count), rtol=1e-12, atol=1e-12)
        assert -1e-12 <= found.min() <= found.max() <= 1 + 1e-12


@pytest.mark.parametrize("closed", ["gate off", "sure", "stage one", "unseen"])
@few
@given(**SIZES)
def test_residuals_are_ignored_where_they_have_no_say(closed, seed, batch, modalities, experts, slots):
    torch.manual_seed(seed)
    (z, log_count), group = draw("scattered", batch, modalities, DIM, torch.float64), torch.randint(GROUPS, (batch,))
    made = router(experts, slots, gate={"gate off": "off", "sure": "joint"}.get(closed, "always"))
    if closed == "sure":
        made.gate.threshold.fill_(1.1)
    if closed == "stage one":
        made.load_state_dict(made.state_dict() | {"specialised": torch.tensor(False)})  # as it was saved then
    if closed == "unseen":
        group = torch.full_like(group, -1)
    before = made(z, log_count, group)
    nn.init.normal_(made.residual, std=100)
    after = made(z, log_count, group)
    assert not after.opened.any()
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    (after.dispatch * torch.randn_like(after.dispatch)).sum().backward()
    assert made.residual.grad is None or (made.residual.grad == 0).all()


@few
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 5), open_share=st.floats(0, 1))
def test_gradient_reaches_the_residuals_of_the_groups_that_opened_and_no_other(seed, batch, open_share):
    torch.manual_seed(seed)
    (z, log_count), group = draw("packed", batch, 4, DIM, torch.float64), torch.randint(-1, GROUPS, (batch,))
    made = router(4, 1, gate="joint")
    uncertainty = made(z, log_count, group).uncertainty
    made.gate.threshold.copy_(uncertainty.quantile(1 - open_share))
    routing = made(z, log_count, group)
    ((routing.dispatch * torch.randn_like(routing.dispatch)).sum() + routing.combine.square().sum()).backward()
    reached = {k for k in range(GROUPS) if made.residual.grad[k].abs().max() > 0}
    assert reached == set(group[routing.opened].tolist())
    assert made.residual.grad.isfinite().all()
    assert not routing.uncertainty.requires_grad


@few
@given(**SIZES)
def test_sinusoidal_residuals_have_no_effect_before_stage_two(seed, batch, modalities, experts, slots):
    torch.manual_seed(seed)
    (z, log_count), group = draw("packed", batch, modalities, DIM, torch.float64), torch.randint(GROUPS, (batch,))
    made = GroupRouter(DIM, experts, GROUPS, slots=slots, gate="always", init="sinusoidal").double()
    zero = GroupRouter(DIM, experts, GROUPS, slots=slots, gate="always").double()
    zero.shared.load_state_dict(made.shared.state_dict())
    before, plain = made(z, log_count, group), zero(z, log_count, group)
    assert all(torch.equal(one, other) for one, other in zip(before, plain, strict=True))
    made.specialise()
    after = made(z, log_count, group)
    assert after.opened.all()
    many = (log_count > -math.inf).sum(1) > 1  # a lone token gets all the weight of every slot whatever the routing
    if many.any():
        assert not torch.equal(before.dispatch[many], after.dispatch[many])


@pytest.mark.parametrize("dim", [1, 2, 7, 64])
def test_sinusoidal_residuals_differ_between_all_slots_of_all_groups(dim):
    residual = GroupRouter(dim, 4, 3, slots=2, init="sinusoidal").residual.detach()
    vectors = residual.permute(0, 2, 3, 1).reshape(-1, dim)
    assert len(vectors.unique(dim=0)) == 24
    assert 0 < vectors.norm(dim=1).max() <= 1 + 1e-6
