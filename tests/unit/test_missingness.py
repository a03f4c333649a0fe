"""New missingness: what each rule removes, from whom, and what of the old cohort stays as it was."""

import json
import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from remind.cohort.cohort import Cohort, load
from remind.cohort.missingness import RULES, mask
from remind.cohort.missingness.extreme import extreme
from remind.cohort.missingness.logistic import intercept, sigmoid, standardised
from remind.cohort.missingness.mar import mar
from remind.cohort.missingness.mcar import mcar
from remind.cohort.missingness.mnar import mnar
from remind.cohort.missingness.shares import PAPER, shares
from remind.cohort.spec import CohortSpec
from remind.cohort.splits import SPLITS
from remind.cohort.table import write_cohort
from remind.errors import RemindError

CLASSES = ["none", "mild", "severe"]
WARDS = ["east", "north", "west"]
CHI2 = {1: 3.841, 2: 5.991, 6: 12.592}  # exceeded by one in twenty
SPEC = {
    "name": "wards",
    "id": "visit",
    "subject": "patient",
    "label": {"column": "grade", "classes": CLASSES},
    "modalities": {
        "labs": {"kind": "tabular", "columns": ["hba1c", "crp", "comment"]},
        "vitals": {"kind": "tabular", "columns": ["pulse"]},
        "notes": {"kind": "tabular", "columns": ["words", "author"], "categorical": ["author"]},
    },
}
COLUMNS = {"labs": ["hba1c", "crp", "comment"], "vitals": ["pulse"], "notes": ["words", "author"]}


def table(n=1200, seed=0):
    """Visits, two a patient, each with every modality; grade depends on the ward and on age, and labs on the grade."""
    rng = np.random.default_rng(seed)
    ward = rng.integers(3, size=n)
    age = 50 + 10 * rng.standard_normal(n)
    grade = np.where(rng.random(n) < 0.5, ward, (rng.random(n) + (age > 50)).round().astype(int))
    hba1c = grade + rng.standard_normal(n)
    return pl.DataFrame(
        {
            "visit": [f"v{i:05d}" for i in range(n)],
            "patient": [f"p{i // 2:05d}" for i in range(n)],
            "grade": [CLASSES[g] for g in grade],
            "hba1c": hba1c,
            "crp": -hba1c + rng.standard_normal(n) / 2,
            "comment": [f"canary {i % 3}" for i in range(n)],
            "pulse": 86420 + rng.standard_normal(n),
            "words": rng.standard_normal(n),
            "author": rng.integers(4, size=n),
            "ward": [WARDS[w] for w in ward],
            "age": [None if i < 3 else years for i, years in enumerate(age.tolist())],
        }
    )


def without(samples, seed=1):
    """The table with each modality taken from some, and at least one left to each sample."""
    there = np.random.default_rng(seed).random((len(samples), 3)) < 0.6
    there[~there.any(axis=1), 0] = True
    nulls = {
        column: pl.when(pl.lit(pl.Series(there[:, place]))).then(pl.col(column))
        for place, columns in enumerate(COLUMNS.values())
        for column in columns
    }
    return samples.with_columns(**nulls)


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Cohort:
    return load(write_cohort(tmp_path_factory.mktemp("full") / "wards", SPEC, table()))


@pytest.fixture(scope="module")
def ragged(tmp_path_factory) -> Cohort:
    return load(write_cohort(tmp_path_factory.mktemp("ragged") / "wards", SPEC, without(table())))


def lost(cohort, masked, modality):
    """Which samples that had it lost it, ``bool [k]``, and who had it."""
    place = cohort.modalities.index(modality)
    had = cohort.available[:, place]
    return ~masked.keep[had, place], had


def pearson(losing, index):
    """Pearson's chi-square of a fourfold or larger table, of who loses it by ``index``."""
    counts = np.array([[np.sum(losing[index == i] == value) for value in (False, True)] for i in np.unique(index)])
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def labels(cohort, keep=None):
    names = np.array(cohort.modalities)
    return Counter("+".join(names[row]) for row in (cohort.available if keep is None else keep))


def ward(cohort):
    return table()["ward"].to_numpy()[[int(name[1:]) for name in cohort.ids]]


def report(folder):
    return json.loads((folder / "mask.json").read_text())


