"""Gradients of single samples: inner products from one pass, against the Jacobian row by row in float64."""

import pytest
import torch
from by_hand import draw_case, randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from remind.fusions import FUSIONS
from remind.nn.gradient_gram import RULES, gradient_gram, plain_gram, weighted_direction

few = settings(deadline=None, max_examples=12)
DIM = 8
VARIANTS = {
    "soft_moe": {},
    "soft_moe, two slots": {"slots": 2},
    "soft_moe, B_k": {"imputation": "group"},
    "soft_moe, nothing for what is missing": {"imputation": "none"},
    "remind": {"gate": "always"},
    "remind, two slots": {"gate": "always", "slots": 2},
    "remind, gate half open": {"gate": "joint"},
    "remind, gate shut": {"gate": "off"},
    "remind, rare groups": {"gate": "always", "min_count": 30},
    "remind, one group": {"gate": "always", "min_count": 1000},
}


def made(variant, layout):
    name = variant.split(",")[0]
    fusion = FUSIONS.build(name, DIM, layout, experts=3, heads=2, router_scale=2.0, **VARIANTS[variant])
    randomise(fusion).double().eval()
    if name == "remind":
        fusion.specialise()
    return fusion


def losses_of(fusion, encoded):
    head = randomise(nn.Linear(fusion.width, 3)).double()
    target = torch.randint(3, (len(encoded.group),))
    return lambda: F.cross_entropy(head(fusion(encoded).pooled), target, reduction="none")


def jacobian(parameters, losses):
    """One backward pass a sample."""
    rows = []
    for loss in losses():
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([part.flatten() for part in found]))
    return torch.stack(rows)


@pytest.mark.parametrize("variant", VARIANTS)
@few
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 9), modalities=st.integers(1, 4))
def test_the_gram_matrix_is_the_dense_jacobians(variant, seed, batch, modalities):
    case = draw_case(seed, batch, modalities, DIM)
    fusion = made(variant, case.layout)
    losses = losses_of(fusion, case.encoded)
    if variant == "remind, gate half open":
        with torch.no_grad():
            fusion.router.gate.threshold.copy_(fusion(case.encoded).routing.uncertainty.median())
    rows = jacobian(list(fusion.parameters()), losses)
    torch.testing.assert_close(gradient_gram(fusion, losses), rows @ rows.T, rtol=1e-8, atol=1e-8)


def test_a_gate_half_open_is_open_for_some_and_shut_for_others():
    """What the variant above is to be a test of."""
    case = draw_case(3, 9, 3, DIM)
    fusion = made("remind, gate half open", case.layout)
    with torch.no_grad():
        fusion.router.gate.threshold.copy_(fusion(case.encoded).routing.uncertainty.median())
        opened = fusion(case.encoded).routing.opened
    assert 0 < opened.sum() < (fusion.own[case.encoded.group] >= 0).sum()


@pytest.mark.parametrize("name", FUSIONS.names())
@few
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 5))
def test_backward_passes_side_by_side_say_the_same_of_every_fusion(name, seed, batch):
    case = draw_case(seed, batch, 3, DIM)
    fusion = randomise(FUSIONS.build(name, DIM, case.layout, experts=4, heads=2)).double().eval()
    losses = losses_of(fusion, case.encoded)
    rows = jacobian(list(fusion.parameters()), losses)
    torch.testing.assert_close(plain_gram(fusion, losses), rows @ rows.T, rtol=1e-8, atol=1e-8)


@few
@given(seed=st.integers(0, 2**31))
def test_a_weighted_backward_pass_is_the_weighted_sum_of_the_jacobians_rows(seed):
    case = draw_case(seed, 5, 3, DIM)
    fusion = made("remind", case.layout)
    losses, weights = losses_of(fusion, case.encoded), torch.randn(5).double()
    rows = jacobian(list(fusion.parameters()), losses)
    found = weighted_direction(fusion.parameters(), losses(), weights)
    torch.testing.assert_close(found, weights @ rows, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("places", [1, 2, 40])
@pytest.mark.parametrize("cells", [1, 2**22])
def test_products_by_pairs_and_by_gradients_and_in_pieces_are_the_same(places, cells, monkeypatch):
    monkeypatch.setattr("remind.nn.gradient_gram._CELLS", cells)
    torch.manual_seed(0)
    layer, x = nn.Linear(7, 5).double(), torch.randn(6, places, 7).double()
    losses = lambda: layer(x).square().sum((1, 2))  # noqa: E731
    rows = jacobian(list(layer.parameters()), losses)
    torch.testing.assert_close(gradient_gram(layer, losses), rows @ rows.T, rtol=1e-10, atol=1e-10)


def test_gradients_of_parameters_are_left_alone():
    case = draw_case(0, 4, 3, DIM)
    fusion = made("remind", case.layout)
    gradient_gram(fusion, losses_of(fusion, case.encoded))
    assert all(parameter.grad is None for parameter in fusion.parameters())
    assert not any(module._forward_hooks for module in fusion.modules())


def test_a_layer_without_a_rule_is_an_error_and_no_wrong_number():
    layer = nn.Sequential(nn.Linear(3, 3), nn.Conv1d(3, 3, 1))
    with pytest.raises(ValueError, match="Conv1d"):
        gradient_gram(layer, lambda: layer(torch.randn(2, 3, 3)).sum((1, 2)))
    assert nn.Conv1d not in RULES
