"""Which experts combinations use: sums, metrics and divergence against plain loops, laws, and tiny runs."""

import json
import math
from itertools import combinations as pairs

import numpy as np
import polars as pl
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from remind.analysis.experts import (
    METRICS,
    SCHEMA,
    divergence,
    divergence_by_chance,
    experts,
    router_metrics,
    specialists,
    usage,
)
from remind.analysis.trained import train_on
from remind.types import Routing

FIVE = math.log(5)
LOG_COUNT = torch.tensor([[0, 0, FIVE, -math.inf], [0, FIVE, 0, 0], [FIVE, -math.inf, -math.inf, -math.inf]])


def routing(combine, log_count):
    """Routing of a batch, with every other gate open."""
    opened = torch.arange(len(combine)) % 2 == 0
    return Routing(None, combine, torch.zeros(len(combine)), opened, log_count)


def drawn(*, samples=3, tokens=4, experts=6, slots=2, seed=0):
    """Weights of tokens, far from even."""
    logits = 2 * torch.randn(samples, tokens, experts * slots, generator=torch.Generator().manual_seed(seed))
    return logits.softmax(2).view(samples, tokens, experts, slots)


def slow(combine, log_count, top):
    """Tokens, hits and the sums of each metric of one sample, token by token and number by number."""
    total, hits, sums = 0.0, [0.0] * combine.shape[1], [0.0] * len(METRICS)
    for token, log in zip(combine.double().tolist(), log_count.tolist(), strict=True):
        flat = [weight for expert in token for weight in expert]
        if sum(flat) == 0:
            continue
        count, n = math.exp(log), len(flat)
        total += count
        by_expert = [sum(expert) for expert in token]
        for expert in sorted(range(len(token)), key=lambda e: -by_expert[e])[:top]:
            hits[expert] += count
        p = [weight / sum(flat) for weight in flat]
        entropy = -sum(x * math.log(x) for x in p if x)
        first, second = sorted(p)[-1], sorted(p)[-2]
        found = (
            1 - entropy / math.log(n),
            first,
            first - second,
            sum(x * (1 - x) for x in p),
            sum((x - 1 / n) ** 2 for x in p) / n,
            sum(x * math.log(x * n) for x in p if x),
        )
        sums = [one + count * new for one, new in zip(sums, found, strict=True)]
    return total, hits, sums


@pytest.mark.parametrize("top", [1, 3, 6])
@pytest.mark.parametrize("slots", [1, 2])
def test_sums_are_those_of_plain_loops(top, slots):
    combine = drawn(slots=slots)
    combine[1, 2] = 0  # a token that goes nowhere
    found = usage(routing(combine, LOG_COUNT), top=top)
    for place in range(len(combine)):
        tokens, hits, metrics = slow(combine[place], LOG_COUNT[place], top)
        assert found.tokens[place] == pytest.approx(tokens)
        assert found.hits[place] == pytest.approx(hits)
        assert found.metrics[place] == pytest.approx(metrics, abs=1e-6)
    assert found.tokens == pytest.approx([7, 7, 5])
    assert found.hits.sum(1) == pytest.approx(top * found.tokens)
    assert found.opened.tolist() == [True, False, True]


