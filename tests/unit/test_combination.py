import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from remind.cohort.combination import Combination, GroupTable, distinct

MASKS = st.tuples(st.integers(1, 60), st.sampled_from([1, 2, 7, 8, 9, 64, 200])).flatmap(
    lambda shape: arrays(bool, shape)
)
FEW = st.integers(1, 60).flatmap(lambda rows: arrays(bool, (rows, 3)))  # repetitions
NAMES = [f"m{place}" for place in range(200)]


def names(available):
    return NAMES[: available.shape[1]]


@given(MASKS)
@settings(deadline=None, max_examples=50)
def test_a_combination_gives_back_the_mask_it_came_from(available):
    for mask in available:
        combination = Combination.of(mask)
        assert combination.mask(len(mask)) == mask.tolist()
        assert len(combination) == mask.sum()
        assert hash(combination) == hash(Combination.of(mask.tolist()))


def test_two_hundred_modalities_fit_into_a_combination():
    mask = np.zeros(200, dtype=bool)
    mask[[0, 63, 64, 199]] = True
    combination = Combination.of(mask)
    assert combination.bits == 1 + 2**63 + 2**64 + 2**199
    assert combination.label(NAMES) == "m0+m63+m64+m199"


def test_the_label_names_what_is_there_in_the_cohorts_order():
    assert Combination(0b101).label(["text", "labs", "scan"]) == "text+scan"
    assert Combination(0).label(["text", "labs"]) == ""


@given(st.one_of(MASKS, FEW))
@settings(deadline=None, max_examples=200)
def test_distinct_equals_a_set_of_tuples(available):
    masks, which, counts = distinct(available)
    rows = [tuple(row) for row in available.tolist()]
    found = [tuple(mask) for mask in masks.tolist()]
    assert len(found) == len(set(found))
    assert set(found) == set(rows)
    assert [found[place] for place in which] == rows
    assert [rows.count(mask) for mask in found] == counts.tolist()


@given(st.one_of(MASKS, FEW), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100)
def test_groups_do_not_depend_on_the_order_of_the_rows(available, random):
    order = list(range(len(available)))
    random.shuffle(order)
    assert GroupTable.fit(available[order], names(available)) == GroupTable.fit(available, names(available))


@given(st.one_of(MASKS, FEW))
@settings(deadline=None, max_examples=100)
def test_groups_are_the_combinations_there_are_the_most_frequent_first(available):
    table = GroupTable.fit(available, names(available))
    rows = [tuple(row) for row in available.tolist()]
    assert {tuple(mask) for mask in table.masks.tolist()} == set(rows)
    assert list(table.counts) == sorted(table.counts, reverse=True)
    assert list(table.counts) == [rows.count(tuple(mask)) for mask in table.masks.tolist()]
    assert table.shares.sum() == pytest.approx(1)
    assert table.shares == pytest.approx(np.array(table.counts) / len(rows))
    assert len(table) == len(set(rows)) == len(table.labels())
    assert [table.masks[group].tolist() for group in table.index(available)] == available.tolist()


def test_equally_frequent_groups_stand_in_the_order_of_their_bits():
    available = np.array([[False, True], [True, True], [True, False]])
    assert GroupTable.fit(available, ["a", "b"]).labels() == ["a", "b", "a+b"]


def test_a_group_is_tail_below_fifteen_per_cent():
    available = np.repeat([[True, True], [True, False], [False, True]], [71, 15, 14], axis=0)
    table = GroupTable.fit(available, ["a", "b"])
    assert table.labels() == ["a+b", "a", "b"]
    assert table.tail.tolist() == [False, False, True]
    assert GroupTable.fit(available, ["a", "b"], tail_below=0.2).tail.tolist() == [False, True, True]


def test_an_unseen_combination_has_no_group():
    table = GroupTable.fit(np.array([[True, True], [True, False], [True, True]]), ["a", "b"])
    assert table.index(np.array([[True, False], [False, True], [True, True], [False, False]])).tolist() == [
        1,
        -1,
        0,
        -1,
    ]
    assert table.index(np.zeros((0, 2), dtype=bool)).tolist() == []


@given(st.one_of(MASKS, FEW))
@settings(deadline=None, max_examples=50)
def test_a_table_survives_json(available):
    table = GroupTable.fit(available, names(available), tail_below=0.1 + 0.2)
    twin = GroupTable.from_json(json.loads(json.dumps(table.to_json())))
    assert twin == table
    np.testing.assert_array_equal(twin.masks, table.masks)
    np.testing.assert_array_equal(twin.tail, table.tail)
