"""Soft MoE against loops, and REMIND with zero residuals against Soft MoE, to the bit."""

import math
from itertools import product

import pytest
import torch
from collapsing import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from remind.fusions.remind import RemindFusion
from remind.fusions.soft_moe import SoftMoEFusion
from remind.nn.soft_moe import Experts, Router, SoftMoE, combine_weights, dispatch_weights
from remind.nn.tokens import padding
from remind.types import Layout, Tokens

few = settings(deadline=None, max_examples=25)
SIZES = {
    "seed": st.integers(0, 2**31),
    "batch": st.integers(1, 3),
    "modalities": st.integers(1, 5),
    "dim": st.integers(1, 6),
    "experts": st.integers(1, 4),
    "slots": st.integers(1, 3),
}


def gelu(x):
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def expert_by_hand(experts, which, slot):
    """One expert on one slot: lists of numbers in, a list of numbers out."""
    up, up_bias = experts.up.weight[which].tolist(), experts.up.bias[which, 0].tolist()
    down, down_bias = experts.down.weight[which].tolist(), experts.down.bias[which, 0].tolist()
    hidden = [gelu(sum(x * row[h] for x, row in zip(slot, up, strict=True)) + b) for h, b in enumerate(up_bias)]
    return [sum(x * row[d] for x, row in zip(hidden, down, strict=True)) + b for d, b in enumerate(down_bias)]


def moe_by_hand(experts, z, logits, count):
    """Eq. 5, the experts and Eq. 6: one sample, one expert, one slot at a time."""
    batch, tokens, size, slots = logits.shape
    out = torch.zeros_like(z)
    for i in range(batch):
        logit, there = logits[i].tolist(), count[i].tolist()
        for e, s in product(range(size), range(slots)):
            weight = [there[t] * math.exp(logit[t][e][s]) for t in range(tokens)]
            dispatch = [w / sum(weight) for w in weight]
            slot = [sum(dispatch[t] * z[i, t, d].item() for t in range(tokens)) for d in range(z.shape[2])]
            made = torch.tensor(expert_by_hand(experts, e, slot), dtype=z.dtype)
            for t in range(tokens):
                everywhere = sum(math.exp(logit[t][j][p]) for j, p in product(range(size), range(slots)))
                out[i, t] += math.exp(logit[t][e][s]) / everywhere * made
    return out


@few
@given(**SIZES)
def test_soft_moe_equals_the_triple_loop(seed, batch, modalities, dim, experts, slots):
    torch.manual_seed(seed)
    tokens = draw("scattered", batch, modalities, dim, torch.float64)
    logits, moe = 3 * torch.randn(batch, modalities, experts, slots).double(), SoftMoE(dim, experts, hidden=5).double()
    nn.init.normal_(moe.experts.up.bias)
    nn.init.normal_(moe.experts.down.bias)
    made = moe(tokens.values, dispatch_weights(logits, tokens.log_count), combine_weights(logits))
    by_hand = moe_by_hand(moe.experts, tokens.values, logits, tokens.log_count.exp())
    torch.testing.assert_close(made, by_hand, rtol=1e-12, atol=1e-12)


@few
@given(**SIZES)
def test_dispatch_sums_to_one_over_tokens_and_combine_over_slots(seed, batch, modalities, dim, experts, slots):
    torch.manual_seed(seed)
    tokens = draw("scattered", batch, modalities, dim, torch.float64)
    logits = 30 * torch.randn(batch, modalities, experts, slots).double()
    dispatch, combine = dispatch_weights(logits, tokens.log_count), combine_weights(logits)
    one = torch.ones(()).double()
    torch.testing.assert_close(dispatch.sum(1), one.expand(batch, experts, slots), rtol=0, atol=1e-12)
    torch.testing.assert_close(combine.sum((2, 3)), one.expand(batch, modalities), rtol=0, atol=1e-12)
    assert (dispatch[padding(tokens)] == 0).all()
    assert dispatch.min() >= 0
    assert combine.min() >= 0


@few
@given(**SIZES, scale=st.floats(-4, 4))
def test_a_logit_is_the_scale_times_a_cosine(seed, batch, modalities, dim, experts, slots, scale):
    torch.manual_seed(seed)
    router, z = Router(dim, experts, slots=slots, start=scale).double(), torch.randn(batch, modalities, dim).double()
    logits = router(z)
    for i, t, e, s in product(range(batch), range(modalities), range(experts), range(slots)):
        token, slot = z[i, t].tolist(), router.phi[:, e, s].tolist()
        cosine = sum(a * b for a, b in zip(token, slot, strict=True)) / math.hypot(*token) / math.hypot(*slot)
        assert logits[i, t, e, s].item() == pytest.approx(router.scale.item() * cosine, rel=1e-12, abs=1e-12)


