import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from remind.cohort.combination import Combination, GroupTable
from remind.errors import RemindError
from remind.evaluation.metrics import macro_auroc, score
from remind.evaluation.report import evaluate_predictions

CLASSES = ["a", "b", "c"]


def random_predictions(seed, n, classes=3):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(classes), n), rng.integers(classes, size=n)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scores_equal_scikit_learns(classes):
    probability, target = random_predictions(classes, 400, classes)
    found = score(probability, target)
    predicted = probability.argmax(1)
    assert found.n == 400
    assert found.accuracy == pytest.approx(accuracy_score(target, predicted))
    assert found.macro_f1 == pytest.approx(f1_score(target, predicted, average="macro"))
    curves = probability[:, 1] if classes == 2 else probability
    multi = {} if classes == 2 else {"multi_class": "ovr", "average": "macro"}
    assert found.macro_auroc == pytest.approx(roc_auc_score(target, curves, **multi))


def test_scores_by_hand():
    probability = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.4, 0.5, 0.1], [0.2, 0.1, 0.7]])
    found = score(probability, np.array([0, 0, 1, 1]))
    assert found.n == 4
    assert found.accuracy == 0.5  # the first and the third
    # class 0: of 1 called and 2 there, 1 right: 2/3; class 1: of 2 and 2, 1: 1/2; class 2: called, never there: 0
    assert found.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    # class 0: 0.8, 0.3 against 0.4, 0.2: 3 pairs of 4; class 1: 0.5, 0.1 against 0.1, 0.6: 1 + 0 and 1/2 + 0 of 4
    assert found.macro_auroc == pytest.approx((3 / 4 + 1.5 / 4) / 2)


def test_no_samples_have_no_scores():
    assert score(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == (0, None, None, None)


def test_samples_of_one_class_have_no_auroc_and_that_is_no_error():
    probability, _ = random_predictions(0, 20)
    found = score(probability, np.full(20, 1))
    assert found.macro_auroc is None
    assert found.accuracy == pytest.approx((probability.argmax(1) == 1).mean())
    assert found.macro_f1 is not None
    assert score(probability[:1], np.array([2])).macro_auroc is None


def test_a_class_that_is_not_there_is_left_out_of_the_auroc():
    probability, target = random_predictions(1, 200)
    target[target == 2] = 0
    expected = np.mean([roc_auc_score(target == place, probability[:, place]) for place in (0, 1)])
    assert macro_auroc(probability, target) == pytest.approx(expected)


def test_equal_probabilities_are_worth_nothing():
    assert macro_auroc(np.full((10, 2), 0.5), np.arange(10) % 2) == 0.5


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(2, 4))
@settings(deadline=None, max_examples=100)
def test_any_samples_have_scores_between_0_and_1_or_none(seed, n, classes):
    found = score(*random_predictions(seed, n, classes))
    assert all(value is None or 0 <= value <= 1 for value in found[1:])


# The report: overall, head, tail, unseen, worst, each combination

TABLE = GroupTable(("x", "y"), (Combination(3), Combination(1)), (90, 10))  # x+y is head, x is tail


def predictions(**sizes):
    """So many samples of each combination, a fifth of them wrong; every third opened the gate."""
    rows = []
    for name, n in sizes.items():
        combination = name.replace("_", "+")
        mask = np.array([[modality in combination.split("+") for modality in TABLE.modalities]])
        group = int(TABLE.index(mask)[0])
        rows += [(combination, group, place % 3, place % 5 > 0, place % 3 == 0) for place in range(n)]
    combination, group, target, right, opened = zip(*rows, strict=True)
    shown = [(t + (not r)) % 3 for t, r in zip(target, right, strict=True)]
    probability = np.eye(3)[shown] * 0.7 + 0.1
    return pl.DataFrame(
        {
            "subject": [f"s{place}" for place in range(len(rows))],
            "combination": combination,
            "group": pl.Series(group, dtype=pl.Int64),
            "target": pl.Series(target, dtype=pl.Int64),
            **{f"p_{name}": probability[:, place] for place, name in enumerate(CLASSES)},
            "opened": opened,
        }
    )


def test_head_tail_and_unseen_divide_the_samples():
    found = evaluate_predictions(predictions(x_y=60, x=25, y=15), TABLE, CLASSES)
    assert [found[part]["n"] for part in ("overall", "head", "tail", "unseen")] == [100, 60, 25, 15]
    assert [(line["combination"], line["kind"], line["n"]) for line in found["combinations"]] == [
        ("x+y", "head", 60),
        ("x", "tail", 25),
        ("y", "unseen", 15),
    ]
    assert [line["share"] for line in found["combinations"]] == [0.9, 0.1, 0.0]
    assert [line["group"] for line in found["combinations"]] == [0, 1, -1]
    assert found["unseen"]["combinations"] == 1
    assert found["gate_open"] == pytest.approx((20 + 9 + 5) / 100)