EACH = [
    ("mcar", {"remove": {"labs": 0.4, "notes": 0.9}}),
    ("mar", {"remove": {"labs": 0.4, "notes": 0.9}, "given": ["pulse", "ward", "age"]}),
    ("mnar", {"remove": {"labs": 0.4, "vitals": 0.9, "notes": 0.7}, "given": "label"}),
    ("mnar", {"remove": {"labs": 0.4, "vitals": 0.9, "notes": 0.7}, "given": "value"}),
    ("shares", {"shares": {"labs+vitals": 0.5, "labs": 0.25, "vitals": 0.25}}),
    ("shares", {"shares": "mimic-iv"}),
    ("extreme", {"modality": "labs"}),
    ("hold-out", {"combinations": ["notes+labs"]}),
]
each = pytest.mark.parametrize(("rule", "chosen"), EACH, ids=lambda part: part if isinstance(part, str) else "")


# Every rule


@each
@pytest.mark.filterwarnings("error")
def test_a_new_cohort_is_sound_and_nothing_but_masked_cells_is_new(ragged, tmp_path, rule, chosen):
    new = load(mask(ragged, tmp_path / "new", rule, seed=3, **chosen))
    assert new.spec.name == f"wards-{rule}"
    assert new.spec.label == ragged.spec.label
    row = {name: place for place, name in enumerate(ragged.ids)}
    old = ragged.samples[[row[name] for name in new.ids]]
    for column in ("visit", "patient", "grade"):
        assert new.samples[column].equals(old[column])
    for name in new.modalities:
        assert new.spec.modalities[name] == ragged.spec.modalities[name]
        here = new.available[:, new.modalities.index(name)]
        for column in COLUMNS[name]:
            assert new.samples[column].dtype == old[column].dtype
            assert new.samples[column].filter(pl.Series(here)).equals(old[column].filter(pl.Series(here)))
            assert new.samples[column].filter(pl.Series(~here)).is_null().all()
    assert new.available.any(axis=1).all()
    if rule != "hold-out":
        assert not new.available.all()


@each
def test_nobody_moves_between_splits_but_to_be_held_out(ragged, tmp_path, rule, chosen):
    new = load(mask(ragged, tmp_path / "new", rule, seed=3, **chosen))
    assert new.spec.model_dump()["split"] == {"column": "split"}
    before = dict(zip(ragged.ids, ragged.split.tolist(), strict=True))
    moved = [name for name, split in zip(new.ids, new.split.tolist(), strict=True) if before[name] != split]
    assert bool(moved) == (rule == "hold-out")


@each
def test_the_report_says_what_was_done(ragged, tmp_path, rule, chosen):
    folder = mask(ragged, tmp_path / "new", rule, seed=3, **chosen)
    new, said = load(folder), report(folder)
    assert said["rule"] == rule
    assert said["seed"] == 3
    assert said["source"] == {"name": "wards", "fingerprint": ragged.fingerprint}
    assert said["settings"].items() >= chosen.items()
    assert said["dropped"] == len(ragged) - len(new)
    for key, cohort in (("before", ragged), ("after", new)):
        assert {line["combination"]: line["n"] for line in said[key]} == labels(cohort)
        assert sum(line["share"] for line in said[key]) == pytest.approx(1)
    assert list(said["removed"]) == list(new.modalities)
    for place, name in enumerate(new.modalities):
        line = said["removed"][name]
        assert line["had"] - line["lost"] == new.available[:, place].sum()
        assert line["share"] == pytest.approx(line["lost"] / line["had"])
    text = (folder / "mask.json").read_text()
    assert not any(word in text for word in ("canary", "86420", "v00", "p00", "east"))


@each
def test_one_seed_one_cohort_and_another_seed_another(ragged, tmp_path, rule, chosen):
    first, again, other = (
        load(mask(ragged, tmp_path / name, rule, seed=seed, **chosen)) for name, seed in (("a", 7), ("b", 7), ("c", 8))
    )
    assert first.fingerprint == again.fingerprint
    assert (first.fingerprint == other.fingerprint) == (rule == "hold-out")


