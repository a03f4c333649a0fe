"""The paper's sanity figures (Table 17): parameters and FLOPs at EMBED's shape, on tensors that hold no numbers."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from remind.encoders.image import ImageEncoder
from remind.fusions import FUSIONS
from remind.model import Model
from remind.nn.tokens import pack
from remind.types import Encoded, Layout, Ragged, Tokens

MODALITIES = ("c-cc", "c-mlo", "ffdm-cc", "ffdm-mlo")
GROUPS, DIM, EXPERTS, HIDDEN, CLASSES, IMAGE_TOKENS = 15, 768, 128, 3072, 4, 197


@pytest.fixture(scope="module", params=["soft_moe", "remind"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    with torch.device("meta"):
        encoders = [ImageEncoder(224, DIM, weights="random") for _ in MODALITIES]
        layout = Layout((IMAGE_TOKENS,) * 4, torch.zeros(GROUPS, 4, dtype=torch.bool), (100,) * GROUPS)
        fusion = FUSIONS.build(name, DIM, layout, experts=EXPERTS, heads=8, hidden=HIDDEN)
        made = Model(MODALITIES, encoders, fusion, classes=CLASSES)
    if name == "remind":
        made.fusion.specialise()  # stage two
    return made


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def linear(inputs, outputs):
    return inputs * outputs + outputs


def test_parameters_are_the_papers_within_one_percent(name, model):
    vit = (
        linear(3 * 16 * 16, DIM)  # patches
        + (1 + IMAGE_TOKENS) * DIM  # class token, positions
        + 12 * (linear(DIM, 3 * DIM) + linear(DIM, DIM) + linear(DIM, HIDDEN) + linear(HIDDEN, DIM) + 2 * 2 * DIM)
        + 2 * DIM  # the last norm
    )
    block = model.fusion.block
    terms = {
        "encoders": (size(model.encoders), 4 * vit),
        "experts": (size(block.moe), EXPERTS * (linear(DIM, HIDDEN) + linear(HIDDEN, DIM))),
        "attention": (size(block.attention), linear(DIM, 3 * DIM) + linear(DIM, DIM)),
        "router": (size(model.fusion.router), DIM * EXPERTS * (1 if name == "soft_moe" else 1 + GROUPS) + 1),
        "norms": (size(block.attention_norm) + size(block.moe_norm) + size(model.norm), 3 * 2 * DIM),
        "imputation": (size(model.fusion.imputation), (4 if name == "soft_moe" else GROUPS) * DIM),
        "head": (size(model.head), linear(DIM, CLASSES)),
    }
    for term, (found, expected) in terms.items():
        print(f"{name} {term}: {found:,} parameters")
        assert found == expected, term
    total = size(model)
    print(f"{name} in all: {total:,} parameters")
    assert total == sum(found for found, _ in terms.values())
    assert total == pytest.approx({"soft_moe": 958e6, "remind": 960e6}[name], rel=0.01)


def flops(function):
    """FLOPs (2 a multiply-add) of matrix products and convolutions, by submodule."""
    with FlopCounterMode(display=False, depth=10) as counter:
        function()
    counts = {key: sum(parts.values()) for key, parts in counter.get_flop_counts().items()}
    assert counts["Global"] == counter.get_total_flops()
    return counts


def full_sample():
    """The fusion's tokens for one sample with all four images, laid by ``pack`` (in width one) and emptied."""
    images = (Ragged(torch.zeros(1, IMAGE_TOKENS, 1)),) * 4
    encoded = Encoded(images, (torch.tensor([0]),) * 4, torch.ones(1, 4, dtype=torch.bool), torch.tensor([0]))
    laid = pack(encoded, [IMAGE_TOKENS] * 4, torch.zeros(1, 1, 1))
    assert (laid.log_count == 0).sum() == 788
    return Tokens(torch.empty(1, laid.log_count.shape[1], DIM, device="meta"), laid.log_count.to("meta"))


def test_flops_of_a_full_sample_are_the_papers_within_two_percent(name, model):
    """The two halves apart: ``pack`` and the imputation need numbers, which a meta tensor has not."""
    images = torch.empty(1, 3, 224, 224, device="meta")
    encoders = sum(flops(lambda encoder=encoder: encoder(images))["Global"] for encoder in model.encoders)
    tokens = full_sample()
    width = tokens.log_count.shape[1]

    def fuse():
        fused = model.fusion.fuse(tokens, torch.zeros(1, dtype=torch.int64, device="meta"))
        model.head(model.norm(fused.pooled))

    counts = flops(fuse)
    router = type(model.fusion.router).__name__
    part = {
        "encoders": encoders,
        "attention": counts["FusionBlock.attention"],
        "dispatch, experts, combine": counts["FusionBlock.moe"],
        "router": counts[router],
        "head": counts["Linear"],
    }
    for term, found in part.items():
        print(f"{name} {term}: {found / 1e9:.4f} GFLOPs")
    total = encoders + counts["Global"]
    print(f"{name} in all: {total / 1e9:.4f} GFLOPs, fusion over {width} tokens")
    per_layer = IMAGE_TOKENS * (4 * DIM * DIM + 2 * DIM * HIDDEN) + 2 * IMAGE_TOKENS * IMAGE_TOKENS * DIM
    vit = (IMAGE_TOKENS - 1) * 3 * 16 * 16 * DIM + 12 * per_layer
    assert part["encoders"] == 4 * 2 * vit
    assert part["attention"] == 2 * (width * 4 * DIM * DIM + 2 * width * width * DIM)
    assert part["dispatch, experts, combine"] == 2 * (2 * width * EXPERTS * DIM + EXPERTS * 2 * DIM * HIDDEN)
    assert part["router"] == 2 * width * DIM * EXPERTS * (1 if name == "soft_moe" else 2)
    assert part["head"] == 2 * DIM * CLASSES
    mean = 2 * width * DIM  # of the tokens, as a product
    assert total == sum(part.values()) + mean
    if name == "soft_moe":
        assert total == pytest.approx(146.7e9, rel=0.02)
    assert total < 1.03 * 146.7e9
