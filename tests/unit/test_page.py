"""Pages of content made by hand: large ones, odd ones, and what suppression leaves of them."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from remind.errors import RemindError
from remind.evaluation.calibration import reliability
from remind.report.card import card
from remind.report.charts import charts
from remind.report.content import Content
from remind.report.page import page
from remind.report.summary import known, unknown
from remind.report.suppression import suppress

METHODS = [f"method-{place}" for place in range(9)] + ["remind"]
INTERVAL = {"low": 0.7, "high": 0.9, "by": "bootstrap"}


def scores(n, **changed):
    """What a part of the test split has."""
    about = {"n": n, "subjects": n, "accuracy": 0.81234567, "macro_f1": 0.8, "macro_auroc": 0.9, "smallest": n // 2}
    return {**about, "intervals": dict.fromkeys(("accuracy", "macro_f1", "macro_auroc"), INTERVAL), **changed}


def checked(n):
    rng = np.random.default_rng(0)
    about = rng.dirichlet([1, 1], 40), rng.integers(2, size=40), np.arange(40)
    coverage = {"share": 0.9, "low": 0.8, "high": 0.95}
    whole = {"n": n, "subjects": n, "raw": reliability(*about), "calibrated": reliability(*about)}
    return {**whole, "coverage": coverage, "set_size": 1.2, "temperature": 1.1, "held": "combination"}


def content(combinations=6, modalities=4, methods=METHODS[-2:], sizes=None, **changed):
    """A page of so many of each; the sizes of combinations are 40 each, or as given."""
    names = [f"modality_{place:02d}" for place in range(modalities)]
    rng, sizes = np.random.default_rng(0), sizes or [40] * combinations
    lines = []
    for place, n in enumerate(sizes):
        held = [bool(one) for one in rng.random(modalities) < 0.5]
        held[place % modalities] = True
        label = " + ".join(name for name, there in zip(names, held, strict=True) if there)
        kind = "head" if place < 2 else "tail"
        own = {"name": f"{label}-{place}", "label": label, "held": held, "kind": kind, "trained": 3 * n, "share": 0.01}
        lines.append({**own, **scores(n), "few": n < 10, "calibration": checked(n) if n >= 10 else None})
    total, head = sum(sizes), sum(sizes[:2])
    parts = {"overall": scores(total), "head": scores(head), "tail": scores(total - head), "unseen": scores(0)}
    parts["unseen"]["combinations"] = 0
    of_run = {"seed": 0, "few": False, "n": 40, "subjects": 40}
    estimate = {f"{name}{end}": 0.1234567 for name in ("bits", "accuracy") for end in ("", "_low", "_high")}
    whole = [{"name": "overall", "kind": None}, *lines]
    modality = [
        {**of_run, **estimate, "method": method, "combination": line["name"], "kind": line["kind"], "modality": name}
        for method in methods
        for line in whole
        for name in names
    ]
    experts = [
        {**of_run, "method": method, "combination": line["name"], "kind": line["kind"], "expert_frequency": [0.1] * 64}
        for method in methods
        for line in whole
    ]
    final = {"seed": 0, "step": None, "share": 0.01, "dominant": 0.5}
    gradients = [
        {**final, "method": method, "combination": line["name"], "kind": line["kind"]}
        for method in methods
        for line in lines
    ]
    score = {
        metric: {"mean": 0.8, "std": 0.01, "seeds": {"0": 0.8}} for metric in ("accuracy", "macro_f1", "macro_auroc")
    }
    difference = {"difference": 0.01, "low": -0.01, "high": 0.03, "p_holm": 0.4, "verdict": "tie"}
    rows = [
        {"row": row, "kind": None, "scores": dict.fromkeys(methods, score),
         "differences": {m: dict.fromkeys(score, difference) for m in methods[:-1]}}
        for row in ("head", "tail", "overall")
    ]  # fmt: skip
    epoch = {
        "stage": "joint",
        "train_loss": 0.5,
        "validation_loss": 0.6,
        "group_weights": [1 / len(lines)] * len(lines),
    }
    made = Content(
        cohort="made up",
        method="remind",
        seed=0,
        place="remind-seed0",
        tail_below=0.15,
        modalities=names,
        classes=["well", "ill"],
        combinations=lines,
        parts=parts,
        worst=lines[0] | {"combination": lines[0]["name"]},
        calibration={
            "temperature": {"pooled": 1.1, "groups": {}},
            "conformal": {"coverage": 0.9, "groups": {}, "rare": None},
            "test": {"overall": checked(total)},
        },
        class_counts={"well": total // 2, "ill": total - total // 2},
        history=[epoch] * 20,
        groups=[line["name"] for line in lines],
        settings="method: remind\n",
        environment={"remind": "0.1.0"},
        visits=False,
        comparison={"methods": list(methods), "seeds": [0], "reference": "remind", "rows": rows},
        findings={name: {"rows": found, "next": []} for name, found in
                  (("modalities", modality), ("experts", experts), ("gradients", gradients))},
    )  # fmt: skip
    made.findings["modalities"]["next"].extend(modality)
    return replace(made, **changed)


def test_a_page_of_a_large_study_stays_below_3_megabytes():
    text = page(content(300, 64, METHODS))
    assert len(text.encode()) < 3_000_000


def test_every_method_has_a_colour_and_the_run_in_detail_the_first():
    for name, chart in charts(content(6, 4, METHODS)).items():
        for layer in chart.get("layer", [chart]):
            colour = layer.get("encoding", {}).get("color", {})
            if colour.get("field") == "method":
                assert colour["scale"]["domain"] == ["remind", *METHODS[:-1]], name
                assert len(set(colour["scale"]["range"])) == len(METHODS)


def test_no_word_of_a_user_is_in_an_expression():
    """Vega takes some words for operators, and an expression is where an enemy would be."""
    odd = content(modalities=2)
    odd = replace(odd, modalities=["constructor", "toString"])
    odd.combinations[0]["label"] = "constructor"
    text = json.dumps(charts(odd))
    assert "constructor" in text
    for name, chart in charts(odd).items():
        assert "Expr" not in json.dumps(chart), name
        assert '"sort": ["' not in json.dumps(chart), name


def test_labels_that_are_alike_when_cut_are_lines_of_their_own():
    lines = charts(content(40, 64))["scores"]["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert len(set(lines)) == len(lines) == 3 + 25


def test_a_loss_that_is_not_finite_is_a_gap_and_not_the_end_of_the_page():
    broken = content()
    broken.history[3] = broken.history[3] | {"train_loss": float("nan"), "validation_loss": float("inf")}
    for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page(broken), re.DOTALL):
        json.loads(block, parse_constant=pytest.fail)


@pytest.mark.parametrize("part", ["head", "tail"])
def test_a_run_without_head_or_tail_has_a_page_and_a_card(part):
    bare = content(comparison=None, findings={})
    bare.parts[part] = scores(0, accuracy=None, macro_f1=None, macro_auroc=None, intervals={})
    for text in (page(bare), card(bare)):
        assert "made up" in text


def test_where_patients_have_several_samples_sentences_say_so():
    many = content()
    many.parts["overall"] |= {"n": 300, "subjects": 1}
    assert "Of 300 samples of 1 patient in the test split" in known(many)[0]


def test_a_single_combination_is_not_the_worst_of_several():
    assert not any("fares worst" in sentence for sentence in known(content(1)))
    assert any("fares worst" in sentence for sentence in known(content(4)))


# Suppression


def test_macro_scores_are_not_shown_where_a_class_is_too_small():
    small = content()
    small.combinations[3] |= {"smallest": 2}
    small.parts["tail"] |= {"smallest": 3}
    found = suppress(small, 5)
    line = next(line for line in found.combinations if line["name"] == small.combinations[3]["name"])
    for one in (line, found.parts["tail"]):
        assert (one["macro_f1"], one["macro_auroc"]) == (None, None)
        assert one["accuracy"] == 0.812
        assert one["intervals"]["macro_f1"] == {"reason": "too few people in a class"}
    assert found.parts["head"]["macro_f1"] == 0.8
    rows = {row["row"]: row for row in found.comparison["rows"]}
    assert rows["tail"]["scores"]["remind"]["macro_f1"]["mean"] is None
    assert rows["tail"]["scores"]["remind"]["accuracy"]["mean"] == 0.8
    assert "macro_f1" not in rows["tail"]["differences"]["method-8"]
    assert rows["head"]["scores"]["remind"]["macro_f1"]["mean"] == 0.8


def test_nothing_small_is_left_anywhere_in_the_content():
    found = suppress(content(sizes=[40, 30, 20, 12, 4, 3, 2, 1]), 5)
    assert [line["n"] for line in found.combinations] == [40, 30, 20, 12, 10]
    assert found.combinations[-1]["held"] is None
    assert all(line["calibration"]["raw"]["bins"] == [] for line in found.combinations if line["calibration"])
    for name in ("modalities", "experts"):
        rows = [*found.findings[name]["rows"], *found.findings[name]["next"]]
        assert rows
        assert not any({"n", "subjects"} & row.keys() for row in rows)
    hidden = {line["name"] for line in content(sizes=[40, 30, 20, 12, 4, 3, 2, 1]).combinations[4:]}
    text = page(found) + card(found)
    assert not any(json.dumps(name)[1:-1] in text for name in hidden)
    assert len(found.history[0]["group_weights"]) == len(found.groups) == 4
    assert "reliability" not in charts(found)
    assert not any("fewer than 10 patients each" in sentence for sentence in unknown(found))


def test_a_combination_called_like_a_part_is_none():
    odd = content(sizes=[40, 30, 20, 12, 3])
    odd.comparison["rows"].append({**odd.comparison["rows"][0], "row": "head", "kind": "tail"})
    odd.combinations[4] |= {"name": "head"}
    found = suppress(odd, 5)
    assert [row["kind"] for row in found.comparison["rows"]] == [None] * 3
    assert not any(line["name"] == "head" for line in found.combinations)


def test_suppression_is_refused_where_people_have_several_samples():
    with pytest.raises(RemindError, match="one sample a person"):
        suppress(content(visits=True), 5)
    assert suppress(content(visits=True), 0).suppressed == 0
