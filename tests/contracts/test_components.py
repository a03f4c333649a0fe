"""What every encoder, fusion and objective promises. A new one is picked up from its registry by itself."""

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from remind.cohort.batch import Batch
from remind.encoders import ENCODERS, features
from remind.fusions import FUSIONS
from remind.modalities.embedding import EmbeddingShape
from remind.modalities.sequence import SequenceInput, SequenceShape
from remind.modalities.tabular import TabularInput, TabularShape
from remind.modalities.text import TextInput, TextShape
from remind.modalities.volume import VolumeShape
from remind.nn.losses import focal_loss
from remind.nn.tokens import lengths_of
from remind.objectives import OBJECTIVES
from remind.pretrained import T5_RANDOM
from remind.types import Encoded, Fused, Layout, Output, Ragged, Tokens

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


class Case(NamedTuple):
    """An encoder in miniature, and inputs for it."""

    kind: str
    shape: Any
    inputs: Any
    settings: dict[str, Any] = {}

    def build(self):
        return ENCODERS.build(self.kind, self.shape, DIM, **self.settings)

    def rows(self, chosen):
        inputs = self.inputs
        return type(inputs)(*(part[chosen] for part in inputs)) if isinstance(inputs, tuple) else inputs[chosen]

    def __len__(self):
        return len(self.inputs[0]) if isinstance(self.inputs, tuple) else len(self.inputs)


def cases():
    random = torch.Generator().manual_seed(1)

    def normal(*size):
        return torch.randn(size, generator=random)

    def integers(below, *size):
        return torch.randint(below, size, generator=random)

    table = TabularInput(normal(6, 5), integers(10, 6, 5) < 7, integers(3, 6, 2))
    config = {**T5_RANDOM, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_heads": 2}
    text = TextInput(integers(256, 4, 7), torch.tensor([7, 1, 4, 2]))
    events = SequenceInput(normal(4, 6), integers(5, 4, 6), normal(4, 6), torch.tensor([2, 6, 1, 3]))
    untrained = {"weights": "random"}
    return {
        "tabular": Case("tabular", TabularShape(5, (3, 4)), table),
        "image": Case("image", 224, normal(2, 3, 224, 224), untrained),
        "image pooled": Case("image", 224, normal(2, 3, 224, 224), {**untrained, "tokens": 6}),
        "image resnet": Case("image", 40, normal(3, 3, 40, 40), {**untrained, "backbone": "resnet50", "tokens": 2}),
        "volume": Case("volume", VolumeShape(8, 32), normal(3, 3, 8, 32, 32), {**untrained, "tokens": 2}),
        "text": Case("text", TextShape(config, 7), text, untrained),
        "text pooled": Case("text", TextShape(config, 7), text, {**untrained, "tokens": 3}),
        "sequence": Case("sequence", SequenceShape(5), events, {"width": 8, "heads": 2}),
        "embedding": Case("embedding", EmbeddingShape(5, 12), Ragged(normal(3, 5, 12), torch.tensor([5, 1, 3]))),
    }


CASES = cases()


@pytest.fixture
def small(monkeypatch):
    """torchvision's architectures in miniature: the real ViT has 86 million weights."""
    from torchvision import models
    from torchvision.models import video

    def small_vit():
        return models.VisionTransformer(
            image_size=224, patch_size=16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16
        )

    def small_resnet(zero_init_residual=False):
        return models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1])

    def small_r3d():
        parts = video.resnet
        return parts.VideoResNet(parts.BasicBlock, [parts.Conv3DSimple] * 4, [1, 1, 1, 1], parts.BasicStem)

    monkeypatch.setattr(models, "vit_b_16", small_vit)
    monkeypatch.setattr(models, "resnet50", small_resnet)
    monkeypatch.setattr(video, "r3d_18", small_r3d)


def test_every_kind_has_a_case():
    assert {case.kind for case in CASES.values()} == set(ENCODERS.names())


def assert_same(ours, theirs):
    assert torch.equal(ours.values, theirs.values)
    assert torch.equal(lengths_of(ours), lengths_of(theirs))


