"""Weighted metrics against scikit-learn on repeated samples; the paired bootstrap against one written as loops."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from statsmodels.stats.multitest import multipletests

from remind.cohort.combination import Combination, GroupTable
from remind.errors import RemindError
from remind.evaluation.comparison import Run, compare_runs, holm
from remind.evaluation.metrics import score
from remind.evaluation.resampling import METRICS, subject_weights

few = settings(deadline=None, max_examples=40)
CLASSES = ["a", "b", "c"]


def drawn(seed, n, classes=3, ties=False):
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.ones(classes), size=n)
    if ties:
        probability = probability.round(1)
    return probability, rng.integers(classes, size=n), rng


@few
@given(seed=st.integers(0, 2**31), n=st.integers(1, 40), ties=st.booleans())
def test_weighted_metrics_are_those_of_samples_repeated_so_often(seed, n, ties):
    probability, target, rng = drawn(seed, n, ties=ties)
    weights = rng.integers(0, 4, size=(5, n))
    for row in weights:
        again = np.repeat(np.arange(n), row)
        found = {name: metric(probability, target, row[None].astype(float))[0] for name, metric in METRICS.items()}
        if not len(again):
            assert all(np.isnan(value) for value in found.values())
            continue
        p, y = probability[again], target[again]
        assert found["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)))
        assert found["macro_f1"] == pytest.approx(f1_score(y, p.argmax(1), average="macro"))
        curves = [roc_auc_score(y == c, p[:, c]) for c in range(3) if 0 < (y == c).sum() < len(y)]
        assert found["macro_auroc"] == pytest.approx(np.mean(curves) if curves else np.nan, nan_ok=True)


@few
@given(seed=st.integers(0, 2**31), n=st.integers(1, 30))
def test_weights_of_one_are_the_metrics_of_a_report(seed, n):
    probability, target, _ = drawn(seed, n)
    plain = score(probability, target)
    for name, metric in METRICS.items():
        expected = getattr(plain, name)
        made = metric(probability, target, np.ones((1, n)))[0]
        assert made == pytest.approx(np.nan if expected is None else expected, nan_ok=True)


def test_subjects_are_drawn_with_replacement_and_come_with_all_their_samples():
    subjects = np.array(["p", "q", "p", "r", "p", "s"])
    weights = np.concatenate(list(subject_weights(subjects, 4000, seed=1)))
    assert weights.shape == (4000, 6)
    assert (weights[:, [2, 4]] == weights[:, [0]]).all()
    one_of_each = weights[:, [0, 1, 3, 5]]
    assert (one_of_each.sum(1) == 4).all()
    np.testing.assert_allclose(one_of_each.mean(0), 1, atol=0.06)  # three standard errors and more
    np.testing.assert_allclose(one_of_each.var(0), 3 / 4, atol=0.08)
    again = np.concatenate(list(subject_weights(subjects, 4000, seed=1)))
    assert np.array_equal(weights, again)


def test_weights_come_in_parts_where_they_are_many(monkeypatch):
    monkeypatch.setattr("remind.evaluation.resampling._CELLS", 50)
    parts = list(subject_weights(np.arange(10).astype(str), 23, seed=0))
    assert [len(part) for part in parts] == [5, 5, 5, 5, 3]


def groups():
    """Two modalities: both (head), the first (head), the second (tail)."""
    return GroupTable(("x", "y"), (Combination(3), Combination(1), Combination(2)), (60, 30, 10))


def predictions(probability, target, *, seed=0, subjects=None):
    """Thirty samples of ``x+y``, twenty of ``x``, the rest of ``y``; their order is no sorted one."""
    n = len(target)
    group = np.repeat([0, 1, 2], [30, 20, n - 50])
    order = np.random.default_rng(seed).permutation(n)
    table = pl.DataFrame(
        {
            "id": [f"s{place:03d}" for place in range(n)],
            "subject": [f"p{place:03d}" for place in range(n)] if subjects is None else subjects,
            "combination": np.array(["x+y", "x", "y"])[group],
            "group": group,
            "target": target,
            **{f"p_{name}": column for name, column in zip(CLASSES, probability.T, strict=True)},
            "opened": np.zeros(n, dtype=bool),
        }
    )
    return table[order.tolist()]


def runs_of(n=58, seeds=(0, 1)):
    """A method that guesses, one that knows a little, one that knows the same little: ``remind``, the reference."""
    target = np.random.default_rng(9).integers(3, size=n)
    runs = []
    for seed in seeds:
        guess, _, rng = drawn(seed + 10, n)
        known = 0.5 * guess + 0.5 * np.eye(3)[np.where(rng.random(n) < 0.7, target, rng.integers(3, size=n))]
        for method, probability in (("guess", guess), ("remind", known), ("same", known)):
            runs.append(Run(method, seed, predictions(probability, target, seed=seed + len(runs))))
    return runs


def line(result, name):
    return next(row for row in result["rows"] if row["row"] == name)


def test_rows_are_combinations_then_parts_with_scores_over_seeds():
    runs = runs_of()
    result = compare_runs(runs, groups(), CLASSES, reference="remind", replicates=100)
    assert [row["row"] for row in result["rows"]] == ["x+y", "x", "y", "head", "tail", "worst", "overall"]
    assert [row["n"] for row in result["rows"]] == [30, 20, 8, 50, 8, None, 58]
    assert [row["few"] for row in result["rows"]] == [False, False, True, False, True, False, False]
    assert [row["kind"] for row in result["rows"][:3]] == ["head", "head", "tail"]
    assert [row["share"] for row in result["rows"]] == pytest.approx([0.6, 0.3, 0.1, 0.9, 0.1, None, 1.0])
    for name, rows in (("x+y", slice(0, 30)), ("x", slice(30, 50)), ("overall", slice(0, 58))):
        expected = []
        for run in runs:
            if run.method == "guess":
                table = run.predictions.sort("id")[rows]
                p, y = table.select(["p_a", "p_b", "p_c"]).to_numpy(), table["target"].to_numpy()
                expected.append(f1_score(y, p.argmax(1), average="macro"))
        found = line(result, name)["scores"]["guess"]["macro_f1"]
        assert found["mean"] == pytest.approx(np.mean(expected))
        assert found["std"] == pytest.approx(np.std(expected, ddof=1))
        assert found["seeds"] == pytest.approx({"0": expected[0], "1": expected[1]})
    worst = [
        min(line(result, name)["scores"]["guess"]["accuracy"]["seeds"][seed] for name in ("x+y", "x"))
        for seed in ("0", "1")
    ]
    assert line(result, "worst")["scores"]["guess"]["accuracy"]["mean"] == pytest.approx(np.mean(worst))


def naive_bootstrap(runs, method, metric, rows, replicates, seed):
    """The difference to ``remind`` in each replicate: by loops, on samples repeated as often as they were drawn."""
    tables = {(run.method, run.seed): run.predictions.sort("id") for run in runs}
    subjects = next(iter(tables.values()))["subject"].to_list()
    weights = np.concatenate(list(subject_weights(np.array(subjects), replicates, seed))).astype(int)
    each = []
    for drawn_weights in weights:
        again = [place for place in rows for _ in range(drawn_weights[place])]
        differences = []
        for at in sorted({at for _, at in tables}):
            values = []
            for name in (method, "remind"):
                table = tables[name, at]
                p = table.select(["p_a", "p_b", "p_c"]).to_numpy()[again]
                y = table["target"].to_numpy()[again]
                values.append(getattr(score(p, y), metric))
            differences.append(values[0] - values[1] if None not in values else np.nan)
        each.append(np.mean(differences))
    return np.array(each)


@pytest.mark.parametrize(
    ("metric", "name", "rows"),
    [("accuracy", "x", range(30, 50)), *((metric, "overall", range(58)) for metric in METRICS)],
)
def test_intervals_and_p_are_those_of_a_bootstrap_by_loops(metric, name, rows):
    subjects = [f"p{place % 29:02d}" for place in range(58)]
    runs = [
        Run(r.method, r.seed, r.predictions.sort("id").with_columns(subject=pl.Series(subjects))) for r in runs_of()
    ]
    found = line(compare_runs(runs, groups(), CLASSES, reference="remind", replicates=60, seed=5), name)
    said = found["differences"]["guess"][metric]
    each = naive_bootstrap(runs, "guess", metric, rows, 60, 5)
    each = each[~np.isnan(each)]
    assert [said["low"], said["high"]] == pytest.approx(np.quantile(each, [0.025, 0.975]).tolist(), abs=1e-12)
    beyond = min(sum(each <= 0), sum(each >= 0))
    assert said["p"] == pytest.approx(min(1, 2 * (beyond + 1) / (len(each) + 1)))
    scores = found["scores"]
    assert said["difference"] == pytest.approx(scores["guess"][metric]["mean"] - scores["remind"][metric]["mean"])


def test_a_method_that_is_the_same_is_a_tie_and_one_that_guesses_is_worse():
    result = compare_runs(runs_of(), groups(), CLASSES, reference="remind", replicates=400)
    overall = line(result, "overall")["differences"]
    assert overall.keys() == {"guess", "same"}
    for metric in METRICS:
        same, guess = overall["same"][metric], overall["guess"][metric]
        assert (same["difference"], same["p"], same["verdict"]) == (0.0, 1.0, "tie")
        assert guess["verdict"] == "worse"
        assert guess["high"] < 0
        assert guess["p_holm"] == pytest.approx(min(1, 2 * guess["p"]))  # Holm, of two: the smaller p counts double
    assert line(result, "y")["differences"] == {}  # eight samples: no verdict
    assert line(result, "tail")["differences"] == {}
    assert line(result, "worst")["differences"] == {}


def test_the_verdict_follows_the_corrected_p():
    """A p below 0.05 is still a tie where Holm's correction lifts it above."""
    runs = [run for run in runs_of(seeds=(0,)) if run.method != "same"]
    guess, known = runs
    near = known.predictions.sort("id")
    mixed = []
    for share in np.linspace(0, 1, 21):
        columns = {
            f"p_{c}": (1 - share) * near[f"p_{c}"] + share * guess.predictions.sort("id")[f"p_{c}"] for c in CLASSES
        }
        mixed.append(Run(f"m{share:.2f}", 0, near.with_columns(**columns)))
    result = compare_runs([*mixed, known], groups(), CLASSES, reference="remind", replicates=2000)
    said = [line(result, "overall")["differences"][run.method]["macro_auroc"] for run in mixed]
    for one in said:
        assert one["p_holm"] >= one["p"]
        assert (one["verdict"] == "tie") == (one["p_holm"] >= 0.05)
        if one["verdict"] != "tie":
            assert not one["low"] <= 0 <= one["high"]
    assert {one["verdict"] for one in said} == {"tie", "worse"}
    assert any(one["verdict"] == "tie" and one["p"] < 0.05 for one in said)


