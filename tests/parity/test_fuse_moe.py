"""FuseMoE against loops over samples, modalities, tokens and experts; and its odd cases."""

from itertools import pairwise

import by_hand
import pytest
import torch
from by_hand import combinations, cv_squared, draw_case, observed, randomise
from hypothesis import given, settings
from hypothesis import strategies as st

from remind.fusions.fuse_moe import FuseMoEFusion
from remind.types import Encoded, Layout, Ragged

DIM = 4
KINDS = ["softmax", "laplace", "gaussian"]
ROUTERS = ["permod", "joint", "disjoint"]
few = settings(deadline=None, max_examples=12)
SIZES = {
    "seed": st.integers(0, 2**31),
    "batch": st.integers(1, 4),
    "modalities": st.integers(1, 3),
    "experts": st.integers(1, 7),
    "top_k": st.integers(1, 4),
    "layers": st.integers(1, 2),
    "only": st.sampled_from([None, "full", "partial"]),
}
both = pytest.mark.parametrize("router", ROUTERS)
every = pytest.mark.parametrize("kind", KINDS)


def build(layout, **settings):
    return randomise(FuseMoEFusion(DIM, layout, **{"heads": 2, "hidden": 3, "dropout": 0.0, **settings}).double())


def network(made, x):
    """Two layers and a ReLU, of one vector."""
    hidden = [max(value, 0.0) for value in (made[0].weight @ x + made[0].bias).tolist()]
    return made[-1].weight @ torch.tensor(hidden, dtype=x.dtype) + made[-1].bias