@each
def test_the_order_of_the_rows_does_not_matter(ragged, tmp_path, rule, chosen):
    order = np.random.default_rng(5).permutation(len(ragged))
    shuffled = load(write_cohort(tmp_path / "shuffled", SPEC, without(table())[order]))
    one, other = mask(ragged, tmp_path / "a", rule, **chosen), mask(shuffled, tmp_path / "b", rule, **chosen)
    for name in ("samples.parquet", "cohort.yaml", "mask.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


@given(
    st.lists(st.lists(st.booleans(), min_size=3, max_size=3).filter(any), min_size=2, max_size=40),
    st.integers(0, 999),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
    st.floats(0, 50),
)
@settings(deadline=None, max_examples=100)
def test_whatever_is_removed_was_there_and_something_stays(there, seed, first, second, strength):
    available = np.array(there)
    n = len(available)
    samples = table(n).with_columns(
        pl.when(pl.lit(pl.Series(available[:, place]))).then(pl.col(column)).alias(column)
        for place, columns in enumerate(COLUMNS.values())
        for column in columns
    )
    cohort = Cohort(CohortSpec.model_validate(SPEC), samples)
    np.testing.assert_array_equal(cohort.available, available)
    asked = (("labs", 0, first), ("notes", 2, second))
    remove = {name: share for name, place, share in asked if available[:, place].any()} or {"vitals": first}
    found = [mcar(cohort, seed, remove=remove), mnar(cohort, seed, remove=remove, given="label", strength=strength)]
    if samples["pulse"].n_unique() > 1 and "vitals" not in remove:
        found.append(mar(cohort, seed, remove=remove, given=["pulse"], strength=strength))
    for masked in found:
        assert not (masked.keep & ~available).any()
        assert masked.keep.any(axis=1).all()
        for place, name in enumerate(cohort.modalities):
            assert name in remove or (masked.keep[:, place] == available[:, place]).all()
        np.testing.assert_array_equal(masked.split, cohort.split)
    for place, name in enumerate(cohort.modalities):
        gone = (available & ~found[0].keep)[:, place].sum()
        assert gone <= int(remove.get(name, 0) * available[:, place].sum() + 0.5)


def test_what_is_removed_of_one_modality_does_not_depend_on_the_others(full):
    for rule, chosen in ((mcar, {}), (mar, {"given": ["pulse"]}), (mnar, {"given": "label"})):
        alone = rule(full, 4, remove={"labs": 0.3}, **chosen)
        both = rule(full, 4, remove={"notes": 0.3, "labs": 0.3}, **chosen)
        np.testing.assert_array_equal(alone.keep[:, 0], both.keep[:, 0])
        assert (both.keep[:, 0] != both.keep[:, 2]).any()  # and each has its own draw


def test_who_would_keep_nothing_keeps_one_of_theirs_drawn_at_random(full):
    masked = mcar(full, 0, remove={"labs": 0.99, "vitals": 0.99, "notes": 0.99})
    counts = labels(full, masked.keep)
    assert sum(counts[name] for name in full.modalities) > 1150
    assert [counts[name] for name in full.modalities] == pytest.approx([390] * 3, abs=70)


# Shares


@pytest.mark.parametrize("share", [0.001, 0.25, 0.5, 1 / 3, 0.9])
def test_mcar_removes_an_exact_share_of_those_who_have_it(full, ragged, share):
    for seed in range(3):
        assert lost(full, mcar(full, seed, remove={"labs": share}), "labs")[0].sum() == round(share * 1200)
    had = int(ragged.available[:, 1].sum())
    alone = (ragged.available.sum(axis=1) == 1) & ragged.available[:, 1]
    losing, there = lost(ragged, mcar(ragged, 0, remove={"vitals": share}), "vitals")
    assert not losing[alone[there]].any()
    assert losing.sum() <= int(share * had + 0.5)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.8])
@pytest.mark.parametrize("strength", [0.0, 2.0, 30.0])
def test_a_logistic_removal_has_the_expected_share(full, share, strength):
    achieved = [
        lost(full, rule(full, seed, remove={"labs": share}, strength=strength, given=given), "labs")[0].mean()
        for seed in range(20)
        for rule, given in ((mar, ["pulse", "ward"]), (mnar, "label"), (mnar, "value"))
    ]
    assert np.mean(achieved) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 1200 / 60))


