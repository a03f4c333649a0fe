"""Flex-MoE against loops over samples, modalities, tokens and experts; and its odd cases."""

import math

import by_hand
import pytest
import torch
from by_hand import combinations, cv_squared, draw_case, observed, randomise
from hypothesis import given, settings
from hypothesis import strategies as st

from remind.fusions.flex_moe import FlexMoEFusion, target_experts
from remind.nn.sparse_moe import cv_squared as cv_of
from remind.types import Encoded, Layout, Ragged

DIM = 4
few = settings(deadline=None, max_examples=20)
SIZES = {
    "seed": st.integers(0, 2**31),
    "batch": st.integers(1, 4),
    "modalities": st.integers(1, 3),
    "groups": st.integers(1, 6),
    "experts": st.integers(1, 5),
    "top_k": st.integers(1, 6),
    "only": st.sampled_from([None, None, "full", "partial"]),
}


def build(layout, **settings):
    return randomise(FlexMoEFusion(DIM, layout, **{"heads": 2, "hidden": 3, "dropout": 0.0, **settings}).double())


def bank_by_hand(fusion, layout, group, mask, place):
    """What fills a place ``[d]`` of a modality: its group's, or the mean of the nearest groups' that lack it too."""
    blocks = fusion.bank.blocks
    if group >= 0:
        return blocks[group, place]
    modality = [j for j, length in enumerate(layout.lengths) for _ in range(length)][place]
    lacking = [k for k, known in enumerate(layout.masks) if not known[modality]] or list(range(len(layout.masks)))
    distance = {k: sum(a != b for a, b in zip(mask.tolist(), layout.masks[k].tolist(), strict=True)) for k in lacking}
    nearest = [k for k in lacking if distance[k] == min(distance.values())]
    weight = {k: fusion.bank.nearest.shares[k].item() for k in nearest}
    return sum(weight[k] * blocks[k, place] for k in nearest) / sum(weight.values())


def expert_of(masks, experts):
    """The full combination's is 0; the others take 1, 2, ... in turn."""
    others, found = 0, []
    for mask in masks:
        if mask.all() or experts == 1:
            found.append(0)
        else:
            found.append(others % (experts - 1) + 1)
        others += not mask.all()
    return found


@torch.no_grad()
def flex_by_hand(fusion, case, kept, noise=None):
    """Pooled ``[b, m d]``; the gates, by sample, modality and place; and each sample's mean entropy."""
    (layout, encoded), pooled, gates, unsure = case, [], {}, []
    first = [sum(layout.lengths[:j]) for j in range(len(layout.lengths))]
    for i, mask in enumerate(encoded.available):
        where, tokens = [], []
        for j, length in enumerate(layout.lengths):
            places = range(first[j], first[j] + length)
            filled = [bank_by_hand(fusion, layout, int(encoded.group[i]), mask, place) for place in places]
            for place, token in zip(places, observed(encoded, i, j) if mask[j] else filled, strict=False):
                where.append((j, place))
                tokens.append(token + fusion.position[place])
        x = torch.stack(tokens)
        x = x + by_hand.attend(fusion.attention, torch.stack([by_hand.norm(fusion.attention_norm, t) for t in x]))
        sums, counts, entropy = torch.zeros(len(layout.lengths), DIM).double(), [0] * len(layout.lengths), 0.0
        for t, (j, place) in enumerate(where):
            z = by_hand.norm(fusion.moe_norm, x[t])
            drawn = None if noise is None else noise[i * sum(layout.lengths) + place]
            gates[i, j, place] = gate = by_hand.gate(fusion.gate, "softmax", kept, z, drawn)
            sums[j] += x[t] + by_hand.mixture(fusion.moe.experts, gate.weights, z)
            counts[j] += 1
            entropy += by_hand.entropy(gate.clean) / len(where)
        pooled.append((sums / torch.tensor(counts)[:, None]).flatten())
        unsure.append(entropy)
    return torch.stack(pooled), gates, torch.tensor(unsure, dtype=torch.float64)


def loss_by_hand(case, gates, experts):
    """S-router's cross-entropy and the balance of importance and load, modality by modality."""
    (layout, encoded), loss = case, 0.0
    target, full = expert_of(layout.masks, experts), encoded.available.all(1)
    for j in range(len(layout.lengths)):
        here = {(i, place): gate for (i, modality, place), gate in gates.items() if modality == j}
        crosses = []
        for (i, _), gate in here.items():
            if not full[i] and encoded.group[i] >= 0:
                top = max(gate.noisy)
                total = top + math.log(sum(math.exp(v - top) for v in gate.noisy))
                crosses.append(total - gate.noisy[target[encoded.group[i]]])
        loss += sum(crosses) / max(len(crosses), 1)
        of_full = [gate for (i, _), gate in here.items() if full[i]]
        partial = [gate for (i, _), gate in here.items() if not full[i]]
        for name in ("weights", "chance"):
            loss += cv_squared([getattr(gate, name) for gate in of_full], range(experts))
            loss += cv_squared([getattr(gate, name) for gate in partial], range(1, experts))
    return loss