@few
@given(**SIZES, hidden=st.integers(1, 7))
def test_the_batched_experts_equal_separate_networks(seed, batch, modalities, dim, experts, slots, hidden):
    torch.manual_seed(seed)
    held, x = Experts(dim, experts, hidden=hidden).double(), torch.randn(batch, experts, slots, dim).double()
    nn.init.normal_(held.up.bias)
    nn.init.normal_(held.down.bias)
    made = held(x)
    for e in range(experts):
        up, down = nn.Linear(dim, hidden).double(), nn.Linear(hidden, dim).double()
        with torch.no_grad():
            up.weight.copy_(held.up.weight[e].T), up.bias.copy_(held.up.bias[e, 0])
            down.weight.copy_(held.down.weight[e].T), down.bias.copy_(held.down.bias[e, 0])
        torch.testing.assert_close(made[:, e], down(F.gelu(up(x[:, e]))), rtol=1e-12, atol=1e-12)


def layer_norm_by_hand(norm, x):
    """One token at a time."""
    out = torch.zeros_like(x)
    for i, t in product(*map(range, x.shape[:2])):
        centred = x[i, t] - x[i, t].sum() / x.shape[2]
        out[i, t] = centred / (centred.square().sum() / x.shape[2] + norm.eps).sqrt() * norm.weight + norm.bias
    return out


def attention_by_hand(attention, x, count):
    """One sample, one head, one query at a time; a key that stands for ``c`` tokens has ``c`` times the weight."""
    query, key, value = (
        x @ w.T + b for w, b in zip(attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True)
    )
    width = x.shape[2] // attention.heads
    out = torch.zeros_like(x)
    for i, head, t in product(range(len(x)), range(attention.heads), range(x.shape[1])):
        part = slice(head * width, (head + 1) * width)
        weight = [
            c * math.exp(float(query[i, t, part] @ k[part]) / math.sqrt(width))
            for k, c in zip(key[i], count[i], strict=True)
        ]
        out[i, t, part] = sum(w / sum(weight) * v[part] for w, v in zip(weight, value[i], strict=True))
    return out @ attention.out.weight.T + attention.out.bias


@few
@given(
    seed=st.integers(0, 2**31), batch=st.integers(1, 3), modalities=st.integers(1, 5), heads=st.sampled_from([1, 2, 3])
)
@torch.no_grad()
def test_a_fusion_is_attention_then_soft_moe_each_normed_before_and_added_then_the_mean(seed, batch, modalities, heads):
    torch.manual_seed(seed)
    tokens = draw("scattered", batch, modalities, 6, torch.float64)
    made, count = (
        soft_moe(6, 1, experts=3, heads=heads, hidden=5, router_scale=2.0).double(),
        tokens.log_count.exp(),
    )
    for parameter in made.block.parameters():
        nn.init.normal_(parameter)
    fused = made.fuse(tokens, torch.zeros(batch, dtype=torch.int64))
    x = tokens.values * (count > 0)[..., None]
    x = x + attention_by_hand(made.block.attention, layer_norm_by_hand(made.block.attention_norm, x), count)
    z = layer_norm_by_hand(made.block.moe_norm, x)
    x = x + moe_by_hand(made.block.moe.experts, z, made.router(z), count)
    mean = [
        sum(c * v for c, v in zip(counts, values, strict=True)) / counts.sum()
        for counts, values in zip(count, x, strict=True)
    ]
    torch.testing.assert_close(fused.pooled, torch.stack(mean), rtol=1e-10, atol=1e-10)


def layout_of(groups):
    """So many groups; what they hold is of no matter to tokens that are laid already."""
    return Layout((1,), torch.ones(groups, 1, dtype=torch.bool), (100,) * groups)


def soft_moe(dim, groups, **settings):
    return SoftMoEFusion(dim, layout_of(groups), imputation="none", **settings)


def remind(dim, groups, **settings):
    return RemindFusion(dim, layout_of(groups), imputation="none", **settings)


def specialised(made):
    """Second stage, with random residuals."""
    nn.init.normal_(made.router.residual)
    made.specialise()
    return made