def test_a_token_that_stands_for_five_counts_as_five_copies():
    combine = drawn(samples=1, tokens=3)
    collapsed = usage(routing(combine, torch.tensor([[0.0, FIVE, 0.0]])), top=3)
    written_out = usage(routing(combine[:, [0, 1, 1, 1, 1, 1, 2]], torch.zeros(1, 7)), top=3)
    for one, other in zip(collapsed, written_out, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_what_stands_in_padding_changes_nothing():
    combine = drawn()
    other = torch.where(LOG_COUNT[..., None, None] == -math.inf, drawn(seed=1), combine)
    for one, same in zip(
        usage(routing(combine, LOG_COUNT), top=3), usage(routing(other, LOG_COUNT), top=3), strict=True
    ):
        np.testing.assert_array_equal(one, same)


def test_an_expert_without_weight_is_never_among_the_largest():
    combine = torch.tensor([[[[0.7], [0.0], [0.3], [0.0]]]])
    assert usage(routing(combine, torch.zeros(1, 1)), top=3).hits.tolist() == [[1, 0, 1, 0]]


def test_metrics_at_their_ends():
    even, sure, one = torch.full((1, 1, 8), 1 / 8), torch.eye(8)[None, :1], torch.ones(1, 1, 1)
    assert router_metrics(even).ravel().tolist() == pytest.approx([0, 1 / 8, 0, 7 / 8, 0, 0], abs=1e-6)
    assert router_metrics(sure).ravel().tolist() == pytest.approx([1, 1, 1, 0, 7 / 64, math.log(8)])
    assert router_metrics(one).ravel().tolist() == [0, 1, 1, 0, 0, 0]


def test_divergence_is_scipys_over_all_pairs():
    rng = np.random.default_rng(0)
    hits, group = rng.gamma(0.3, size=(40, 6)), rng.permutation(np.arange(40) % 4)
    together = [hits[group == g].sum(0) for g in range(4)]
    expected = [jensenshannon(one, other, base=2) ** 2 for one, other in pairs(together, 2)]
    assert divergence(hits, group) == pytest.approx(np.mean(expected))
    order = rng.permutation(40)
    assert divergence(hits[order], group[order]) == pytest.approx(np.mean(expected))


def test_divergence_is_one_bit_of_groups_that_share_no_expert_and_none_of_equal_ones():
    group = np.arange(12) % 3
    assert divergence(np.eye(3)[group], group) == pytest.approx(1)
    assert divergence(np.ones((12, 3)), group) == 0


def planted(own):
    """Hits of 120 samples in four groups: each group favours three of twelve experts, ``own`` more than the others."""
    group = np.arange(120) % 4
    logits = torch.randn(120, 8, 12, generator=torch.Generator().manual_seed(0))
    logits += own * torch.from_numpy(np.arange(12) // 3 == group[:, None])[:, None]
    combine = logits.softmax(2)[..., None]
    return usage(routing(combine, torch.zeros(120, 8)), top=3).hits, group


def test_experts_of_ones_own_are_far_above_chance_and_shared_ones_at_chance():
    hits, group = planted(own=3)
    assert divergence(hits, group) > 20 * divergence_by_chance(hits, group, 0)
    hits, group = planted(own=0)
    assert 0.5 < divergence(hits, group) / divergence_by_chance(hits, group, 0) < 2


def test_chance_depends_on_the_seed_alone():
    hits, group = planted(own=1)
    assert divergence_by_chance(hits, group, 1) == divergence_by_chance(hits, group, 1)
    assert divergence_by_chance(hits, group, 1) != divergence_by_chance(hits, group, 2)


def test_experts_stand_by_the_line_that_uses_them_most():
    frequency = np.array([[0.1, 0.9, 0.2, 0.8], [0.7, 0.2, 0.6, 0.1], [0.4, 0.5, 0.9, 0.1]])
    assert specialists(frequency).tolist() == [3, 1, 0, 2]


@pytest.fixture(scope="module")
def trained(folder, tiny, tmp_path_factory):
    """Soft MoE and REMIND."""
    out = tmp_path_factory.mktemp("trained") / "suite"
    return train_on(folder, ["soft-moe", "remind"], [0], recipe=None, overrides=tiny, out=out, jobs=1)


@pytest.fixture(scope="module")
def finding(trained):
    return experts(*trained)


def test_a_line_for_each_run_and_combination_and_one_for_all(trained, finding):
    cohort, _ = trained
    table, test = finding.table, cohort.rows("test")
    assert dict(table.schema) == SCHEMA
    assert table["expert_frequency"].list.sum().to_numpy() == pytest.approx(3)
    fractions = table.explode("expert_frequency").select(
        "share", "gate_open", "certainty", "max_probability", "margin", "gini", "variance", "expert_frequency"
    )
    assert fractions.to_numpy().min() > -1e-9
    assert fractions.to_numpy().max() < 1 + 1e-9
    whole = pl.col("combination") == "overall"
    for (_, _), run in table.group_by("method", "seed"):
        single, overall = run.filter(~whole), run.filter(whole)
        assert single["n"].sum() == overall["n"].item() == len(test)
        assert single["divergence"].null_count() == len(single)
        assert overall["divergence"].item() > 0
        assert overall["divergence_by_chance"].item() > 0
        assert overall["kind"].item() is None
        for name in ("gate_open", *METRICS):  # imputed tokens counted, samples have equally many
            assert overall[name].item() == pytest.approx(np.average(single[name], weights=single["n"]))


def test_the_gate_is_the_one_that_was_reported(trained, finding):
    for run in trained[1]:
        lines = finding.table.filter(method=run.method, seed=run.seed)
        overall = lines.filter(combination="overall")["gate_open"].item()
        metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
        assert overall == pytest.approx(metrics["gate_open"])
        opened = lines.filter(pl.col("gate_open") > 0)["method"].unique().to_list()
        assert opened == (["remind"] if run.method == "remind" else [])
        shown = lines.filter(pl.col("combination") != "overall").select("combination", "kind", "n", "share", "few")
        assert shown.rows() == [
            tuple(line[key] for key in ("combination", "kind", "n", "share", "few")) for line in metrics["combinations"]
        ]


def test_it_says_a_sentence_a_method_and_no_sample(trained, finding):
    compared, soft, remind = finding.says
    assert "subjects or more in the test split" in compared
    assert soft.startswith("soft-moe: ")
    assert "no gate opened" in soft
    assert "the gate opened for" in remind
    assert not any(name in sentence for sentence in finding.says for name in trained[0].ids)


def test_seeds_of_a_method_are_rows_of_the_table_and_one_sentence(trained, finding):
    cohort, (run, _) = trained
    twice = experts(cohort, [run, run._replace(seed=1)])
    assert twice.table["seed"].unique().sort().to_list() == [0, 1]
    assert twice.says[1] == finding.says[1].replace("soft-moe", "soft-moe (mean of 2 seeds)", 1)
    panel, bar = twice.figure.axes
    assert panel.get_title(loc="left").startswith("soft-moe, seed 0")
    assert bar.get_ylabel() == "share of tokens"


def test_the_same_runs_give_the_same_table(trained, finding):
    assert experts(*trained).table.equals(finding.table)


def test_combinations_of_few_subjects_are_listed_but_not_compared(trained):
    cohort, runs = trained
    found = experts(cohort, runs[:1], split="validation")
    assert found.table.height > 2
    judged = found.table.filter(~pl.col("few") & pl.col("kind").is_not_null())
    assert len(judged) < 2
    assert found.table["divergence"].null_count() == found.table.height
    assert "too few combinations" in found.says[1]


def test_the_figure_has_a_panel_a_method_and_nothing_is_clipped(finding, tmp_path):
    written = finding.save(tmp_path / "analysis")
    assert [path.name for path in written] == [f"experts.{kind}" for kind in ("parquet", "json", "png", "svg")]
    assert pl.read_parquet(written[0]).equals(finding.table)
    assert len(json.loads(written[1].read_text(encoding="utf-8"))["rows"]) == finding.table.height
    soft, remind, _ = finding.figure.axes
    assert [axes.get_title(loc="left").split(",")[0] for axes in (soft, remind)] == ["soft-moe", "remind"]
    assert soft.images[0].get_clim() == remind.images[0].get_clim()
    labels = [label.get_text() for label in soft.get_yticklabels()]
    assert labels[-1] == f"all samples (n={finding.table['n'].max()})"
    assert len(labels) == soft.images[0].get_array().shape[0] > 2
    box = finding.figure.get_tightbbox()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= finding.figure.get_figwidth()
    assert box.y1 <= finding.figure.get_figheight()
