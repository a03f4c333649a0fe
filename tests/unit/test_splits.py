from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remind.cohort.cohort import load
from remind.cohort.spec import SplitShares
from remind.cohort.splits import SPLITS, draw

SHARES = SplitShares(train=0.7, validation=0.1, test=0.2)


@st.composite
def cohorts(draw_from, repeated=True):
    """Subjects ``[n]``, labels ``[n]`` and combinations ``[n]``, and the shares of the splits."""
    n = draw_from(st.integers(1, 120))
    rng = np.random.default_rng(draw_from(st.integers(0, 2**32)))
    people = draw_from(st.integers(1, n))
    subject = rng.integers(people, size=n) if repeated else rng.permutation(n)
    label = rng.integers(draw_from(st.integers(1, 4)), size=n)
    combination = rng.integers(draw_from(st.integers(1, 6)), size=n)
    parts = draw_from(st.lists(st.integers(1, 20), min_size=3, max_size=3))
    train, validation, test = (part / sum(parts) for part in parts)
    shares = SplitShares(train=train, validation=validation, test=test, seed=draw_from(st.integers(0, 99)))
    return subject.astype(str), label, combination, shares


@given(cohorts())
@settings(deadline=None, max_examples=300)
def test_no_subject_stands_in_two_splits(cohort):
    subject, label, combination, shares = cohort
    split = draw(subject, label, combination, shares)
    assert split.shape == subject.shape
    assert set(split.tolist()) <= {0, 1, 2}
    assert all(len(set(split[subject == who].tolist())) == 1 for who in set(subject))


@given(cohorts())
@settings(deadline=None, max_examples=300)
def test_every_split_has_its_share_to_within_one_subject(cohort):
    subject, label, combination, shares = cohort
    split = draw(subject, label, combination, shares)
    largest = max(Counter(subject.tolist()).values())
    for place, share in enumerate((shares.train, shares.validation, shares.test)):
        assert abs((split == place).sum() - share * len(subject)) <= largest


@given(cohorts(repeated=False))
@settings(deadline=None, max_examples=200)
def test_every_stratum_is_divided_in_proportion_to_within_two_subjects(cohort):
    subject, label, combination, shares = cohort
    split = draw(subject, label, combination, shares)
    for stratum in set(zip(label.tolist(), combination.tolist(), strict=True)):
        inside = (label == stratum[0]) & (combination == stratum[1])
        for place, share in enumerate((shares.train, shares.validation, shares.test)):
            assert abs((split[inside] == place).sum() - share * inside.sum()) <= 2


def test_strata_of_one_fall_in_proportion_as_well():
    n = 1000
    split = draw(np.arange(n).astype(str), np.arange(n) % 2, np.arange(n), SHARES)
    assert np.bincount(split).tolist() == [700, 100, 200]
    assert np.bincount(split[np.arange(n) % 2 == 0]) == pytest.approx([350, 50, 100], abs=2)


@given(cohorts(), st.integers(0, 99))
@settings(deadline=None, max_examples=200)
def test_the_order_of_the_rows_does_not_matter(cohort, seed):
    subject, label, combination, shares = cohort
    order = np.random.default_rng(seed).permutation(len(subject))
    split = draw(subject, label, combination, shares)
    np.testing.assert_array_equal(draw(subject[order], label[order], combination[order], shares), split[order])


def test_one_seed_gives_one_split_and_another_seed_another():
    subject, label = np.arange(100).astype(str), np.arange(100) % 2
    drawn = [draw(subject, label, label, SHARES.model_copy(update={"seed": seed})) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_who_is_in_which_split_is_chance():
    """Over seeds every subject is in the test split as often as its share says."""
    subject, label = np.arange(50).astype(str), np.arange(50) % 2
    tests = [draw(subject, label, label, SHARES.model_copy(update={"seed": seed})) == 2 for seed in range(400)]
    assert np.mean(tests, axis=0) == pytest.approx(np.full(50, 0.2), abs=5 * 0.02)


def test_a_split_column_wins(clinic):
    parts = ["test"] * 30 + ["validation"] * 6 + ["train"] * 4
    folder = clinic(table=lambda table: table.with_columns(part=pl.Series(parts)), split={"column": "part"})
    assert [SPLITS[place] for place in load(folder).split] == parts
    assert load(folder).rows("train").tolist() == [36, 37, 38, 39]


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(SPLITS)])
def test_a_split_column_may_be_of_any_kind_of_text(clinic, dtype):
    parts = pl.Series(["train"] * 20 + ["validation"] * 10 + ["test"] * 10, dtype=dtype)
    folder = clinic(table=lambda table: table.with_columns(part=parts), split={"column": "part"})
    assert np.bincount(load(folder).split).tolist() == [20, 10, 10]