def test_combination_shares_are_exact_by_largest_remainder_and_only_samples_with_all_of_them_stay(ragged, tmp_path):
    asked = {"vitals+labs": 0.61, "labs": 0.29, "vitals": 0.1}
    folder = mask(ragged, tmp_path / "new", "shares", shares=asked)
    new, stay = load(folder), int(ragged.available[:, :2].all(axis=1).sum())
    assert new.modalities == ("labs", "vitals")
    assert len(new) == stay
    assert report(folder)["dropped"] == len(ragged) - stay
    counts, quota = labels(new), {"labs+vitals": 0.61 * stay, "labs": 0.29 * stay, "vitals": 0.1 * stay}
    assert all(abs(counts[name] - quota[name]) < 1 for name in quota)
    by_remainder = sorted(quota, key=lambda name: math.floor(quota[name]) - quota[name])
    up = stay - sum(math.floor(value) for value in quota.values())
    assert {name for name in quota if counts[name] > quota[name]} == set(by_remainder[:up])


def test_a_combination_may_have_everyone(full):
    masked = shares(full, 0, shares={"notes": 1.0})
    assert labels(full, masked.keep) == {"notes": 1200}
    assert masked.modalities == ("notes",)


def test_modalities_chooses_and_orders(full, tmp_path):
    folder = mask(full, tmp_path / "new", "shares", shares="mimic-iv", modalities="notes, labs,vitals")
    new = load(folder)
    assert new.modalities == ("notes", "labs", "vitals")
    counts = labels(new)  # text, labs, icd are notes, labs, vitals
    percent = {"notes": 4.8, "labs": 5.2, "notes+labs": 14.3, "vitals": 5.2, "notes+vitals": 15.5}
    assert {name: counts[name] / 12 for name in percent} == pytest.approx(percent, abs=0.1)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_shares(tmp_path, name):
    theirs, percent = PAPER[name]
    assert sum(percent.values()) == pytest.approx(100, abs=0.2)
    columns = {modality: [f"{modality}_1"] for modality in theirs}
    spec = {**SPEC, "modalities": {m: {"kind": "tabular", "columns": c} for m, c in columns.items()}}
    samples = table(1000).select("visit", "patient", "grade", *(pl.lit(1.0).alias(f"{m}_1") for m in theirs))
    new = load(mask(load(write_cohort(tmp_path / "old", spec, samples)), tmp_path / "new", "shares", shares=name))
    counts = labels(new)
    wanted = {"+".join(theirs[int(n) - 1] for n in key.split("+")): value for key, value in percent.items()}
    assert set(counts) == set(wanted)
    assert all(abs(counts[key] - 10 * wanted[key] * 100 / sum(percent.values())) < 1 for key in wanted)


@pytest.mark.parametrize("share", [0.8, 0.3, 1.0])
def test_extreme_takes_the_modality_from_an_exact_share_of_the_complete(ragged, share):
    masked = extreme(ragged, 0, modality="labs", share=share)
    complete = ragged.available.all(axis=1)
    np.testing.assert_array_equal(masked.keep.any(axis=1), complete)
    held = masked.keep[complete].sum(axis=1)
    assert set(held) <= {2, 3}
    losers = int(share * complete.sum() + 0.5)
    assert (held == 2).sum() == losers
    assert (~masked.keep[complete]).sum(axis=0).tolist() == [losers, 0, 0]
    rows = [tuple(row) for row in masked.keep[complete]]
    assert share == 1 or rows != sorted(rows)


# Whom it depends on


def test_mcar_is_independent_of_label_and_ward(full):
    seeds, wards = 300, ward(full)
    losing = [lost(full, mcar(full, seed, remove={"labs": 0.3}), "labs")[0] for seed in range(seeds)]
    for index in (full.target, wards):
        rejected = np.mean([pearson(one, index) > CHI2[2] for one in losing])
        assert rejected == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / seeds))
    assert np.mean(losing, axis=0) == pytest.approx(np.full(1200, 0.3), abs=5 * math.sqrt(0.21 / seeds))


def test_mar_depends_on_what_is_given_and_within_its_strata_not_on_the_label(full):
    seeds, wards = 200, ward(full)
    marginal, within, by_ward = [], [], []
    for seed in range(seeds):
        losing, _ = lost(full, mar(full, seed, remove={"labs": 0.4}, given=["ward"]), "labs")
        by_ward.append(pearson(losing, wards) > CHI2[2])
        marginal.append(pearson(losing, full.target) > CHI2[2])
        strata = [pearson(losing[wards == name], full.target[wards == name]) for name in WARDS]
        within.append(sum(strata) > CHI2[6])
    assert np.mean(by_ward) > 0.95
    assert np.mean(marginal) > 0.5  # the ward says something of the grade
    assert np.mean(within) == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / seeds))


