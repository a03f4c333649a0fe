from collections.abc import Sequence
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from scipy.stats.contingency import association
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import BernoulliNB

from remind.cohort.association import co_missing, combination_and_label
from remind.cohort.cohort import Cohort, load
from remind.cohort.combination import distinct
from remind.cohort.describe import describe_cohort
from remind.cohort.shortcut import FOLDS, PRIOR, class_shares, deal_folds, held_out_auroc, mask_alone
from remind.cohort.spec import CohortSpec
from remind.cohort.splits import SPLITS

CLASSES = ["none", "mild", "severe"]


def build(available: np.ndarray, target: Sequence[int] | np.ndarray, owner: Sequence[int] | np.ndarray) -> Cohort:
    """A cohort of this availability ``[n, m]``, these classes and subjects ``[n]``."""
    modalities = {f"m{place}": {"kind": "tabular", "columns": [f"c{place}"]} for place in range(available.shape[1])}
    table = {
        "visit": [f"{row:06d}" for row in range(len(available))],
        "patient": [f"p{who:06d}" for who in owner],
        "grade": [CLASSES[place] for place in target],
        **{f"c{place}": [1.5 if there else None for there in column] for place, column in enumerate(available.T)},
    }
    spec = {"name": "built", "id": "visit", "subject": "patient", "label": {"column": "grade", "classes": CLASSES}}
    return Cohort(CohortSpec.model_validate({**spec, "modalities": modalities}), pl.DataFrame(table))