@pytest.mark.parametrize("metric", METRICS)
def test_intervals_hold_what_they_promise(metric):
    """Two methods of equal worth on ever new patients: the 95 % interval misses zero about one time in twenty."""
    missed = []
    for trial in range(300):
        rng = np.random.default_rng(trial)
        target = rng.integers(3, size=80)
        tables = [0.6 * rng.dirichlet(np.ones(3), 80) + 0.4 * np.eye(3)[target] * rng.random((80, 1)) for _ in range(2)]
        (weights,) = subject_weights(np.arange(80).astype(str), 200, seed=trial)
        one, other = (METRICS[metric](table, target, weights) for table in tables)
        low, high = np.quantile(one - other, [0.025, 0.975])
        missed.append(not low <= 0 <= high)
    assert 0.01 < np.mean(missed) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 300)


def test_a_group_of_one_class_has_no_auroc_and_no_verdict_on_it():
    target = np.random.default_rng(0).integers(3, size=70)
    target[30:50] = 1
    runs = [Run(method, 0, predictions(drawn(seed, 70)[0], target)) for seed, method in enumerate(("one", "remind"))]
    found = line(compare_runs(runs, groups(), CLASSES, reference="remind", replicates=100), "x")
    assert found["scores"]["one"]["macro_auroc"] == {"mean": None, "std": None, "seeds": {}}
    assert found["differences"]["one"].keys() == {"accuracy"}