@pytest.mark.parametrize("name", CASES)
def test_every_encoder_learns_is_pure_and_survives_a_round_trip(name, small):
    case = CASES[name]
    torch.manual_seed(0)
    encoder = case.build()
    for parameter in encoder.parameters():
        if not parameter.any():  # a branch that begins at zero passes no gradient on yet
            nn.init.normal_(parameter)
    tokens = encoder(case.inputs)
    assert tokens.values.shape == (len(case), encoder.num_tokens, DIM)
    assert lengths_of(tokens).max() == encoder.num_tokens
    (tokens.values * torch.randn_like(tokens.values)).sum().backward()
    assert_learns(encoder)

    encoder.eval()
    before = snapshot(encoder)
    once, twice = encoder(case.inputs), encoder(case.inputs)
    assert_same(once, twice)
    assert_unchanged(encoder, before)

    twin = case.build().eval()
    assert not torch.equal(twin(case.inputs).values, once.values)
    twin.load_state_dict(encoder.state_dict())
    assert_same(twin(case.inputs), once)


@pytest.mark.parametrize("name", CASES)
def test_every_encoder_takes_no_rows_and_rows_do_not_mix(name, small):
    case = CASES[name]
    encoder = case.build()
    nothing = encoder(case.rows(slice(0, 0)))
    assert (len(nothing.values), nothing.values.shape[2]) == (0, DIM)
    assert len(lengths_of(nothing)) == 0
    nothing.values.sum().backward()

    encoder.eval()
    together = encoder(case.inputs)
    for i, length in enumerate(lengths_of(together).tolist()):
        alone = encoder(case.rows(slice(i, i + 1)))
        assert lengths_of(alone).tolist() == [length]
        torch.testing.assert_close(alone.values[0, :length], together.values[i, :length], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kind not in ("tabular", "embedding")])
def test_every_encoder_takes_its_backbones_features_for_its_inputs(name, small):
    case = CASES[name]
    encoder = case.build().eval()
    kept = features(encoder.backbone, case.inputs)
    assert kept.values.shape == (len(case), encoder.backbone.num_tokens, encoder.backbone.width)
    assert_same(encoder(kept), encoder(case.inputs))


@pytest.mark.parametrize("name", CASES)
def test_every_encoder_is_laid_out_without_numbers_nor_pretrained_weights(name):
    case = CASES[name]
    with torch.device("meta"):
        encoder = ENCODERS.build(
            case.kind, case.shape, DIM, **{k: v for k, v in case.settings.items() if k != "weights"}
        )
    assert all(parameter.is_meta for parameter in encoder.parameters())


@pytest.mark.parametrize("dim", [768, 128])
def test_the_real_image_encoder_has_vit_b_16s_shape(dim):
    with torch.device("meta"):
        encoder = ENCODERS.build("image", 224, dim)
        assert encoder(torch.empty(2, 3, 224, 224)).values.shape == (2, 197, dim)
    projection = 0 if dim == 768 else 768 * dim + dim
    head = 768 * 1000 + 1000
    assert sum(p.numel() for p in encoder.parameters()) == 86_567_656 - head + projection  # torchvision's own count


LAYOUT = Layout(
    (2, 3, 1),
    torch.tensor([[True, False, True], [True, True, False], [True, True, True]]),
    (50, 30, 20),
)
HELD = [[0, 2], [0, 1], [0, 1, 2], [0, 2], [1], [0, 1, 2]]  # by sample; the last but one's combination is unseen
GROUP = torch.tensor([0, 1, 2, 0, -1, 2])


def encoded(samples):
    """Some of six samples of up to six tokens, some of them padding."""
    random = torch.Generator().manual_seed(2)
    content = torch.randn(6, 3, 3, DIM, generator=random)
    length = torch.tensor([[2, 0, 1], [2, 3, 0], [2, 1, 1], [2, 0, 1], [0, 2, 0], [2, 3, 1]])
    tokens, rows, available = [], [], torch.zeros(len(samples), 3, dtype=torch.bool)
    for place, longest in enumerate(LAYOUT.lengths):
        having = [row for row, sample in enumerate(samples) if place in HELD[sample]]
        which = torch.tensor([samples[row] for row in having], dtype=torch.int64)
        rows.append(torch.tensor(having, dtype=torch.int64))
        tokens.append(Ragged(content[which, place, :longest], length[which, place] if place == 1 else None))
        available[rows[-1], place] = True
    return Encoded(tuple(tokens), tuple(rows), available, GROUP[samples])