@few
@given(**SIZES)
def test_flex_moe_equals_the_loops_in_evaluation(seed, batch, modalities, groups, experts, top_k, only):
    if modalities == 1 and only == "partial":
        only = None  # there are none
    case = draw_case(seed, batch, modalities, DIM, groups=groups, only=only)
    fusion = build(case.layout, experts=experts, top_k=top_k).eval()
    fused = fusion(case.encoded)
    pooled, gates, unsure = flex_by_hand(fusion, case, min(top_k, experts))
    torch.testing.assert_close(fused.pooled, pooled, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fused.routing.uncertainty, unsure, rtol=1e-9, atol=1e-9)
    combine = torch.zeros(batch, sum(case.layout.lengths), experts, 1).double()
    for (i, _, place), gate in gates.items():
        combine[i, place, :, 0] = torch.tensor(gate.weights, dtype=torch.float64)
    torch.testing.assert_close(fused.routing.combine, combine, rtol=1e-10, atol=1e-10)
    assert ((combine > 0).sum(2) <= top_k).all()
    assert fused.routing.dispatch is None
    assert not fused.routing.opened.any()
    assert not fused.routing.uncertainty.requires_grad
    assert fused.auxiliary is None


@few
@given(**SIZES)
def test_flex_moe_equals_the_loops_in_training_noise_and_loss(seed, batch, modalities, groups, experts, top_k, only):
    if modalities == 1 and only == "partial":
        only = None
    case = draw_case(seed, batch, modalities, DIM, groups=groups, only=only)
    fusion = build(case.layout, experts=experts, top_k=top_k, gate_loss=0.25).train()
    torch.manual_seed(seed)
    fused = fusion(case.encoded)
    torch.manual_seed(seed)
    noise = torch.randn(batch * sum(case.layout.lengths), experts, dtype=torch.float64)
    pooled, gates, _ = flex_by_hand(fusion, case, min(top_k, experts), noise)
    torch.testing.assert_close(fused.pooled, pooled, rtol=1e-10, atol=1e-10)
    assert fused.auxiliary.item() == pytest.approx(0.25 * loss_by_hand(case, gates, experts), rel=1e-8, abs=1e-10)
    (fused.pooled.sum() + fused.auxiliary).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


def test_the_full_combination_has_expert_0_and_the_others_take_turns():
    masks = torch.tensor([[True, False, False], [True, True, False], [True, True, True], [False, True, True]])
    assert target_experts(masks, 16).tolist() == [1, 2, 0, 3]
    assert target_experts(masks, 3).tolist() == [1, 2, 0, 1]
    assert target_experts(masks, 2).tolist() == [1, 1, 0, 1]
    assert target_experts(masks, 1).tolist() == [0, 0, 0, 0]
    assert target_experts(masks[:2], 3).tolist() == [1, 2]


def test_a_hundred_combinations_and_four_experts():
    masks = combinations(7)[:100]
    assert not masks.all(1).any()
    assert target_experts(masks, 4).bincount().tolist() == [0, 34, 33, 33]
    rows = tuple(column.nonzero().ravel() for column in masks.T)
    tokens = tuple(Ragged(torch.randn(len(here), 2, DIM).double()) for here in rows)
    fusion = build(Layout((2,) * 7, masks, (1,) * 100), experts=4)
    fused = fusion(Encoded(tokens, rows, masks, torch.arange(100)))
    (fused.pooled.square().sum() + fused.auxiliary).backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    lacking = ~masks.repeat_interleave(2, dim=1)
    assert (fusion.bank.blocks.grad.abs().sum(2) > 0).equal(lacking)  # each block learns where it stands in, only there


def test_more_sure_gates_of_the_right_experts_cost_less():
    case = draw_case(3, 32, 3, DIM, groups=7, only="partial")
    fusion = build(case.layout, experts=7, gate_loss=1.0)

    def cost(shift):
        class Shifted(torch.nn.Module):
            def forward(self, rows):
                gated = fusion_gate(rows)
                hot = torch.nn.functional.one_hot((fusion.expert_of[case.encoded.group] + shift) % 7, 7)
                wanted = hot.repeat_interleave(sum(case.layout.lengths), 0).double()
                return gated._replace(noisy=gated.noisy + 50 * wanted)

        fusion_gate, fusion.gate = fusion.gate, Shifted()
        torch.manual_seed(0)
        loss = fusion(case.encoded).auxiliary.item()
        fusion.gate = fusion_gate
        return loss

    assert (case.encoded.group >= 0).all()
    assert cost(0) < cost(1) - 20


def test_an_unseen_combination_is_filled_by_groups_that_lack_the_modality():
    masks = torch.tensor([[True, True, True], [True, False, False]])
    fusion = build(Layout((1, 2, 1), masks, (9, 1)))
    mask = torch.tensor([[True, True, False]])  # as near to the first as to the second, of which only that learned
    filling = fusion.bank(torch.tensor([-1]), mask)
    assert torch.equal(filling[0, 3], fusion.bank.blocks[1, 3])


def test_the_full_block_of_a_group_that_lacks_nothing_changes_nothing():
    case = draw_case(0, 6, 3, DIM, groups=7, only="full")
    fusion = build(case.layout).eval()
    before = fusion(case.encoded).pooled
    torch.nn.init.normal_(fusion.bank.blocks)
    assert torch.equal(fusion(case.encoded).pooled, before)


@pytest.mark.parametrize("total", [torch.tensor([3.0]), torch.tensor([]), torch.zeros(4), torch.full((4,), 2.5)])
def test_one_expert_none_nothing_and_equal_shares_are_in_balance(total):
    assert cv_of(total).item() == 0


def test_cv_squared_by_hand():
    assert cv_of(torch.tensor([[1.0, 3.0], [0.0, 2.0]])).tolist() == pytest.approx([2 / 4, 2 / 1])


@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (1, 5), (2, 1), (2, 5)])
def test_few_experts_and_none_left_over(experts, top_k):
    case = draw_case(1, 8, 2, DIM, groups=3)
    fused = build(case.layout, experts=experts, top_k=top_k)(case.encoded)
    assert fused.auxiliary.isfinite()
    assert fused.pooled.isfinite().all()
