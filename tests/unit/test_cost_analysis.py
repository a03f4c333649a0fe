"""What a method costs: counted by hand, and measured without a trace."""

import pytest
import torch
from six_kinds import SIZES, write_six
from torch import nn

from remind.analysis import cost as module
from remind.analysis.cost import cost, cost_figure, flops, measure
from remind.config import load_recipe
from remind.engine.fitted import FittedModel
from remind.errors import RemindError
from remind.sources.synthetic import write

DIM, EXPERTS, HIDDEN, CLASSES, MODALITIES, TOKENS, FEATURES = 16, 4, 64, 3, 4, 2, 16
WIDTH = MODALITIES * TOKENS
ALL = "m1+m2+m3+m4"


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A cohort in which every sample has everything."""
    return write(tmp_path_factory.mktemp("cost") / "full", samples=60, shares={ALL: 1.0})


@pytest.fixture
def measured(tmp_path, tiny):
    """A stage of a method, measured in this process."""

    def of(folder, method, place=0, settings=tiny):
        recipe = load_recipe(None, settings, method=method)
        return measure(folder, recipe, place, steps=2, warmup=0, scratch=tmp_path / f"{method}-{place}")

    return of


def size(part):
    return sum(parameter.numel() for parameter in part.parameters())


@pytest.mark.parametrize("method", ["soft-moe", "remind"])
def test_parameters_are_those_of_the_model(measured, folder, cohort, tiny, method):
    model = FittedModel.create(cohort, load_recipe(None, tiny, method=method)).model
    row = measured(folder, method)
    assert (row.parameters, row.parameters_fusion) == (size(model), size(model.fusion))
    residuals = sum(parameter.numel() for parameter in model.fusion.of_groups())
    assert (residuals > 0) == (method == "remind")
    assert row.parameters_trained == size(model) - residuals


def test_the_second_stage_trains_residuals_and_no_encoders(measured, folder, cohort, tiny):
    model = FittedModel.create(cohort, load_recipe(None, tiny, method="remind")).model
    row = measured(folder, "remind", 1)
    assert row.stage == "specialised"
    assert row.parameters_trained == size(model) - size(model.encoders) > size(model.fusion)


def test_flops_are_those_written_out_by_hand(measured, full):
    row = measured(full, "soft-moe")
    attention = WIDTH * 4 * DIM * DIM + 2 * WIDTH * WIDTH * DIM  # queries, keys, values and out; scores and their sum
    router = WIDTH * DIM * EXPERTS
    mixing = 2 * WIDTH * EXPERTS * DIM  # dispatch, combine
    experts = EXPERTS * 2 * DIM * HIDDEN
    mean, head = WIDTH * DIM, DIM * CLASSES
    assert row.flops_fusion == 2 * (attention + router + mixing + experts + mean + head)
    assert row.flops_encoders == 2 * MODALITIES * FEATURES * DIM
    assert row.flops == row.flops_encoders + row.flops_fusion


def test_the_second_stage_routes_twice(measured, full):
    first, second = (measured(full, "remind", place) for place in (0, 1))
    assert second.flops_fusion - first.flops_fusion == 2 * WIDTH * DIM * EXPERTS
    assert second.flops_encoders == first.flops_encoders  # they have no backbone that could be served


def test_what_samples_lack_costs_nothing(measured, full, tmp_path):
    lacking = write(tmp_path / "lacking", samples=60, shares={"m1": 1.0})
    less, more = measured(lacking, "soft-moe"), measured(full, "soft-moe")
    assert less.flops_encoders == more.flops_encoders / MODALITIES
    assert less.flops_fusion < more.flops_fusion


def test_attention_is_counted_where_torch_has_a_fast_path(cohort, tiny, monkeypatch):
    fitted = FittedModel.create(cohort, load_recipe(None, tiny, method="soft-moe"))
    dataset, model = fitted.dataset(cohort, cohort.rows("validation")), fitted.model.requires_grad_(False)
    _, before = flops(model, dataset, size=8)
    attention = nn.MultiheadAttention(DIM, 4, batch_first=True).requires_grad_(False)
    model.fusion.attention, fuse = attention, model.fusion.forward

    def fuse_and_attend(encoded):
        x = torch.zeros(len(encoded.group), WIDTH, DIM)
        attention(x, x, x, need_weights=False)
        return fuse(encoded)

    monkeypatch.setattr(model.fusion, "forward", fuse_and_attend)
    _, after = flops(model, dataset, size=8)
    assert after - before == pytest.approx(2 * (WIDTH * 4 * DIM * DIM + 2 * WIDTH * WIDTH * DIM))


def test_a_backbone_that_is_served_is_not_counted(measured, tmp_path):
    folder = write_six(tmp_path / "six", modalities=("note", "labs"))
    first, second = (measured(folder, "remind", place, SIZES) for place in (0, 1))
    assert second.flops_encoders < first.flops_encoders / 10
    assert second.parameters == first.parameters


def test_a_finding_has_a_row_a_method_and_stage(folder, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "apart", measure)
    told = []
    finding = cost(folder, ["soft-moe", "remind"], overrides=tiny, steps=2, warmup=1, told=told.append)
    table = finding.table
    assert table.columns == [*module.Cost._fields, "steps_relative"]
    stages = list(zip(table["method"], table["stage"], strict=True))
    assert stages == [("soft-moe", "joint"), ("remind", "shared"), ("remind", "specialised")]
    assert [line.split(":")[0] for line in told] == [", ".join(stage) for stage in stages]
    speed = table["steps_per_second"]
    assert min(speed) > 0
    assert table["steps_relative"].to_list() == pytest.approx([one / speed[0] for one in speed])
    assert "remind's second stage made" in " ".join(finding.says)
    assert "of this machine (cpu, 1 thread)" in finding.says[-1]
    assert {path.name for path in finding.save(tmp_path)} == {
        f"cost.{kind}" for kind in ("parquet", "json", "png", "svg")
    }


@pytest.mark.slow
def test_a_stage_is_measured_apart_and_leaves_nothing(folder, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    table = cost(folder, ["soft-moe"], overrides=tiny, steps=2, warmup=1).table
    assert table["peak_memory_bytes"].item() > 1e6
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_fails_apart_is_said_as_it_would_be_here(folder, tiny):
    with pytest.raises(RemindError, match=r"soft-moe: the loss of \d+ samples is not finite at step \d+"):
        cost(folder, ["soft-moe"], overrides=[*tiny, "train.lr=1e30", "train.clip=1e30"])


@pytest.mark.parametrize(
    ("methods", "settings", "said"),
    [
        (["soft-mo"], {}, "unknown method 'soft-mo'. Did you mean 'soft-moe'?"),
        ([], {}, "at least one method"),
        (["remind", "remind"], {}, "none twice"),
        (["remind"], {"steps": 0}, "0 steps"),
        (["remind"], {"warmup": -1}, "-1"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(folder, methods, settings, said):
    with pytest.raises(RemindError, match=said.replace("?", r"\?")):
        cost(folder, methods, **settings)


def test_without_soft_moe_nothing_is_relative(measured, full):
    rows = [measured(full, "remind", place) for place in (0, 1)]
    table = module._table(rows)
    assert table["steps_relative"].to_list() == [None, None]
    assert "soft-moe" not in " ".join(module._sentences(table))


def test_the_figure_has_a_bar_a_stage_in_every_panel(measured, full):
    table = module._table([measured(full, "soft-moe"), measured(full, "remind"), measured(full, "remind", 1)])
    figure = cost_figure(table, title="cost")
    for axes, column in zip(figure.axes, module.PANELS, strict=True):
        assert [bar.get_width() for bar in axes.patches] == table[column].to_list()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["joint", "shared", "specialised"]