def test_mar_by_a_number_has_the_strength_asked_for(full):
    pulse = standardised(full.samples["pulse"])[:, None]
    slopes = []
    for seed in range(10):
        losing, _ = lost(full, mar(full, seed, remove={"labs": 0.4}, given=["pulse"], strength=3.0), "labs")
        slopes.append(float(LogisticRegression(C=1e6).fit(pulse, losing).coef_[0, 0]))
    assert np.abs(slopes) == pytest.approx(np.full(10, 3.0), abs=0.7)
    assert {math.copysign(1, slope) for slope in slopes} == {-1.0, 1.0}


def test_mar_reads_an_empty_cell_as_a_fact_of_its_own(ragged):
    """Every seed treats those without vitals differently from a patient of average pulse, more or less."""
    gaps = []
    for seed in range(20):
        losing, had = lost(ragged, mar(ragged, seed, remove={"labs": 0.5}, given=["pulse"], strength=6.0), "labs")
        others = ragged.available[had][:, 1:].any(axis=1)  # the rest cannot lose it
        empty = ~ragged.available[had, 1]
        gaps.append(losing[others & empty].mean() - losing[others & ~empty].mean())
    assert np.abs(gaps).mean() > 0.15


def test_mar_takes_codes_for_categories(full):
    """Four authors: their log-odds are not in the order of their numbers, but for one draw in twelve."""
    author, monotone = full.samples["author"].to_numpy(), 0
    for seed in range(24):
        losing, _ = lost(full, mar(full, seed, remove={"labs": 0.5}, given=["author"]), "labs")
        rates = [losing[author == code].mean() for code in range(4)]
        monotone += sorted(rates) in (rates, rates[::-1])
    assert monotone <= 8


def test_mnar_by_label_has_the_strength_asked_for(full):
    norms = []
    for seed in range(40):
        losing, _ = lost(full, mnar(full, seed, remove={"labs": 0.4}, given="label", strength=2.0), "labs")
        assert pearson(losing, full.target) > 30
        rates = np.array([losing[full.target == y].mean() for y in range(3)])
        odds = np.log(rates / (1 - rates))
        norms.append(np.linalg.norm(odds - odds.mean()))
    assert np.mean(norms) == pytest.approx(2.0, abs=0.15)


def test_mnar_by_label_where_all_who_have_it_are_of_one_class(full):
    mild = full.target == 1
    few = full.samples.with_columns(pulse=pl.when(pl.lit(pl.Series(mild))).then(pl.col("pulse")))
    masked = mnar(Cohort(full.spec, few), 0, remove={"vitals": 0.5}, given="label")
    assert masked.keep[mild, 1].mean() == pytest.approx(0.5, abs=0.1)


def test_mnar_by_value_depends_on_the_modalitys_own_numbers(full):
    x = np.stack([standardised(full.samples[column]) for column in ("hba1c", "crp")], axis=1)
    component = standardised(pl.Series(x @ [1, -1]))[:, None]  # they run against each other
    slopes = []
    for seed in range(10):
        losing, _ = lost(full, mnar(full, seed, remove={"labs": 0.4}, given="value"), "labs")
        slopes.append(float(LogisticRegression(C=1e6).fit(component, losing).coef_[0, 0]))
    assert np.abs(slopes) == pytest.approx(np.full(10, 2.0), abs=0.5)
    assert {math.copysign(1, slope) for slope in slopes} == {-1.0, 1.0}


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50), st.floats(0.001, 0.999))
@settings(deadline=None, max_examples=100)
def test_the_intercept_gives_the_expected_share(score, share):
    values = np.array(score)
    assert sigmoid(values + intercept(values, share)).mean() == pytest.approx(share, rel=1e-6)


# Hold out


