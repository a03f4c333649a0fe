"""The paper's recipes: models of its sizes, on tensors without numbers, and every method trained on small releases."""

import pytest
import torch
from mimic import crowd
from releases import retina, screening
from torch import nn

from remind.api import fit
from remind.cohort.cohort import load
from remind.config import load_recipe
from remind.encoders import ENCODERS
from remind.fusions import FUSIONS
from remind.methods import METHODS
from remind.modalities.tabular import TabularShape
from remind.modalities.text import TextShape
from remind.modalities.volume import VolumeShape
from remind.model import Model
from remind.sources import embed, fprm, mimic_iv
from remind.types import Layout

T5_BASE = {
    "vocab_size": 32128,
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 3072,
    "num_layers": 12,
    "num_heads": 12,
    "feed_forward_proj": "relu",
    "dropout_rate": 0.1,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "initializer_factor": 1.0,
}
PAPER = {  # a recipe's modalities, its classes, and the size of its encoders
    "embed": ([("image", 224)] * 4, 4, 4 * 85.8e6),
    "mimic-iv": ([("text", TextShape(T5_BASE, 512))] * 3, 2, 3 * 109.6e6),
    "fprm": (
        [("image", 224), ("volume", VolumeShape(16, 224)), ("image", 224), ("tabular", TabularShape(64, ()))],
        3,
        2 * 24.6e6 + 33.5e6,
    ),
}
TINY = (
    *("model.dim=16", "model.experts=4", "model.heads=2", "train.epochs=2", "train.batch_size=8", "train.device=cpu"),
    *("train.threads=1", "encoders.text.weights=random", "encoders.text.limit=24"),
    *("encoders.image.backbone=resnet50", "encoders.image.weights=random", "encoders.image.size=33"),
    *("encoders.image.tokens=1", "encoders.volume.weights=random", "encoders.volume.size=17"),
    *(
        "encoders.volume.frames=2",
        "encoders.volume.tokens=1",
        "encoders.sequence.width=16",
        "encoders.sequence.layers=1",
    ),
)


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("method", ["soft-moe", "remind"])
def test_a_recipe_makes_the_papers_model(name, method, monkeypatch):
    monkeypatch.setattr("remind.encoders.text.load_t5", lambda model, weights: None)  # a name on the hub
    recipe, (kinds, classes, size) = load_recipe(name, method=method), PAPER[name]
    with torch.device("meta"):
        encoders = [
            ENCODERS.build(kind, shape, recipe.model.dim, **recipe.encoder_settings("", kind)) for kind, shape in kinds
        ]
        layout = Layout(
            tuple(encoder.num_tokens for encoder in encoders), torch.zeros(6, len(kinds), dtype=torch.bool), (100,) * 6
        )
        fusion = FUSIONS.build(
            METHODS[method].fusion, recipe.model.dim, layout, **recipe.fusion_settings(METHODS[method].fusion)
        )
        model = Model([str(place) for place in range(len(kinds))], encoders, fusion, classes=classes)
    assert count(model.encoders) == pytest.approx(size, rel=0.01)
    dim = {"embed": 768, "mimic-iv": 768, "fprm": 128}[name]
    experts = {"embed": 128, "mimic-iv": 128, "fprm": 32}[name]
    per_expert = 2 * dim * 4 * dim + 5 * dim
    assert count(model.fusion.block.moe) == experts * per_expert
    tokens = {"embed": [197] * 4, "mimic-iv": [512] * 3, "fprm": [16] * 4}[name]
    assert [encoder.num_tokens for encoder in encoders] == tokens


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "epochs", "rate", "decay"),
    [("embed", 20, 5e-5, 5e-5), ("mimic-iv", 20, 1e-4, 5e-5), ("fprm", 50, 5e-5, 5e-6)],
)
def test_a_recipe_has_the_papers_schedule(name, epochs, rate, decay):
    train = load_recipe(name).train
    assert (train.epochs, train.batch_size, train.lr, train.weight_decay) == (epochs, 32, rate, decay)
    assert (train.lr_step, train.lr_gamma, train.focal_gamma, train.later_lr) == (5, 0.1, 2, 1)


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    place = tmp_path_factory.mktemp("releases")
    crowd(24).write(place / "mimic")
    made = {
        "embed": embed.write(place / "e", root=str(screening().write(place / "embed"))),
        "mimic-iv": mimic_iv.write(place / "m", root=str(place / "mimic"), form="text"),
        "fprm": fprm.write(place / "f", root=str(retina(place / "fprm"))),
        "events": mimic_iv.write(place / "v", root=str(place / "mimic")),
    }
    return {name: load(folder) for name, folder in made.items()}


@pytest.fixture
def small(monkeypatch):
    from torchvision import models
    from torchvision.models import video

    parts = video.resnet

    def light(network):
        """Without its last two layers, which hold nearly all the weights."""
        network.layer3 = network.layer4 = nn.Identity()
        network.fc = nn.Linear(128, 2)
        return network

    def resnet(zero_init_residual=False):
        return light(models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1]))

    def r3d():
        return light(parts.VideoResNet(parts.BasicBlock, [parts.Conv3DSimple] * 4, [1, 1, 1, 1], parts.BasicStem))

    monkeypatch.setattr(models, "resnet50", resnet)
    monkeypatch.setattr(video, "r3d_18", r3d)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PAPER)
def test_every_method_trains_by_the_papers_recipe(name, method, cohorts, small, tmp_path):
    fitted = fit(cohorts[name], method, recipe=load_recipe(name, TINY), out=tmp_path / "run")
    chance = fitted.predict_proba(cohorts[name])
    assert chance.shape == (len(cohorts[name]), len(cohorts[name].classes))
    assert (abs(chance.sum(1) - 1) < 1e-5).all()


def test_remind_trains_on_events_and_chapters(cohorts, tmp_path):
    assert {m.kind for m in cohorts["events"].spec.modalities.values()} == {"text", "sequence", "tabular"}
    fitted = fit(cohorts["events"], "remind", recipe=load_recipe("mimic-iv", TINY), out=tmp_path / "run")
    assert fitted.predict_proba(cohorts["events"]).shape == (len(cohorts["events"]), 2)