class ByHand:
    """One forward pass; ``noise`` gives the standard normals of a block's router, a row for each it routes."""

    def __init__(self, fusion, case, router, kind, top_k, experts, noise=None):
        self.fusion, self.encoded, self.router, self.kind, self.noise = fusion, case.encoded, router, kind, noise
        self.modalities = len(case.layout.lengths)
        self.own = max(experts // self.modalities, 1) if router == "disjoint" else experts
        self.kept = min(top_k, self.own)
        self.batch = range(len(case.encoded.available))
        self.balance = 0.0

    @torch.no_grad()
    def run(self):
        streams = {
            (i, j): observed(self.encoded, i, j) + self.fusion.kinds[j]
            for i in self.batch
            for j in range(self.modalities)
            if self.encoded.available[i, j]
        }
        for number, block in enumerate(self.fusion.blocks):
            streams = self.block(number, block, streams)
        pooled = []
        for i in self.batch:
            x = torch.cat([streams[i, j].mean(0) if (i, j) in streams else torch.zeros(DIM) for j in self.places])
            pooled.append(x + network(self.fusion.residual, x))
        return torch.stack(pooled)

    @property
    def places(self):
        return range(self.modalities)

    def block(self, number, block, streams):
        attended, rows = {}, {}
        for (i, j), x in streams.items():
            normed = torch.stack([by_hand.norm(block.attention_norms[j], token) for token in x])
            attended[i, j] = x + by_hand.attend(block.attentions[j], normed)
            rows[i, j] = by_hand.norm(block.exchange.norms[j], attended[i, j].mean(0))
        told = self.exchange(number, block.exchange, rows)
        out = {}
        for (i, j), x in attended.items():
            heard = x + told[i][j * DIM : (j + 1) * DIM]
            norm, made = block.networks[j]
            out[i, j] = torch.stack([token + network(made, by_hand.norm(norm, token)) for token in heard])
        return out

    def exchange(self, number, layer, rows):
        """What each sample's modalities are told, side by side; and the gates by sample and router."""
        if self.router == "joint":
            zeros = torch.zeros(DIM).double()
            rows = {(i, 0): torch.cat([rows.get((i, j), zeros) for j in self.places]) for i in self.batch}
        told, self.gates = [torch.zeros(self.modalities * DIM).double() for _ in self.batch], {}
        for j, router in enumerate(layer.gates):
            here = [i for i in self.encoded.rows[j].tolist() if (i, j) in rows]
            here = list(self.batch) if self.router == "joint" else here
            for n, i in enumerate(here):
                drawn = None if self.noise is None else self.noise[number][j][n]
                self.gates[i, j] = gate = by_hand.gate(router, self.kind, self.kept, rows[i, j], drawn)
                for e, weight in enumerate(gate.weights):
                    number_of_expert = e + (j * self.own if self.router == "disjoint" else 0)
                    told[i] += weight * by_hand.expert(layer.moe.experts, number_of_expert, rows[i, j])
            for name in ("weights", "chance"):
                shares = [getattr(self.gates[i, j], name) for i in here]
                self.balance += cv_squared(shares, range(self.own))
        return told


def limited(modalities, only):
    return None if modalities == 1 and only == "partial" else only


@both
@every
@few
@given(**SIZES)
def test_fuse_moe_equals_the_loops_in_evaluation(router, kind, seed, batch, modalities, experts, top_k, layers, only):
    case = draw_case(seed, batch, modalities, DIM, only=limited(modalities, only))
    fusion = build(case.layout, experts=experts, top_k=top_k, router=router, gate=kind, layers=layers).eval()
    fused = fusion(case.encoded)
    slow = ByHand(fusion, case, router, kind, top_k, experts)
    torch.testing.assert_close(fused.pooled, slow.run(), rtol=1e-9, atol=1e-9)
    routers = 1 if router == "joint" else modalities
    combine = torch.zeros(batch, routers, slow.own * (routers if router == "disjoint" else 1), 1).double()
    for (i, j), gate in slow.gates.items():
        first = j * slow.own if router == "disjoint" else 0
        combine[i, j, first : first + slow.own, 0] = torch.tensor(gate.weights, dtype=torch.float64)
    torch.testing.assert_close(fused.routing.combine, combine, rtol=1e-9, atol=1e-9)
    for i in range(batch):
        unsure = [by_hand.entropy(gate.clean) for (sample, _), gate in slow.gates.items() if sample == i]
        assert fused.routing.uncertainty[i].item() == pytest.approx(sum(unsure) / len(unsure), rel=1e-8, abs=1e-9)
    assert fused.routing.dispatch is None
    assert not fused.routing.opened.any()
    assert fused.auxiliary is None


@both
@every
@few
@given(**SIZES)
def test_fuse_moe_equals_the_loops_in_training_noise_and_balance(
    router, kind, seed, batch, modalities, experts, top_k, layers, only
):
    case = draw_case(seed, batch, modalities, DIM, only=limited(modalities, only))
    settings = {"experts": experts, "top_k": top_k, "router": router, "gate": kind, "layers": layers}
    fusion = build(case.layout, **settings, balance=0.25).train()
    torch.manual_seed(seed)
    fused = fusion(case.encoded)
    torch.manual_seed(seed)
    slow = ByHand(fusion, case, router, kind, top_k, experts)
    rows = [torch.arange(batch)] if router == "joint" else case.encoded.rows
    slow.noise = [[torch.randn(len(here), slow.own, dtype=torch.float64) for here in rows] for _ in range(layers)]
    torch.testing.assert_close(fused.pooled, slow.run(), rtol=1e-9, atol=1e-9)
    assert fused.auxiliary.item() == pytest.approx(0.25 * slow.balance, rel=1e-8, abs=1e-10)
    (fused.pooled.sum() + fused.auxiliary).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


@both
@every
def test_every_weight_learns_also_in_a_hundred_combinations_and_four_experts(router, kind):
    torch.manual_seed(0)
    masks = combinations(7)[:100]
    rows = tuple(column.nonzero().ravel() for column in masks.T)
    tokens = tuple(Ragged(torch.randn(len(here), 2, DIM).double()) for here in rows)
    layout = Layout((2,) * 7, masks, (1,) * 100)
    fusion = build(layout, experts=14 if router == "disjoint" else 4, router=router, gate=kind)
    fused = fusion(Encoded(tokens, rows, masks, torch.arange(100)))
    (fused.pooled.square().sum() + fused.auxiliary).backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert {"gates.0.experts", "gates.0.noise"} <= fusion.blocks[0].exchange.state_dict().keys()


@both
def test_a_modality_that_a_sample_lacks_is_zeros_before_the_last_network(router):
    case = draw_case(5, 6, 3, DIM, only="partial")
    fusion = build(case.layout, router=router).eval()
    with torch.no_grad():
        fusion.residual[-1].weight.zero_(), fusion.residual[-1].bias.zero_()
    parts = fusion(case.encoded).pooled.view(6, 3, DIM)
    assert (parts != 0).any(2).equal(case.encoded.available)


def test_a_modality_that_nobody_has_is_no_trouble():
    case = draw_case(2, 6, 2, DIM)
    nobody = torch.empty(0, dtype=torch.int64)
    encoded = Encoded(
        (
            case.encoded.tokens[0]._replace(values=torch.randn(6, 2, DIM).double(), length=None),
            Ragged(torch.empty(0, 1, DIM).double()),
        ),
        (torch.arange(6), nobody),
        torch.tensor([[True, False]]).expand(6, 2),
        torch.zeros(6, dtype=torch.int64),
    )
    for router in ROUTERS:
        fusion = build(case.layout, router=router)
        fused = fusion(encoded)
        (fused.pooled.sum() + fused.auxiliary).backward()
        assert fused.pooled.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


def test_an_expert_at_embeds_size_is_of_a_size_to_train():
    with torch.device("meta"):
        layout = Layout((197,) * 4, torch.ones(1, 4, dtype=torch.bool), (1,))
        held = FuseMoEFusion(768, layout, experts=128).blocks[0].exchange.moe.experts
    sizes = [768, 4 * 768, 4 * 768]
    assert sum(p.numel() for p in held.parameters()) == 128 * sum(a * b + b for a, b in pairwise(sizes))
