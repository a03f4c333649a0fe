"""A token with ``log_count = log c`` is, everywhere, what c copies of it would be: results and gradients."""

import pytest
import torch
from collapsing import broadcast, deviations, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from remind.fusions.remind import RemindFusion
from remind.fusions.soft_moe import SoftMoEFusion
from remind.nn.attention import SelfAttention
from remind.nn.gate import expert_uncertainty, joint_uncertainty
from remind.nn.soft_moe import Router, combine_weights, dispatch_weights
from remind.nn.tokens import mean_token
from remind.types import Layout, Tokens

exact = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=str)
few = settings(deadline=None, max_examples=25)
LAID = {
    "seed": st.integers(0, 2**31),
    "kind": st.sampled_from(["scattered", "packed"]),
    "batch": st.integers(1, 4),
    "modalities": st.integers(1, 5),
}
LAYOUT = Layout((1, 1), torch.ones(3, 2, dtype=torch.bool), torch.ones(3) / 3)  # groups; tokens come as they are
SLOTS = {"experts": st.integers(1, 5), "slots": st.integers(1, 3)}


@exact
@few
@given(**LAID, heads=st.sampled_from([1, 2, 4]))
def test_attention_gives_a_collapsed_token_what_it_gives_each_of_its_copies(
    dtype, tolerance, seed, kind, batch, modalities, heads
):
    torch.manual_seed(seed)
    tokens, attention = draw(kind, batch, modalities, 8, dtype), SelfAttention(8, heads=heads).to(dtype)
    found = deviations(lambda own, t: own(t), attention, tokens, per="copy")
    assert max(found.values()) < tolerance, found


@exact
@few
@given(**LAID, **SLOTS)
def test_dispatch_gives_a_collapsed_token_the_weight_of_all_its_copies(
    dtype, tolerance, seed, kind, batch, modalities, experts, slots
):
    torch.manual_seed(seed)
    tokens, router = draw(kind, batch, modalities, 6, dtype), Router(6, experts, slots=slots, start=3.0).to(dtype)
    found = deviations(lambda own, t: dispatch_weights(own(t.values), t.log_count), router, tokens, per="token")
    assert max(found.values()) < tolerance, found


@exact
@few
@given(**LAID, **SLOTS)
def test_combine_gives_a_collapsed_token_the_mixture_of_each_of_its_copies(
    dtype, tolerance, seed, kind, batch, modalities, experts, slots
):
    torch.manual_seed(seed)
    tokens, router = draw(kind, batch, modalities, 6, dtype), Router(6, experts, slots=slots, start=3.0).to(dtype)
    found = deviations(lambda own, t: combine_weights(own(t.values)), router, tokens, per="copy")
    assert max(found.values()) < tolerance, found


@exact
@pytest.mark.parametrize("uncertainty", [joint_uncertainty, expert_uncertainty])
@few
@given(**LAID, **SLOTS)
def test_a_collapsed_token_is_as_uncertain_as_its_copies(
    dtype, tolerance, uncertainty, seed, kind, batch, modalities, experts, slots
):
    torch.manual_seed(seed)
    tokens, router = draw(kind, batch, modalities, 6, dtype), Router(6, experts, slots=slots, start=3.0).to(dtype)
    found = deviations(lambda own, t: uncertainty(own(t.values), t.log_count), router, tokens, per="sample")
    if dtype == torch.float32:
        found = {"result": found["result"]}  # no gradient runs through the gate; in float32 this one is mostly rounding
    assert max(found.values()) < tolerance, found


@exact
@few
@given(**LAID)
def test_the_mean_counts_a_collapsed_token_as_often_as_its_copies(dtype, tolerance, seed, kind, batch, modalities):
    torch.manual_seed(seed)
    found = deviations(lambda _, t: mean_token(t), nn.Identity(), draw(kind, batch, modalities, 6, dtype), per="sample")
    assert max(found.values()) < tolerance, found


def fusion(name, dtype, experts, slots):
    """Soft MoE, or REMIND in its second stage with random residuals for three groups."""
    sizes = {"experts": experts, "slots": slots, "heads": 2, "hidden": 12, "router_scale": 3.0, "imputation": "none"}
    if name == "soft_moe":
        return SoftMoEFusion(8, LAYOUT, **sizes).to(dtype)
    made = RemindFusion(8, LAYOUT, gate=name, threshold=0.5, **sizes).to(dtype)
    nn.init.normal_(made.router.residual)
    made.specialise()
    return made


def split_the_batch(made, tokens, group):
    """Put the gate's threshold into the widest gap between two samples' uncertainties: some open, some do not."""
    seen = made.fuse(tokens, group).routing.uncertainty.detach().sort().values
    if len(seen) > 1 and seen.diff().max() > 1e-4:
        widest = seen.diff().argmax()
        made.router.gate.threshold.copy_((seen[widest] + seen[widest + 1]) / 2)


@exact
@pytest.mark.parametrize("name", ["soft_moe", "always", "joint", "expert"])
@few
@given(**LAID, **SLOTS)
def test_a_fusion_makes_of_a_collapsed_token_what_it_makes_of_its_copies(
    dtype, tolerance, name, seed, kind, batch, modalities, experts, slots
):
    torch.manual_seed(seed)
    tokens, group = draw(kind, batch, modalities, 8, dtype), torch.randint(-1, 3, (batch,))
    made = fusion(name, dtype, experts, slots)
    if name in ("joint", "expert"):
        split_the_batch(made, tokens, group)
    found = deviations(lambda own, t: own.fuse(t, group).pooled, made, tokens, per="sample")
    assert max(found.values()) < tolerance, found
    one, many = made.fuse(tokens, group).routing, made.fuse(broadcast(tokens)[0], group).routing
    assert one.opened.equal(many.opened)
    torch.testing.assert_close(one.uncertainty, many.uncertainty, rtol=tolerance, atol=tolerance)


def test_the_gate_was_split_in_the_test_above():
    torch.manual_seed(0)
    tokens, group = draw("packed", 6, 4, 8, torch.float64), torch.zeros(6, dtype=torch.int64)
    made = fusion("joint", torch.float64, 4, 1)
    split_the_batch(made, tokens, group)
    opened = made.fuse(tokens, group).routing.opened
    assert opened.any()
    assert not opened.all()


def test_broadcast_writes_every_token_out_as_often_as_it_counts():
    values = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]])
    copies, sources = broadcast(Tokens(values, torch.tensor([[1.0, 0.0, 3.0], [0.0, 2.0, 0.0]]).log()))
    assert copies.values[:, :, 0].tolist() == [[1, 3, 3, 3], [5, 5, 0, 0]]
    assert copies.log_count.exp().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert sources == [[0, 2, 2, 2], [1, 1]]