ALL = list(range(6))


def objective_of(fused):
    """A loss to which everything pooled counts, and the fusion's own where it has one."""
    weight = torch.randn(fused.pooled.shape, generator=torch.Generator().manual_seed(3))
    loss = (fused.pooled.float() * weight).sum()
    return loss if fused.auxiliary is None else loss + fused.auxiliary


def assert_same_fused(ours, theirs):
    assert torch.equal(ours.pooled, theirs.pooled)
    for a, b in zip(ours.routing, theirs.routing, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def build_fusion(name):
    fusion = FUSIONS.build(name, DIM, LAYOUT)
    fusion.specialise()
    return fusion


@pytest.mark.parametrize("name", FUSIONS.names())
def test_every_fusion_learns_is_pure_and_survives_a_round_trip(name):
    torch.manual_seed(0)
    fusion = build_fusion(name)
    fused = fusion(encoded(ALL))
    assert fused.pooled.shape == (6, fusion.width)
    combine, uncertainty = fused.routing.combine, fused.routing.uncertainty
    assert fused.routing.dispatch is None or fused.routing.dispatch.shape == combine.shape
    sums = combine.detach().sum((2, 3))
    assert torch.minimum(sums, (sums - 1).abs()).max() < 1e-5  # a row is routed, or is not there
    assert not uncertainty.requires_grad
    assert 0 <= uncertainty.min() <= uncertainty.max() <= 1 + 1e-6
    objective_of(fused).backward()
    assert_learns(fusion)
    fusion.after_step(fused)

    fusion.eval()
    before = snapshot(fusion)
    once, twice = fusion(encoded(ALL)), fusion(encoded(ALL))
    assert_same_fused(once, twice)
    assert once.auxiliary is None
    assert_unchanged(fusion, before)

    twin = FUSIONS.build(name, DIM, LAYOUT).eval()
    assert not torch.equal(twin(encoded(ALL)).pooled, once.pooled)
    twin.load_state_dict(fusion.state_dict())
    assert_same_fused(twin(encoded(ALL)), once)


@pytest.mark.parametrize("name", FUSIONS.names())
def test_every_fusion_runs_in_bf16_near_what_it_gives_in_float32(name):
    torch.manual_seed(0)
    fusion = build_fusion(name).eval()
    exact = fusion(encoded(ALL)).pooled.detach()
    with torch.autocast("cpu", torch.bfloat16):
        rough = fusion(encoded(ALL)).pooled
        loss = objective_of(fusion.train()(encoded(ALL)))
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05)
    loss.backward()
    assert_learns(fusion)


@pytest.mark.parametrize("name", FUSIONS.names())
@pytest.mark.parametrize("samples", [[0], [1], [2], [3], [4], [5], [5, 3, 4, 0, 2, 1], [4, 4, 0]])
def test_every_fusion_lets_no_sample_see_another_nor_its_place(name, samples):
    torch.manual_seed(0)
    fusion = build_fusion(name).eval()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.2)
    together, some = fusion(encoded(ALL)), fusion(encoded(samples))
    torch.testing.assert_close(some.pooled, together.pooled[samples], rtol=1e-5, atol=1e-5)
    ours, theirs = some.routing, together.routing
    torch.testing.assert_close(ours.uncertainty, theirs.uncertainty[samples], rtol=1e-5, atol=1e-6)
    assert ours.opened.equal(theirs.opened[samples])


@pytest.mark.parametrize("name", FUSIONS.names())
def test_no_fusion_reads_what_is_stored_in_padding(name):
    torch.manual_seed(0)
    fusion, clean = build_fusion(name).eval(), encoded(ALL)
    padded, length = clean.tokens[1]
    beyond = torch.arange(3) >= length[:, None]
    dirty = Ragged(padded.masked_fill(beyond[..., None], math.nan), length)
    assert beyond.any()
    assert_same_fused(fusion(clean._replace(tokens=(clean.tokens[0], dirty, clean.tokens[2]))), fusion(clean))