def test_what_is_held_out_is_in_the_test_split_and_nowhere_else(ragged, tmp_path):
    held = [
        ragged.available[:, 0] & ~ragged.available[:, 1] & ragged.available[:, 2],
        ~ragged.available[:, :2].any(axis=1),
    ]
    assert all(set(ragged.split[one]) == {0, 1, 2} for one in held)
    new = load(mask(ragged, tmp_path / "new", "hold-out", combinations="notes+labs, notes"))
    np.testing.assert_array_equal(new.available, ragged.available)
    who = set(ragged.subjects[held[0] | held[1]])
    for name, before, after in zip(ragged.subjects, ragged.split, new.split, strict=True):
        assert after == (SPLITS.index("test") if name in who else before)
    assert not (held[0] | held[1])[new.rows("train")].any()
    assert not (held[0] | held[1])[new.rows("validation")].any()
    assert not {"labs+notes", "notes"} & set(new.groups.labels())
    assert all(len(set(new.split[new.subjects == name])) == 1 for name in who)


# The new cohort's columns


def test_a_split_column_of_the_old_cohort_is_kept_as_split(tmp_path):
    parts = pl.Series("part", [SPLITS[i // 2 % 3] for i in range(300)])
    old = load(write_cohort(tmp_path / "old", {**SPEC, "split": {"column": "part"}}, table(300).with_columns(parts)))
    new = load(mask(old, tmp_path / "new", "mcar", remove={"labs": 0.5}))
    assert new.samples["split"].to_list() == parts.to_list()
    assert "part" not in new.samples.columns
    again = load(mask(new, tmp_path / "again", "mcar", remove={"notes": 0.5}))
    assert again.samples["split"].to_list() == parts.to_list()
    assert again.spec.name == "wards-mcar-mcar"


@pytest.mark.parametrize("taken", ["visit", "patient", "grade", "pulse"])
def test_another_column_named_split_is_left_alone(tmp_path, taken):
    text = json.dumps(SPEC).replace(f'"{taken}"', '"split"')
    old = load(write_cohort(tmp_path / "old", json.loads(text), table(200).rename({taken: "split"})))
    new = load(mask(old, tmp_path / "new", "mcar", remove={"labs": 0.5}))
    assert new.spec.model_dump()["split"] == {"column": "split_"}
    assert new.samples["split"].equals(old.samples["split"])
    np.testing.assert_array_equal(new.split, old.split)


def test_columns_that_the_spec_does_not_name_stay_behind(full, tmp_path):
    new = pl.read_parquet(mask(full, tmp_path / "new", "mcar", remove={"labs": 0.5}) / "samples.parquet")
    assert new.columns == ["visit", "patient", "grade", *COLUMNS["labs"], "pulse", "words", "author", "split"]


# What cannot be done


ODD = table(60).with_columns(
    flat=pl.lit(1.0),
    endless=pl.Series([math.inf] + [1.0] * 59),
    day=pl.lit("2020-01-01").str.to_date(),
)
SHARED = {**SPEC["modalities"], "again": {"kind": "tabular", "columns": ["crp"]}}
WORDS = {"words": {"kind": "tabular", "columns": ["comment"]}, "pulse": {"kind": "tabular", "columns": ["pulse"]}}
LABS = {"remove": {"labs": 0.5}}


@pytest.mark.parametrize(
    ("rule", "chosen", "sentence"),
    [
        ("mcra", LABS, "unknown rule 'mcra'. Did you mean 'mcar'? Known: extreme, hold-out, mar, mcar, mnar, shares."),
        ("mcar", {}, "rule 'mcar' needs the setting 'remove'; give it."),
        ("mar", LABS, "rule 'mar' needs the setting 'given'; give it."),
        ("mcar", {"given": "label"}, "unknown setting of rule 'mcar' 'given'. Known: remove."),
        ("mcar", {"remove": {}}, "setting 'remove' of rule 'mcar': dictionary should have at least 1 item"),
        ("mcar", {"remove": {"labs": 1.0}}, "setting 'remove' of rule 'mcar': labs: input should be less than 1."),
        ("mcar", {"remove": {"labs": 0}}, "setting 'remove' of rule 'mcar': labs: input should be greater than 0."),
        (
            "mcar",
            {"remove": {"labz": 0.5}},
            "wards: unknown modality 'labz'. Did you mean 'labs'? Known: labs, notes, v",
        ),
        ("mcar", {**LABS, "seed": -1}, "the seed is -1; it must be at least 0."),
        ("mar", {"remove": {"labz": 0.5}, "given": ["age"]}, "wards: unknown modality 'labz'. Did you mean 'labs'?"),
        ("mar", {**LABS, "given": []}, "setting 'given' of rule 'mar': list should have at least 1 item"),
        (
            "mar",
            {**LABS, "given": "ages"},
            "wards: 'given' names an unknown column 'ages'. Did you mean 'age'? Known: a",
        ),
        (
            "mar",
            {**LABS, "given": "age, grade"},
            "wards: 'given' names the column 'grade', which is the label; use the rule mnar, with 'given' label.",
        ),
        ("mar", {**LABS, "given": "visit"}, "wards: 'given' names the column 'visit', which is the id; name one that"),
        (
            "mar",
            {**LABS, "given": "patient"},
            "wards: 'given' names the column 'patient', which is the subject; name one",
        ),
        (
            "mar",
            {**LABS, "given": "crp"},
            "wards: 'given' names the column 'crp', which belongs to modality 'labs', which is to be removed; name one "
            "that stays, or use mnar.",
        ),
        (
            "mar",
            {**LABS, "given": "flat"},
            "wards: 'given' names the column 'flat', which is the same for every sample",
        ),
        (
            "mar",
            {**LABS, "given": "endless"},
            "wards: 'given' names the column 'endless', which holds a number beyond 1e",
        ),
        (
            "mar",
            {**LABS, "given": "day"},
            "wards: 'given' names the column 'day', which holds neither numbers nor text;",
        ),
        ("mar", {**LABS, "given": "age", "strength": -1}, "setting 'strength' of rule 'mar': input should be greater"),
        ("mnar", {**LABS, "given": "ward"}, "setting 'given' of rule 'mnar': input should be 'label' or 'value'."),
        (
            "shares",
            {"shares": "mimic"},
            "unknown name of shares 'mimic'. Did you mean 'mimic-iv'? Known: embed, fprm, mi",
        ),
        (
            "shares",
            {"shares": "embed"},
            "wards: has 3 modalities where embed has 4 (cview_cc, cview_mlo, ffdm_cc, ffdm_mlo); choose as many, in "
            "that order: --modalities a,b,c,d.",
        ),
        (
            "shares",
            {"shares": "mimic-iv", "modalities": "labs,notes"},
            "wards: has 2 modalities where mimic-iv has 3 (te",
        ),
        (
            "shares",
            {"shares": "mimic-iv", "modalities": "labs,notes,labs"},
            "wards: 'modalities' (labs, notes, labs) must name each modality of the combinations (labs, notes) once",
        ),
        (
            "shares",
            {"shares": {"labs": 0.5, "notes": 0.5}, "modalities": ["labs", "notes", "vitals"]},
            "wards: 'modalities' (labs, notes, vitals) must name each modality of the combinations (labs, notes) once",
        ),
        ("shares", {"shares": {"labs+nots": 1.0}}, "wards: unknown modality 'nots'. Did you mean 'notes'?"),
        (
            "shares",
            {"shares": {"labs+notes": 0.5, "notes+labs": 0.5}},
            "wards: 'shares' names a combination twice; name each once.",
        ),
        ("shares", {"shares": {"labs": 0.5, "notes": 0.4}}, "wards: 'shares' sum to 0.9; they must sum to 1."),
        ("shares", {"shares": {}}, "wards: 'shares' sum to 0; they must sum to 1."),
        (
            "shares",
            {"shares": {"labs": 1.0, "notes": 0.0}},
            "wards: 'shares' holds a number that is not above 0; mend it.",
        ),
        ("shares", {"shares": {"labs": math.nan}}, "wards: 'shares' holds a number that is not above 0; mend it."),
        (
            "extreme",
            {"modality": "labs", "share": 0.0},
            "setting 'share' of rule 'extreme': input should be greater than 0.",
        ),
        ("hold-out", {"combinations": "labs+nots"}, "wards: unknown modality 'nots'. Did you mean 'notes'?"),
        (
            "hold-out",
            {"combinations": "notes+labs"},
            "wards: unknown combination 'labs+notes'. Did you mean 'labs+vital",
        ),
        (
            "hold-out",
            {"combinations": "labs+vitals+notes"},
            "wards: rule 'hold-out' leaves no sample in the train split; ask for less, or give that split "
            "more samples.",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(tmp_path, rule, chosen, sentence):
    refused(load(write_cohort(tmp_path / "old", SPEC, ODD)), tmp_path, rule, chosen, sentence)


def refused(cohort, tmp_path, rule, chosen, sentence):
    with pytest.raises(RemindError) as caught:
        mask(cohort, tmp_path / "new", rule, **chosen)
    assert str(caught.value).startswith(sentence)
    assert "canary" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def nulled(samples, *columns):
    return samples.with_columns(pl.lit(None, dtype=samples[column].dtype).alias(column) for column in columns)


@pytest.mark.parametrize(
    ("changes", "samples", "rule", "chosen", "sentence"),
    [
        (
            {},
            table(300).with_columns(free=pl.Series([f"canary {i}" for i in range(300)])),
            "mar",
            {**LABS, "given": "free"},
            "wards: 'given' names the column 'free', which has more than 100 categories; name one with fewer.",
        ),
        (
            {"modalities": WORDS},
            table(60),
            "mnar",
            {"remove": {"words": 0.5}, "given": "value"},
            "wards: modality 'words' has no numbers that vary; give 'label'.",
        ),
        (
            {"modalities": SHARED},
            table(60),
            "mcar",
            {"remove": {"again": 0.5}},
            "wards: modalities 'again' and 'labs' share the column 'crp'; one cannot be removed without the other: "
            "give each columns of its own.",
        ),
        (
            {},
            nulled(table(60), *COLUMNS["labs"]),
            "mcar",
            LABS,
            "wards: no sample has modality 'labs'; there is nothing to remove.",
        ),
        (
            {},
            nulled(table(60), *COLUMNS["labs"]),
            "shares",
            {"shares": "mimic-iv"},
            "wards: no sample has all of labs, vitals, notes; choose others.",
        ),
        (
            {},
            nulled(table(60), *COLUMNS["labs"]),
            "extreme",
            {"modality": "labs"},
            "wards: no sample has every modality; use the rule shares, which chooses some.",
        ),
        (
            {"modalities": {"pulse": {"kind": "tabular", "columns": ["pulse"]}}},
            table(60),
            "extreme",
            {"modality": "pulse"},
            "wards: has one modality; a sample that loses it would keep nothing.",
        ),
        (
            {},
            table(60).with_columns(pulse=pl.when(pl.int_range(60) < 2).then(pl.col("pulse"))),
            "extreme",
            {"modality": "labs"},
            "wards: rule 'extreme' leaves no sample in the ",
        ),
    ],
)
def test_what_a_cohort_does_not_allow_is_refused_in_one_sentence(tmp_path, changes, samples, rule, chosen, sentence):
    refused(load(write_cohort(tmp_path / "old", {**SPEC, **changes}, samples)), tmp_path, rule, chosen, sentence)


def test_a_shared_column_is_no_matter_where_neither_modality_is_removed(tmp_path):
    old = load(write_cohort(tmp_path / "old", {**SPEC, "modalities": SHARED}, table(60)))
    assert len(load(mask(old, tmp_path / "new", "mcar", remove={"notes": 0.5}))) == 60


def test_only_tables_have_a_value_to_depend_on(full):
    picture = full.spec.modalities["labs"].model_copy(update={"kind": "image"})
    modalities = {**full.spec.modalities, "labs": picture}
    cohort = Cohort(full.spec.model_copy(update={"modalities": modalities}), full.samples)
    with pytest.raises(RemindError) as caught:
        mnar(cohort, 0, remove={"labs": 0.5}, given="value")
    assert str(caught.value) == (
        "wards: modality 'labs' is of kind image, of which only tables have a 'value' to depend on; give 'label'."
    )


def test_a_folder_that_is_there_is_left_alone(full, tmp_path):
    (tmp_path / "new").mkdir()
    with pytest.raises(RemindError, match="is there already"):
        mask(full, tmp_path / "new", "extreme", modality="labs")
    assert not list((tmp_path / "new").iterdir())


def test_every_setting_can_be_checked_and_every_rule_is_listed():
    assert {name for name, _ in EACH} == set(RULES.names())
    for name, chosen in EACH:
        assert set(RULES.check(name, chosen)) == set(chosen)
    assert RULES.check("mar", {"given": "age, ward", "strength": "3"}) == {"given": ["age", "ward"], "strength": 3.0}
