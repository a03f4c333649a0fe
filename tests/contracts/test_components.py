"""What every encoder, fusion and objective promises. A new one is picked up from its registry by itself."""

import math

import pytest
import torch
from torch import nn

from remind.cohort.batch import Batch, TabularInput, TabularShape
from remind.encoders import ENCODERS
from remind.fusions import FUSIONS
from remind.nn.losses import focal_loss
from remind.objectives import OBJECTIVES
from remind.types import Output, Tokens

DIM = 16


def snapshot(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def assert_unchanged(module, before):
    after = module.state_dict()
    assert after.keys() == before.keys()
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=0, atol=0, equal_nan=True)


def assert_learns(module):
    """Every parameter has a finite gradient, and not one of nothing but zeros."""
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"
        assert parameter.grad.abs().max() > 0, f"{name} has a gradient of zeros"


def tabular_case():
    torch.manual_seed(1)
    inputs = TabularInput(torch.randn(6, 5), torch.rand(6, 5) < 0.7, torch.randint(0, 3, (6, 2)))
    return TabularShape(5, (3, 4)), inputs


CASES = {"tabular": tabular_case, "image": lambda: ((3, 224, 224), torch.randn(2, 3, 224, 224))}


@pytest.fixture
def small_vit(monkeypatch):
    """ViT-B/16's shape of tokens, in miniature: the real one has 86 million weights."""
    from torchvision import models

    def made():
        return models.VisionTransformer(
            image_size=224, patch_size=16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16
        )

    monkeypatch.setattr(models, "vit_b_16", made)
    return made


@pytest.mark.parametrize("name", ENCODERS.names())
def test_every_encoder_learns_is_pure_and_survives_a_round_trip(name, small_vit):
    shape, inputs = CASES[name]()
    torch.manual_seed(0)
    encoder = ENCODERS.build(name, shape, DIM)
    size = len(inputs[0]) if isinstance(inputs, tuple) else len(inputs)
    tokens = encoder(inputs)
    assert tokens.shape == (size, encoder.num_tokens, DIM)
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert_learns(encoder)

    encoder.eval()
    before = snapshot(encoder)
    once, twice = encoder(inputs), encoder(inputs)
    assert torch.equal(once, twice)
    assert_unchanged(encoder, before)

    twin = ENCODERS.build(name, shape, DIM).eval()
    assert not torch.equal(twin(inputs), once)
    twin.load_state_dict(encoder.state_dict())
    assert torch.equal(twin(inputs), once)


def rows(inputs, chosen):
    return type(inputs)(*(part[chosen] for part in inputs)) if isinstance(inputs, tuple) else inputs[chosen]


@pytest.mark.parametrize("name", ENCODERS.names())
def test_every_encoder_takes_no_rows_and_rows_do_not_mix(name, small_vit):
    shape, inputs = CASES[name]()
    encoder = ENCODERS.build(name, shape, DIM).eval()
    together = encoder(inputs)
    assert encoder(rows(inputs, slice(0, 0))).shape == (0, encoder.num_tokens, DIM)
    for i in range(len(together)):
        torch.testing.assert_close(encoder(rows(inputs, slice(i, i + 1)))[0], together[i], rtol=1e-5, atol=1e-6)


def test_the_image_encoder_gives_torchvisions_tokens(small_vit):
    _, images = CASES["image"]()
    encoder = ENCODERS.build("image", (3, 224, 224), 8).eval()  # as wide as the ViT: no projection
    reference = small_vit().eval()
    reference.heads = nn.Identity()
    reference.load_state_dict(encoder.vit.state_dict())
    torch.testing.assert_close(encoder(images)[:, 0], reference(images))


@pytest.mark.parametrize("dim", [768, 128])
def test_the_real_image_encoder_has_vit_b_16s_shape(dim):
    with torch.device("meta"):
        encoder = ENCODERS.build("image", (3, 224, 224), dim)
        assert encoder(torch.empty(2, 3, 224, 224)).shape == (2, 197, dim)
    projection = 0 if dim == 768 else 768 * dim + dim
    head = 768 * 1000 + 1000
    assert sum(p.numel() for p in encoder.parameters()) == 86_567_656 - head + projection  # torchvision's own count


def fusion_case():
    """Five samples of up to six tokens, some collapsed, some padding; the last sample's combination is unseen."""
    torch.manual_seed(2)
    count = torch.tensor(
        [[1, 1, 1, 5, 0, 0], [1, 0, 1, 1, 9, 0], [1, 1, 1, 1, 1, 1], [0, 0, 7, 0, 0, 0], [1, 1, 0, 0, 0, 2]]
    )
    return Tokens(torch.randn(5, 6, DIM), count.float().log()), torch.tensor([0, 1, 2, 0, -1])