@pytest.mark.parametrize("name", FUSIONS.names())
def test_every_fusion_takes_a_single_modality(name):
    fusion = FUSIONS.build(name, DIM, Layout((2,), torch.ones(1, 1, dtype=torch.bool), (100,)))
    alone = Encoded(
        (Ragged(torch.randn(4, 2, DIM)),),
        (torch.arange(4),),
        torch.ones(4, 1).bool(),
        torch.zeros(4, dtype=torch.int64),
    )
    fused = fusion(alone)
    objective_of(fused).backward()
    assert fused.pooled.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


class Rows(nn.Module):
    """A fusion of samples of one token, which it gives back."""

    def forward(self, encoded):
        return self.fuse(self.broadcast(encoded), encoded.group)

    def broadcast(self, encoded):
        return Tokens(encoded.tokens[0].values, torch.zeros(encoded.tokens[0].values.shape[:2]))

    def fuse(self, tokens, group):
        return Fused(tokens.values[:, 0], None)


class Scores(nn.Module):
    """A model with a row of logits for each row of the cohort."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.randn(9, 3, generator=torch.Generator().manual_seed(0)))
        self.fusion = Rows()

    def encode(self, batch):
        return Encoded((Ragged(self.logits[batch.row][:, None]),), (batch.row,), batch.available, batch.group)

    def classify(self, fused):
        return Output(fused.pooled, fused)

    def forward(self, batch):
        return self.classify(self.fusion(self.encode(batch)))


def batch_of(chosen):
    rows = torch.tensor(chosen)
    return Batch({}, torch.ones(len(rows), 1, dtype=torch.bool), rows % 4, rows % 3, rows)


def criterion(logits, target):
    return focal_loss(logits, target, gamma=2.0)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_every_objective_learns_is_pure_and_survives_a_round_trip(name):
    counts = torch.tensor([[20, 15, 5], [5, 5, 10], [3, 6, 0], [0, 0, 1]])
    objective, model = OBJECTIVES.build(name, counts, criterion), Scores()
    fresh = snapshot(objective)

    def loss_of(objective, chosen):
        torch.manual_seed(len(chosen))  # what an objective draws, it draws from torch's own stream
        return objective(model, batch_of(chosen))

    loss = loss_of(objective, range(9))
    assert loss.total.shape == ()
    torch.testing.assert_close(loss.per_sample, criterion(model.logits, torch.arange(9) % 3))
    assert torch.equal(loss.output.logits, model.logits)
    loss.total.backward()
    assert_learns(model)
    assert (model.logits.grad.abs().amax(1) > 0).all()  # every sample of the batch counts

    def train(*objectives, steps):
        for step, chosen in enumerate(steps, start=1):
            losses = [loss_of(objective, chosen) for objective in objectives]
            assert all(torch.equal(losses[0].total, other.total) for other in losses)
            for objective, loss in zip(objectives, losses, strict=True):
                objective.after_step(batch_of(chosen), loss)
                if step % 5 == 0:
                    objective.after_epoch()

    steps = [[0, 1, 2, 3], [4, 4, 8], [5], [7, 6, 2]] * 8
    train(objective, steps=steps[:13])
    before = snapshot(objective)
    assert torch.equal(loss_of(objective, range(9)).total, loss_of(objective, range(9)).total)
    assert_unchanged(objective, before)

    twin = OBJECTIVES.build(name, counts, criterion)
    twin.load_state_dict(objective.state_dict())
    train(objective, twin, steps=steps[13:])
    assert_unchanged(twin, snapshot(objective))
    assert not fresh or any(not torch.equal(value, fresh[key]) for key, value in snapshot(objective).items())
    if (weights := objective.group_weights()) is not None:
        assert weights.shape == (4,)
        assert weights.sum().item() == pytest.approx(1)
        assert weights.min() >= 0
    if (shares := objective.batch_shares()) is not None:
        assert shares.shape == counts.shape
        assert shares.sum().item() == pytest.approx(1)
        assert shares.min() >= 0
        assert (shares[counts == 0] == 0).all()
