"""The gate's measures and thresholds, and the bounds that unit vectors put on them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remind.nn.gate import Gate, expert_uncertainty
from remind.nn.soft_moe import Router


def logits_of(samples, spread, tokens=3, experts=4):
    """Logits of samples that are the less sure the smaller their ``spread``."""
    return torch.randn(samples, tokens, experts, 1) * torch.as_tensor(spread).reshape(-1, 1, 1, 1)


def single(samples, tokens=3):
    """Every token stands for itself."""
    return torch.zeros(samples, tokens)


def surest(experts, scale=1.0):
    """The lowest relative entropy of one token's routing when its logits lie in ``[-scale, scale]``.

    Entropy is least where every logit is at an end of its range; by symmetry only the number at the upper end matters.
    """
    router = Router(2, experts, start=scale).double()
    found = []
    for up in range(experts + 1):
        with torch.no_grad():
            router.phi.copy_(torch.tensor([[1.0] * up + [-1.0] * (experts - up), [0.0] * experts])[..., None])
        logits = router(torch.tensor([[[5.0, 0.0]]]).double())
        torch.testing.assert_close(logits.ravel(), router.phi[0].ravel() * scale)
        found.append(expert_uncertainty(logits, single(1, 1).double()).item())
    return min(found)


@pytest.mark.parametrize(("experts", "bound", "opening"), [(32, 0.863, 1.22), (128, 0.902, 1.47)])
def test_unit_vectors_bound_how_sure_a_router_can_be(experts, bound, opening):
    assert round(surest(experts), 3) == bound
    assert surest(experts, opening - 0.01) > 0.8 > surest(experts, opening + 0.01)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), dim=st.integers(1, 4), size=st.sampled_from([1e-3, 1.0, 1e3]))
def test_no_router_of_scale_one_is_surer_than_that(seed, dim, size):
    torch.manual_seed(seed)
    for experts, bound in ((32, 0.863), (128, 0.902)):
        router = Router(dim, experts)
        torch.nn.init.normal_(router.phi, std=size)
        assert expert_uncertainty(router(size * torch.randn(5, 7, dim)), single(5, 7)).min() >= bound


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), experts=st.integers(2, 9), tokens=st.integers(1, 4))
def test_kl_is_the_divergence_from_uniform_in_nats(seed, experts, tokens):
    torch.manual_seed(seed)
    logits = logits_of(2, [0.3, 3.0], tokens, experts).double()
    kl = []
    for sample in logits:
        each = [row.exp() / row.exp().sum() for row in sample[..., 0]]
        kl.append(sum(sum(p * math.log(p * experts) for p in row.tolist()) for row in each) / tokens)
    gate = Gate(measure="kl").double()
    seen = gate(logits, single(2, tokens).double()).uncertainty
    assert seen.tolist() == pytest.approx([-value for value in kl], rel=1e-10, abs=1e-12)
    relative = expert_uncertainty(logits, single(2, tokens).double())
    assert kl == pytest.approx(((1 - relative) * math.log(experts)).tolist(), rel=1e-10, abs=1e-12)  # ln n - H


def test_kl_opens_below_its_threshold_and_the_entropies_above_theirs():
    spread = torch.tensor([0.01, 0.3, 2.0, 10.0])
    logits = torch.tensor([1.0, -1.0, 0.5, -0.5]).expand(4, 3, 4)[..., None] * spread[:, None, None, None]
    kl = Gate(measure="kl", threshold=0.1)(logits, single(4))
    divergence = -kl.uncertainty
    assert divergence.diff().min() > 0  # surer and surer
    assert kl.opened.tolist() == (divergence < 0.1).tolist() == [True, True, False, False]
    for measure in ("joint", "expert"):
        decision = Gate(measure=measure, threshold=0.9)(logits, single(4))
        assert decision.uncertainty.diff().max() < 0
        assert decision.opened.tolist() == (decision.uncertainty >= 0.9).tolist() == [True, True, False, False]


def test_the_default_thresholds_are_the_papers():
    assert [Gate(measure=measure).threshold.item() for measure in ("joint", "expert", "kl")] == pytest.approx(
        [0.8, 0.8, 0.1]
    )


@pytest.mark.parametrize(("measure", "opened"), [("always", True), ("off", False)])
def test_always_and_off_look_at_nothing(measure, opened):
    decision = Gate(measure=measure)(logits_of(5, [0.0, 0.1, 1, 10, 100]), single(5))
    assert decision.opened.tolist() == [opened] * 5
    assert decision.uncertainty[0] > decision.uncertainty[4]  # but it is still reported


@pytest.mark.parametrize("measure", ["joint", "expert", "kl"])
@pytest.mark.parametrize("q", [0.25, 0.8])
def test_a_quantile_threshold_follows_the_batches_and_leaves_the_least_sure_open(measure, q):
    torch.manual_seed(0)
    gate = Gate(measure=measure, threshold=f"quantile:{q}")
    fresh = logits_of(2000, 0.5 + 2 * torch.rand(2000))
    decision = gate(fresh, single(2000))
    assert decision.opened.all()  # nothing is known yet
    for _ in range(500):
        gate.observe(gate(logits_of(64, 0.5 + 2 * torch.rand(64)), single(64)).uncertainty)
    assert gate(fresh, single(2000)).opened.float().mean() == pytest.approx(1 - q, abs=0.05)
    opened = gate(fresh, single(2000)).opened
    assert decision.uncertainty[opened].min() > decision.uncertainty[~opened].max()

    surer = logits_of(2000, 3 + 2 * torch.rand(2000))
    assert abs(gate(surer, single(2000)).opened.float().mean() - (1 - q)) > 0.1  # else there is nothing to follow
    for _ in range(500):
        gate.observe(gate(logits_of(64, 3 + 2 * torch.rand(64)), single(64)).uncertainty)
    assert gate(surer, single(2000)).opened.float().mean() == pytest.approx(1 - q, abs=0.05)


@pytest.mark.parametrize("measure", ["joint", "expert", "kl"])
def test_the_first_batch_sets_the_quantile_and_a_restart_keeps_it(measure):
    torch.manual_seed(0)
    gate = Gate(measure=measure, threshold="quantile:0.5")
    seen = gate(logits_of(9, 1 + torch.rand(9)), single(9)).uncertainty
    gate.observe(seen)
    sign = -1 if measure == "kl" else 1
    assert gate.threshold.item() == pytest.approx(sign * seen.median().item())
    again = Gate(measure=measure, threshold="quantile:0.5")
    again.load_state_dict(gate.state_dict())
    more = gate(logits_of(9, 4.0), single(9)).uncertainty
    gate.observe(more)
    again.observe(more)
    assert again.threshold == gate.threshold
    assert gate.threshold.item() != pytest.approx(sign * seen.median().item())


def test_a_fixed_threshold_stays_where_it_is():
    gate = Gate(measure="joint", threshold=0.7)
    gate.observe(torch.tensor([0.1, 0.2]))
    assert gate.threshold == torch.tensor(0.7)


@pytest.mark.parametrize("text", ["quantil:0.5", "quantile", "quantile:", "quantile:x", "quantile:1.5", "0.5", "nan"])
def test_a_threshold_that_is_neither_a_number_nor_a_quantile_is_refused(text):
    with pytest.raises(ValueError, match="neither a number nor"):
        Gate(measure="joint", threshold=text)


def test_a_sample_with_one_token_and_one_expert_is_not_a_division_by_zero():
    for measure in ("joint", "expert", "kl"):
        assert Gate(measure=measure)(torch.randn(2, 1, 1, 1), single(2, 1)).uncertainty.tolist() == [0, 0]


@pytest.mark.parametrize(("measure", "opened"), [("joint", True), ("expert", True), ("kl", False)])
def test_exactly_at_the_threshold_an_entropy_opens_and_a_divergence_does_not(measure, opened):
    logits = logits_of(1, 1.0)
    gate = Gate(measure=measure, threshold=0.0)
    gate.threshold.copy_(gate(logits, single(1)).uncertainty[0].abs())
    assert gate(logits, single(1)).opened.item() == opened