def test_each_part_is_scored_on_its_own_samples():
    table = predictions(x_y=60, x=25, y=15)
    found = evaluate_predictions(table, TABLE, CLASSES)
    for part, names in {"overall": ("x+y", "x", "y"), "head": ("x+y",), "tail": ("x",), "unseen": ("y",)}.items():
        rows = table.filter(pl.col("combination").is_in(names))
        probability = rows.select("p_a", "p_b", "p_c").to_numpy()
        expected = score(probability, rows["target"].to_numpy())._asdict()
        assert {key: found[part][key] for key in expected} == expected


def test_the_worst_is_the_lowest_accuracy_among_combinations_of_ten_or_more():
    right = pl.col("p_a") > -1
    table = pl.concat([predictions(x_y=40, x=10), predictions(y=9)]).with_columns(
        target=pl.when(pl.col("combination") == "y").then((pl.col("target") + 1) % 3).otherwise("target")
    )
    assert table.filter(right).height == 59
    found = evaluate_predictions(table, TABLE, CLASSES)
    lines = {line["combination"]: line for line in found["combinations"]}
    assert lines["y"]["accuracy"] < min(lines["x"]["accuracy"], lines["x+y"]["accuracy"])
    assert [lines[name]["few"] for name in ("x+y", "x", "y")] == [False, False, True]
    assert found["worst"]["combination"] in ("x", "x+y")
    assert found["worst"]["accuracy"] == min(lines["x"]["accuracy"], lines["x+y"]["accuracy"])


def test_there_is_no_worst_where_every_combination_is_small():
    assert evaluate_predictions(predictions(x_y=9, x=9), TABLE, CLASSES)["worst"] is None


def test_a_part_without_samples_has_no_scores():
    found = evaluate_predictions(predictions(x_y=20), TABLE, CLASSES)
    nothing = {"subjects": 0, "n": 0, "accuracy": None, "macro_f1": None, "macro_auroc": None}
    assert found["tail"].items() >= nothing.items()
    assert found["unseen"].items() >= (nothing | {"combinations": 0}).items()
    assert "too few to judge" in found["tail"]["intervals"]["accuracy"]["reason"]


def test_every_unseen_combination_is_counted():
    wide = GroupTable(("x", "y", "z"), (Combination(7),), (5,))
    table = predictions(x_y=4, x=3, y=2).with_columns(group=pl.lit(-1, pl.Int64))
    found = evaluate_predictions(table, wide, CLASSES)
    assert found["unseen"]["combinations"] == 3
    assert found["unseen"]["n"] == 9
    assert found["head"]["n"] == found["tail"]["n"] == 0


def test_many_samples_of_few_patients_are_too_few_to_judge():
    table = predictions(x_y=40, x=40).with_columns(
        subject=pl.when(pl.col("combination") == "x").then(pl.lit("one patient")).otherwise("subject")
    )
    found = evaluate_predictions(table, TABLE, CLASSES)
    assert [(line["combination"], line["few"], line["subjects"]) for line in found["combinations"]] == [
        ("x+y", False, 40),
        ("x", True, 1),
    ]
    assert found["worst"]["combination"] == "x+y"


def test_a_combination_of_one_sample_has_a_line():
    found = evaluate_predictions(predictions(x_y=20, x=1), TABLE, CLASSES)
    assert found["combinations"][1] | {"accuracy": None, "macro_f1": None, "intervals": None} == {
        "combination": "x",
        "group": 1,
        "share": 0.1,
        "kind": "tail",
        "few": True,
        "subjects": 1,
        "n": 1,
        "accuracy": None,
        "macro_f1": None,
        "macro_auroc": None,
        "intervals": None,
    }


def test_metrics_are_plain_json():
    text = json.dumps(evaluate_predictions(predictions(x_y=20, x=1, y=3), TABLE, CLASSES), allow_nan=False)
    assert all(math.isfinite(line["accuracy"]) for line in json.loads(text)["combinations"])


def test_the_order_of_the_predictions_does_not_matter():
    table = predictions(x_y=60, x=25, y=15)
    shuffled = table.sample(fraction=1, shuffle=True, seed=0)
    assert evaluate_predictions(shuffled, TABLE, CLASSES) == evaluate_predictions(table, TABLE, CLASSES)


def test_no_predictions_are_an_error():
    with pytest.raises(RemindError, match="no sample to score"):
        evaluate_predictions(predictions(x=1).clear(), TABLE, CLASSES)