@pytest.mark.parametrize("stored", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("name", ["soft_moe", "remind"])
@few
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 4), modalities=st.integers(1, 6))
def test_what_is_stored_in_padding_changes_nothing(stored, name, seed, batch, modalities):
    torch.manual_seed(seed)
    tokens, group = draw("packed", batch, modalities, 8, torch.float32), torch.randint(-1, 3, (batch,))
    made = soft_moe(8, 3, experts=3) if name == "soft_moe" else specialised(remind(8, 3, experts=3))
    weight = torch.randn(batch, 8)
    results = []
    for content in (0.0, stored):
        values = tokens.values.masked_fill(padding(tokens)[..., None], content).requires_grad_()
        made.zero_grad()
        fused = made.fuse(Tokens(values, tokens.log_count), group)
        (fused.pooled * weight).sum().backward()
        assert (values.grad[padding(tokens)] == 0).all()
        routing = fused.routing._replace(log_count=fused.routing.log_count.exp())
        results.append([fused.pooled, *routing, values.grad, *(p.grad.clone() for p in made.parameters())])
    for clean, dirty in zip(*results, strict=True):
        assert clean.isfinite().all()
        assert torch.equal(clean, dirty)


def remind_from(soft, groups, **settings):
    """REMIND with the weights of a Soft MoE: only the router's names differ."""
    dim, experts, slots = soft.router.phi.shape
    hidden, heads = soft.block.moe.experts.up.weight.shape[2], soft.block.attention.heads
    made = remind(dim, groups, experts=experts, slots=slots, hidden=hidden, heads=heads, **settings)
    state = {key.replace("router.", "router.shared.", 1): value for key, value in soft.state_dict().items()}
    missing, unexpected = made.load_state_dict(state, strict=False)
    assert set(missing) == {"router.residual", "router.specialised", "router.gate.threshold"}
    assert not unexpected
    return made


def assert_same_to_the_bit(soft, tokens, groups, gate):
    group = torch.randint(-1, groups, (len(tokens.values),))
    made = remind_from(soft, groups, gate=gate)
    plain = soft.fuse(tokens, group)
    for stage in range(2):
        fused = made.fuse(tokens, group)
        assert torch.equal(fused.pooled, plain.pooled)
        assert torch.equal(fused.routing.dispatch, plain.routing.dispatch)
        assert torch.equal(fused.routing.combine, plain.routing.combine)
        if stage == 0:
            assert not fused.routing.opened.any()
            made.specialise()
    if gate == "always":
        assert fused.routing.opened.equal(group >= 0)


@pytest.mark.parametrize("gate", ["always", "joint"])
@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 9),
    modalities=st.integers(1, 12),
    heads=st.integers(1, 3),
    width=st.integers(1, 40),
    experts=st.integers(1, 40),
    slots=st.integers(1, 3),
    groups=st.integers(1, 20),
    scale=st.floats(0.1, 5),
)
def test_zero_residuals_are_soft_moe_to_the_bit(
    gate, seed, batch, modalities, heads, width, experts, slots, groups, scale
):
    torch.manual_seed(seed)
    tokens = draw("packed", batch, modalities, heads * width, torch.float32)
    soft = soft_moe(heads * width, groups, experts=experts, slots=slots, heads=heads, router_scale=scale)
    assert_same_to_the_bit(soft, tokens, groups, gate)


@pytest.mark.parametrize("gate", ["always", "joint"])
@pytest.mark.parametrize(
    ("dim", "experts", "slots", "batch"), [(768, 128, 1, 8), (768, 1, 1, 8), (512, 32, 4, 5), (1000, 3, 1, 64)]
)
def test_zero_residuals_are_soft_moe_to_the_bit_at_the_papers_sizes(gate, dim, experts, slots, batch):
    torch.manual_seed(0)
    tokens = Tokens(torch.randn(batch, 40, dim), torch.randint(0, 4, (batch, 40)).float().log())
    soft = soft_moe(dim, 15, experts=experts, slots=slots, hidden=16)
    assert_same_to_the_bit(soft, tokens, 15, gate)


@few
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 4), modalities=st.integers(1, 6), experts=st.integers(1, 6))
def test_stage_one_learns_what_soft_moe_learns(seed, batch, modalities, experts):
    """The residuals get no gradient, all else the gradient that it has in Soft MoE."""
    torch.manual_seed(seed)
    tokens, group = draw("packed", batch, modalities, 8, torch.float64), torch.randint(-1, 3, (batch,))
    soft = soft_moe(8, 3, experts=experts, heads=2).double()
    made = remind_from(soft, 3).double()
    weight = torch.randn(batch, 8).double()
    for one in (soft, made):
        (one.fuse(tokens, group).pooled * weight).sum().backward()
    assert made.router.residual.grad is None or (made.router.residual.grad == 0).all()
    for name, parameter in soft.named_parameters():
        twin = made.get_parameter(name.replace("router.", "router.shared.", 1))
        torch.testing.assert_close(twin.grad, parameter.grad, rtol=1e-12, atol=1e-12)
