"""Names to components, and settings checked against signatures."""

import subprocess
import sys
from typing import Literal

import pytest
import torch
from torch import nn

from remind.encoders import ENCODERS
from remind.errors import RemindError
from remind.fusions import FUSIONS
from remind.modalities.tabular import TabularShape
from remind.objectives import OBJECTIVES
from remind.registry import Registry
from remind.types import Layout


class Thing:
    """A component with one fact and settings of several types."""

    def __init__(self, fact, *, size: int = 3, rate: float = 0.5, mode: Literal["a", "b"] = "a"):
        if size > 99:
            raise ValueError(f"size ({size}) must be at most 99")
        self.fact, self.size, self.rate, self.mode = fact, size, rate, mode


THINGS = Registry("thing", {"one": f"{__name__}:Thing", "absent": "no.such.module:Nothing"})


def test_names_are_listed_in_order_and_nothing_is_imported():
    assert THINGS.names() == ("one", "absent")  # though the second cannot be imported
    code = (
        "import sys; from remind.registry import Registry as R; R('x', {'nn': 'torch:nn'}).names(); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "remind.registry" in loaded
    assert "torch" not in loaded


def test_settings_are_the_keyword_only_parameters():
    assert {key: parameter.default for key, parameter in THINGS.settings("one").items()} == {
        "size": 3,
        "rate": 0.5,
        "mode": "a",
    }


def test_a_component_is_built_from_facts_and_settings_converted_to_their_types():
    thing = THINGS.build("one", "fact", size="7", rate=1, mode="b")
    assert (thing.fact, thing.size, thing.rate, thing.mode) == ("fact", 7, 1.0, "b")
    assert isinstance(thing.rate, float)
    assert THINGS.build("one", "fact").size == 3


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("won", {}, "unknown thing 'won'. Did you mean 'one'? Known: absent, one."),
        ("one", {"sise": 1}, "unknown setting of thing 'one' 'sise'. Did you mean 'size'? Known: mode, rate, size."),
        ("one", {"fact": 1}, "unknown setting of thing 'one' 'fact'. Known: mode, rate, size."),
        ("one", {"size": "many"}, "setting 'size' of thing 'one': input should be a valid integer"),
        ("one", {"size": 1.5}, "setting 'size' of thing 'one': input should be a valid integer"),
        ("one", {"mode": "c"}, "setting 'mode' of thing 'one': input should be 'a' or 'b'"),
        ("one", {"size": 100}, "thing 'one': size (100) must be at most 99."),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_thing(name, settings, message):
    with pytest.raises(RemindError) as caught:
        THINGS.build(name, "fact", **settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def criterion(logits, target):
    return nn.functional.cross_entropy(logits, target, reduction="none")


FACTS = {
    ENCODERS: (TabularShape(3, (4,)), 8),
    FUSIONS: (8, Layout((1, 1), torch.ones(2, 2, dtype=torch.bool), (100, 100))),
    OBJECTIVES: (torch.tensor([[3], [1]]), criterion),
}


@pytest.mark.parametrize(
    ("registry", "name", "key", "value"),
    [
        (FUSIONS, "remind", "heads", 0),
        (FUSIONS, "remind", "heads", 3),
        (FUSIONS, "remind", "experts", 0),
        (FUSIONS, "remind", "slots", 0),
        (FUSIONS, "remind", "dropout", 2.0),
        (FUSIONS, "remind", "threshold", "quantile:2"),
        (FUSIONS, "remind", "gate", "ajar"),
        (FUSIONS, "soft_moe", "hidden", -1),
        (ENCODERS, "tabular", "tokens", 0),
        (ENCODERS, "tabular", "category_dim", -1),
        (OBJECTIVES, "group_dro", "refresh_every", 0),
        (OBJECTIVES, "group_dro", "estimate", "guess"),
    ],
    ids=lambda part: part.kind if isinstance(part, Registry) else str(part),
)
def test_a_setting_that_a_component_cannot_take_is_a_users_mistake_not_a_crash(registry, name, key, value):
    with pytest.raises(RemindError, match=name):
        registry.build(name, *FACTS[registry], **{key: value})


@pytest.mark.parametrize("registry", [ENCODERS, FUSIONS, OBJECTIVES], ids=lambda registry: registry.kind)
def test_every_shipped_component_can_be_imported_and_has_a_default_for_every_setting(registry):
    for name in registry.names():
        assert issubclass(registry.get(name), nn.Module)
        for key, parameter in registry.settings(name).items():
            assert parameter.default is not parameter.empty, f"{name}.{key} has no default"
            assert registry.check(name, {key: parameter.default}) == {key: parameter.default}
