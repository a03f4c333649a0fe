"""What small cells hide cannot be derived from what is shown."""

import numpy as np
import pytest

from remind.report.suppression import COUNTS, KINDS, join_kinds, merge, merge_classes

LEAST = 5


def table(seed):
    """Combinations of random sizes, most of them small; one of them large."""
    rng = np.random.default_rng(seed)
    large = {"name": "large", "label": "large", "kind": rng.choice(["head", "tail"]), "share": 0.0}
    lines = [large | {"trained": 60, "n": 9, "subjects": 7}]
    for place in range(rng.integers(2, 40)):
        kind = rng.choice(KINDS, p=[0.15, 0.65, 0.2])
        subjects = int(rng.geometric(rng.choice([0.5, 0.1, 0.02])) - 1)
        n = subjects + int(rng.integers(0, 3) * (subjects > 0))
        trained = 0 if kind == "unseen" else int(rng.geometric(rng.choice([0.3, 0.02])))
        sizes = {"trained": trained, "n": n, "subjects": subjects}
        lines.append({"name": f"c{place}", "label": f"c{place}", "kind": kind, "share": 0.0, **sizes})
    return lines


def released(lines):
    """What a report shows: lines, and the totals of the kinds that stand alone and of all."""
    joined = join_kinds(lines, LEAST)
    shown = [one for kind in KINDS for one in merge([line for line in lines if joined[line["kind"]] == kind], LEAST)]
    totals = {
        kind: {key: sum(line[key] for line in lines if line["kind"] == kind) for key in COUNTS}
        for kind in KINDS
        if list(joined.values()).count(joined[kind]) == 1
    }
    return shown, totals | {"overall": {key: sum(line[key] for line in lines) for key in COUNTS}}


@pytest.mark.parametrize("seed", range(200))
def test_no_small_cell_is_shown_or_left_between_lines_and_totals(seed):
    lines = table(seed)
    whole = {key: sum(line[key] for line in lines) for key in COUNTS}
    shown, totals = released(lines)
    for key in COUNTS:
        assert all(line[key] == 0 or line[key] >= LEAST for line in shown)
        assert sum(line[key] for line in shown) == whole[key]
        for kind, total in totals.items():
            named = [line[key] for line in shown if line["name"] and (kind in ("overall", line["kind"]))]
            rest = total[key] - sum(named)
            assert rest == 0 or rest >= LEAST, (kind, key)
        known = {kind: total[key] for kind, total in totals.items() if kind != "overall"}
        rest = whole[key] - sum(known.values())
        assert rest == 0 or rest >= LEAST, "kinds without a total"


@pytest.mark.parametrize("seed", range(50))
def test_what_is_merged_is_at_least_two_lines_or_empty_of_people(seed):
    lines = table(seed)
    shown, _ = released(lines)
    for kind in {line["kind"] for line in shown if line["name"] is None}:
        kept = {line["name"] for line in shown}
        hidden = [line for line in lines if line["name"] not in kept]
        assert len(hidden) != 1 or not any(0 < hidden[0][key] < LEAST for key in COUNTS), kind


def test_large_cells_are_left_as_they_are():
    lines = [
        {"name": name, "label": name, "kind": "tail", "share": 0.1, "trained": 50, "n": 20, "subjects": 20}
        for name in ("a", "b")
    ]
    assert list(merge(lines, LEAST)) == lines


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"a": 50, "b": 20, "c": 9}, {"a": 50, "b": 20, "c": 9}),
        ({"a": 50, "b": 20, "c": 3}, {"a": 50, "other classes": 23}),
        ({"a": 50, "b": 2, "c": 3}, {"a": 50, "other classes": 5}),
        ({"a": 50, "b": 0}, {"a": 50, "b": 0}),
        ({"a": 50, "b": 0, "c": 4, "d": 4}, {"a": 50, "other classes": 8}),  # who would know that b has nobody?
    ],
)
def test_classes_are_merged_until_none_can_be_told(counts, expected):
    assert merge_classes(counts, LEAST) == expected