def test_few_subjects_are_few_however_many_samples_they_have():
    """Thirty samples of nine people: scores, and no verdict, since a bootstrap of nine people says little."""
    runs = []
    for run in runs_of():
        table = run.predictions.sort("id")
        subjects = [f"p{place % 9}" if place < 30 else f"q{place}" for place in range(58)]
        runs.append(Run(run.method, run.seed, table.with_columns(subject=pl.Series(subjects))))
    found = line(compare_runs(runs, groups(), CLASSES, reference="remind", replicates=200), "x+y")
    assert found["few"]
    assert found["differences"] == {}
    assert found["scores"]["guess"]["accuracy"]["mean"] is not None


def test_a_rare_class_lets_no_macro_metric_be_judged():
    target = np.array([0, 1] * 20 + [2] * 9 + [0, 1] * 10)
    runs = [Run(method, 0, predictions(drawn(seed, 69)[0], target)) for seed, method in enumerate(("one", "remind"))]
    overall = line(compare_runs(runs, groups(), CLASSES, reference="remind", replicates=200), "overall")
    assert overall["differences"]["one"].keys() == {"accuracy"}
    target[-1] = 2
    runs = [Run(method, 0, predictions(drawn(seed, 69)[0], target)) for seed, method in enumerate(("one", "remind"))]
    overall = line(compare_runs(runs, groups(), CLASSES, reference="remind", replicates=200), "overall")
    assert overall["differences"]["one"].keys() == METRICS.keys()