@pytest.mark.parametrize("name", FUSIONS.names())
def test_every_fusion_learns_is_pure_and_survives_a_round_trip(name):
    tokens, group = fusion_case()
    torch.manual_seed(0)
    fusion = FUSIONS.build(name, DIM, 3)
    fusion.specialise()
    fused = fusion(tokens, group)
    assert fused.pooled.shape == (5, DIM)
    assert fused.routing.dispatch.shape == fused.routing.combine.shape == (5, 6, 32, 1)
    (fused.pooled * torch.randn_like(fused.pooled)).sum().backward()
    assert_learns(fusion)
    fusion.after_step(fused)

    fusion.eval()
    before = snapshot(fusion)
    once, twice = fusion(tokens, group), fusion(tokens, group)
    assert torch.equal(once.pooled, twice.pooled)
    assert all(torch.equal(a, b) for a, b in zip(once.routing, twice.routing, strict=True))
    assert_unchanged(fusion, before)

    twin = FUSIONS.build(name, DIM, 3).eval()
    assert not torch.equal(twin(tokens, group).pooled, once.pooled)
    twin.load_state_dict(fusion.state_dict())
    assert torch.equal(twin(tokens, group).pooled, once.pooled)
    assert all(torch.equal(a, b) for a, b in zip(twin(tokens, group).routing, once.routing, strict=True))


@pytest.mark.parametrize("name", FUSIONS.names())
def test_every_fusion_runs_in_bf16_near_what_it_gives_in_float32(name):
    tokens, group = fusion_case()
    torch.manual_seed(0)
    fusion = FUSIONS.build(name, DIM, 3)
    fusion.specialise()
    exact = fusion(tokens, group).pooled.detach()
    with torch.autocast("cpu", torch.bfloat16):
        rough = fusion(tokens, group).pooled
        loss = rough.float().square().sum()
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05)
    loss.backward()
    assert_learns(fusion)


@pytest.mark.parametrize("name", FUSIONS.names())
def test_every_fusion_lets_no_sample_see_another(name):
    tokens, group = fusion_case()
    fusion = FUSIONS.build(name, DIM, 3).eval()
    fusion.specialise()
    together = fusion(tokens, group)
    for i in range(len(group)):
        used = tokens.log_count[i] > -math.inf
        alone = fusion(Tokens(tokens.values[i : i + 1, used], tokens.log_count[i : i + 1, used]), group[i : i + 1])
        torch.testing.assert_close(alone.pooled[0], together.pooled[i], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(alone.routing.uncertainty[0], together.routing.uncertainty[i], rtol=1e-5, atol=1e-6)


class Scores(nn.Module):
    """A model with a row of logits for each row of the cohort."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.randn(9, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, batch):
        return Output(self.logits[batch.row], None)


def batch_of(chosen):
    rows = torch.tensor(chosen)
    return Batch({}, torch.ones(len(rows), 1, dtype=torch.bool), rows % 4, rows % 3, rows)


def criterion(logits, target):
    return focal_loss(logits, target, gamma=2.0)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_every_objective_learns_is_pure_and_survives_a_round_trip(name):
    counts = torch.tensor([40, 20, 9, 1])
    objective, model = OBJECTIVES.build(name, counts, criterion), Scores()
    loss = objective(model, batch_of(range(9)))
    assert loss.total.shape == ()
    torch.testing.assert_close(loss.per_sample, criterion(model.logits, torch.arange(9) % 3))
    assert torch.equal(loss.output.logits, model.logits)
    loss.total.backward()
    assert_learns(model)
    assert (model.logits.grad.abs().amax(1) > 0).all()  # every sample of the batch counts

    steps = [[0, 1, 2, 3], [4, 4, 8], [5], [7, 6, 2]] * 8
    for chosen in steps[:13]:
        objective.after_step(batch_of(chosen), objective(model, batch_of(chosen)))
    before = snapshot(objective)
    assert torch.equal(objective(model, batch_of(range(9))).total, objective(model, batch_of(range(9))).total)
    assert_unchanged(objective, before)

    twin = OBJECTIVES.build(name, counts, criterion)
    twin.load_state_dict(objective.state_dict())
    for chosen in steps[13:]:
        ours, theirs = objective(model, batch_of(chosen)), twin(model, batch_of(chosen))
        assert torch.equal(ours.total, theirs.total)
        objective.after_step(batch_of(chosen), ours)
        twin.after_step(batch_of(chosen), theirs)
    assert_unchanged(twin, snapshot(objective))
    if (weights := objective.group_weights()) is not None:
        assert weights.sum().item() == pytest.approx(1)
        assert weights.min() >= 0
        assert not torch.equal(weights, OBJECTIVES.build(name, counts, criterion).group_weights())