def drawn(seed: int, *, people: int = 200, modalities: int = 5, planted: bool = False, visits: int = 3) -> Cohort:
    """Subjects of one to three visits, each with habits of its own; planted: the first modality is ordered mostly for
    those who are not of the first class."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(people), rng.integers(1, visits + 1, size=people))
    ill = rng.integers(3, size=people)
    habits = rng.random((people, modalities)) < rng.uniform(0.4, 0.9, modalities)
    if planted:
        habits[:, 0] = rng.random(people) < np.where(ill == 0, 0.15, 0.85)
    available = habits[owner] ^ (rng.random((len(owner), modalities)) < 0.05)
    available[~available.any(axis=1), -1] = True
    return build(available, ill[owner], owner)


def asked(cohort: Cohort) -> dict:
    masks, which, _ = distinct(cohort.available)
    _, owner = np.unique(cohort.subjects, return_inverse=True)
    return mask_alone(masks, which, cohort.target, owner, cohort.classes)


# counts


@pytest.fixture(scope="module")
def described(cohort) -> dict:
    return describe_cohort(cohort)


def test_every_combination_has_its_classes_its_splits_and_its_kind():
    rng = np.random.default_rng(0)
    available = (rng.random((80, 7)) < 0.6) | (np.arange(80) < 30)[:, None]
    available[:, 0] = True
    cohort = build(available, rng.integers(3, size=80), np.arange(80) // 2)
    described = describe_cohort(cohort)
    groups = dict(zip(cohort.groups.labels(), cohort.groups.tail.tolist(), strict=True))
    names = ["+".join(np.array(cohort.modalities)[mask]) for mask in cohort.available]
    for line in described["combinations"]:
        here = np.array([name == line["combination"] for name in names])
        assert line["n"] == here.sum()
        assert list(line["classes"].values()) == [(cohort.target[here] == c).sum() for c in range(3)]
        for place, split in enumerate(SPLITS):
            n = (cohort.split[here] == place).sum()
            assert line["splits"][split] == {"n": n, "share": pytest.approx(n / (cohort.split == place).sum())}
        tail = groups.get(line["combination"])
        assert line["kind"] == {None: "unseen", True: "tail", False: "head"}[tail]
    assert {line["kind"] for line in described["combinations"]} == {"head", "tail", "unseen"}


def test_what_is_missing_together_is_a_correlation_of_indicators(cohort, described):
    missing = ~cohort.available
    pairs = {tuple(pair["modalities"]): pair for pair in described["co_missing"]}
    assert list(pairs) == list(combinations(cohort.modalities, 2))
    for (a, b), pair in pairs.items():
        columns = missing[:, [cohort.modalities.index(a), cohort.modalities.index(b)]].T
        assert pair["both"] == pytest.approx(columns.all(axis=0).mean())
        assert pair["phi"] == pytest.approx(np.corrcoef(columns)[0, 1])


def test_phi_is_one_for_twins_minus_one_for_either_or_and_none_for_a_constant():
    masks = np.array([[True, True, False, True], [False, False, True, True]])
    phi = {"".join(pair["modalities"]): pair["phi"] for pair in co_missing(masks, np.array([3, 5]), "abcd")}
    assert phi == {"ab": pytest.approx(1), "ac": pytest.approx(-1), "bc": pytest.approx(-1), **dict.fromkeys(
        ("ad", "bd", "cd"))}  # fmt: skip


# combination against label


def test_cramers_v_is_scipys_but_for_the_correction():
    counts = np.random.default_rng(0).integers(20, 90, size=(6, 3))
    found, n = combination_and_label(counts), counts.sum()
    plain = association(counts, method="cramer")
    corrected = max(0.0, plain**2 * 2 - 10 / (n - 1)) / (3 - 4 / (n - 1) - 1)
    assert found["cramers_v"] == pytest.approx(np.sqrt(corrected))
    assert found["cramers_v"] < plain
    assert found["pooled"] == 0


def test_a_combination_that_gives_away_the_class_has_a_v_of_one():
    assert combination_and_label(np.diag([4000, 5000, 6000]))["cramers_v"] == pytest.approx(1, abs=1e-3)


def test_a_class_nobody_has_does_not_count():
    counts = np.array([[30, 0, 20], [10, 0, 40]])
    assert combination_and_label(counts) == combination_and_label(counts[:, [0, 2]])


def test_rare_combinations_are_one_line_of_the_test():
    common = np.array([[50, 50], [80, 40]])
    found = combination_and_label(np.concatenate([common, np.tile([1, 2], (5, 1))]))
    assert found["pooled"] == 5
    assert found["p"] == combination_and_label(np.concatenate([common, [[5, 10]]]))["p"]


def test_rare_combinations_that_are_rare_even_together_take_the_least_frequent_other_with_them():
    found = combination_and_label(np.array([[50, 50], [80, 40], [20, 25], [1, 0]]))
    assert found["pooled"] == 2
    assert found["p"] == combination_and_label(np.array([[50, 50], [80, 40], [21, 25]]))["p"]


def test_v_is_near_zero_and_p_uniform_where_there_is_nothing_to_find():
    rng = np.random.default_rng(0)
    found = [combination_and_label(rng.multinomial(600, np.full((40, 3), 1 / 120).ravel()).reshape(40, 3))
             for _ in range(300)]  # fmt: skip
    assert np.mean([one["p"] <= 0.1 for one in found]) == pytest.approx(0.1, abs=0.06)
    assert np.mean([one["cramers_v"] for one in found]) < 0.06


# the mask alone


@pytest.mark.parametrize("planted", [False, True])
def test_the_auroc_is_that_of_a_cross_validation_row_by_row(planted):
    cohort = drawn(1, people=120, planted=planted)
    _, which, _ = distinct(cohort.available)
    _, owner = np.unique(cohort.subjects, return_inverse=True)
    rows = np.array([[which[row], cohort.target[row]] for row in range(len(cohort))])
    fold = deal_folds(owner, cohort.target, np.random.default_rng(0))[owner]
    curves = []
    for held in range(FOLDS):
        train, test = fold != held, fold == held
        members = np.bincount(cohort.target[train], minlength=3) + 1.0
        bayes = BernoulliNB(class_prior=members / members.sum()).fit(cohort.available[train], cohort.target[train])
        seen = [rows[train & (which == which[row])][:, 1] for row in np.flatnonzero(test)]
        own = np.array([np.bincount(classes, minlength=3) for classes in seen])
        shares = (own + PRIOR * bayes.predict_proba(cohort.available[test])) / (own.sum(axis=1, keepdims=True) + PRIOR)
        curves.append([roc_auc_score(cohort.target[test] == c, shares[:, c].round(12)) for c in range(3)])
    found = asked(cohort)
    assert found["auroc"] == pytest.approx(np.mean(curves))
    assert list(found["classes"].values()) == pytest.approx(np.mean(curves, axis=0))
    spread = np.std(np.mean(curves, axis=1), ddof=1) * np.sqrt(1 / 5 + 1 / 4) * 2.776445
    assert found["interval"] == pytest.approx([np.mean(curves) - spread, np.mean(curves) + spread])


def test_twenty_of_twenty_planted_shortcuts_are_found():
    found = [asked(drawn(seed, planted=True)) for seed in range(20)]
    assert all(one["shortcut"] for one in found)
    assert min(one["auroc"] for one in found) > 0.55


@pytest.mark.parametrize("visits", [1, 4])
def test_at_most_one_of_twenty_cohorts_without_one_is_accused(visits):
    """The visits of a subject are alike in mask and label: row by row, most of these would be."""
    found = [asked(drawn(100 + seed, visits=visits)) for seed in range(20)]
    assert sum(one["shortcut"] for one in found) <= 1
    assert np.mean([one["auroc"] for one in found]) == pytest.approx(0.5, abs=0.03)


def test_a_shortcut_to_one_class_of_many_is_one():
    rng = np.random.default_rng(0)
    target = np.arange(600) % 3
    available = rng.random((600, 3)) < 0.6
    available[:, 0] = rng.random(600) < np.where(target == 2, 0.95, 0.1)
    available[~available.any(axis=1), 1] = True
    found = asked(build(available, target, np.arange(600)))
    assert found["shortcut"]
    assert max(found["classes"], key=found["classes"].__getitem__) == "severe"


def test_a_combination_of_two_modalities_that_tells_the_class_is_found():
    """Neither bit says anything alone."""
    rng = np.random.default_rng(0)
    available = rng.random((800, 3)) < 0.5
    available[:, 2] = True
    found = asked(build(available, (available[:, 0] ^ available[:, 1]).astype(int), np.arange(800)))
    assert found["auroc"] > 0.95


def test_a_mask_nobody_can_tell_apart_is_worth_a_half():
    found = asked(build(np.ones((60, 3), dtype=bool), np.arange(60) % 3, np.arange(60)))
    assert (found["auroc"], found["interval"], found["p"], found["shortcut"]) == (0.5, [0.5, 0.5], 1.0, False)


def test_folds_hold_whole_subjects_and_every_class_in_equal_parts():
    cohort = drawn(3)
    _, owner = np.unique(cohort.subjects, return_inverse=True)
    fold = deal_folds(owner, cohort.target, np.random.default_rng(0))
    assert len(fold) == len(set(cohort.subjects))
    label = cohort.target[np.unique(owner, return_index=True)[1]]  # the same at every visit
    for c in range(3):
        assert np.ptp(np.bincount(fold[label == c], minlength=FOLDS)) <= 1


def test_a_rare_combination_is_judged_by_its_bits_and_a_frequent_one_by_itself():
    masks = np.array([[True, False], [False, True], [True, True]])
    counts = np.array([[900, 100], [100, 900], [0, 3000]])
    shares = class_shares(masks, counts)
    assert shares.sum(axis=1) == pytest.approx(1)
    assert shares[:2, 0] == pytest.approx([0.9, 0.1], abs=0.03)
    assert shares[2, 1] > 0.98
    unseen = class_shares(masks, np.array([[900, 100], [100, 900], [0, 0]]))[2]
    assert unseen == pytest.approx([0.5, 0.5])


def test_held_out_members_never_speak_for_themselves():
    """Every combination is of one class only, and held out whole: what is left says nothing, or the opposite."""
    counts = np.zeros((2, 2, 2), dtype=int)
    counts[0, 0], counts[1, 1] = (30, 10), (10, 30)
    masks = np.array([[True, False], [False, True]])
    assert held_out_auroc(masks, counts, np.array([0, 1])) == pytest.approx(0.5)


# whatever the cohort


def test_the_order_of_the_rows_of_the_file_does_not_matter(clinic):
    one = describe_cohort(load(clinic("one")))
    other = describe_cohort(load(clinic("other", table=lambda table: table.sample(fraction=1, shuffle=True, seed=3))))
    assert one == other


def test_one_modality_has_no_pairs():
    found = describe_cohort(build(np.ones((40, 1), dtype=bool), np.arange(40) % 2, np.arange(40)))
    assert found["co_missing"] == []
    assert [line["combination"] for line in found["combinations"]] == ["m0"]
    assert found["combination_and_label"]["reason"] == "all samples have the same combination"


def test_everyone_complete():
    found = describe_cohort(build(np.ones((40, 3), dtype=bool), np.arange(40) % 2, np.arange(40)))
    assert [(pair["both"], pair["phi"]) for pair in found["co_missing"]] == [(0.0, None)] * 3
    assert found["combinations"][0]["kind"] == "head"
    assert not found["mask_alone"]["shortcut"]


def test_one_class():
    available = np.random.default_rng(0).random((40, 3)) < 0.5
    available[:, 0] = True
    found = describe_cohort(build(available, np.zeros(40, dtype=int), np.arange(40)))
    for part in ("mask_alone", "combination_and_label"):
        assert found[part]["reason"] == "all samples are of one class"
    assert found["mask_alone"]["auroc"] is found["mask_alone"]["shortcut"] is None
    assert found["splits"]["test"]["classes"]["mild"] == 0


def test_a_class_of_four_subjects_is_not_judged_and_the_others_are():
    target = np.array([0, 1] * 30 + [2] * 4)
    available = np.random.default_rng(0).random((64, 3)) < 0.5
    available[:, 0] = True
    assert list(asked(build(available, target, np.arange(64)))["classes"]) == ["none", "mild"]


@pytest.mark.parametrize("owner", [[0] * 12, [0] * 6 + [1] * 6])
def test_one_subject_or_two_are_too_few_to_ask(owner):
    found = describe_cohort(build(np.ones((12, 2), dtype=bool), np.arange(12) % 2, owner))
    assert found["subjects"] == len(set(owner))
    assert found["mask_alone"]["reason"].startswith("too few subjects")
    assert sum(line["splits"][split]["n"] for line in found["combinations"] for split in SPLITS) == 12


def test_more_modalities_than_bits_in_a_word():
    available = np.random.default_rng(0).random((50, 70)) < 0.8
    found = describe_cohort(build(available, np.arange(50) % 2, np.arange(50)))
    assert len(found["co_missing"]) == 70 * 69 / 2
    assert found["mask_alone"]["p"] > 0.01