def test_pairs_are_formed_over_the_seeds_that_both_methods_have():
    runs = [run for run in runs_of(seeds=(0, 1, 2)) if (run.method, run.seed) != ("guess", 1)]
    found = line(compare_runs(runs, groups(), CLASSES, reference="remind", replicates=100), "overall")
    scores = {method: found["scores"][method]["accuracy"]["seeds"] for method in ("guess", "remind")}
    assert scores["guess"].keys() == {"0", "2"}
    expected = np.mean([scores["guess"][at] - scores["remind"][at] for at in ("0", "2")])
    assert found["differences"]["guess"]["accuracy"]["difference"] == pytest.approx(expected)


def test_without_the_reference_there_are_scores_and_no_verdicts():
    result = compare_runs(runs_of(), groups(), CLASSES, reference="flex-moe", replicates=100)
    assert result["reference"] is None
    assert not any(row["differences"] for row in result["rows"])


def test_runs_of_other_samples_are_refused():
    one, two, *_ = runs_of()
    fewer = Run(two.method, two.seed, two.predictions.filter(pl.col("id") != "s000"))
    with pytest.raises(RemindError, match="other test samples"):
        compare_runs([one, fewer], groups(), CLASSES, reference="remind")
    with pytest.raises(RemindError, match="no finished run"):
        compare_runs([], groups(), CLASSES, reference="remind")


def test_a_modality_called_head_is_no_trouble():
    table = GroupTable(("head", "tail"), (Combination(3), Combination(1), Combination(2)), (60, 30, 10))
    runs = [
        Run(
            r.method,
            r.seed,
            r.predictions.with_columns(pl.col("combination").replace({"x+y": "head+tail", "x": "head", "y": "tail"})),
        )
        for r in runs_of()
    ]
    result = compare_runs(runs, table, CLASSES, reference="remind", replicates=100)
    plain = compare_runs(runs_of(), groups(), CLASSES, reference="remind", replicates=100)
    for ours, theirs in zip(result["rows"], plain["rows"], strict=True):
        assert ours["scores"] == theirs["scores"]
        assert ours["differences"] == theirs["differences"]


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_holms_correction_is_that_of_statsmodels(count):
    p = np.random.default_rng(count).beta(0.3, 1, count)
    p[: count // 2] = p[0]  # ties
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])
