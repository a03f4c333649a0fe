"""Tables: what is learned from training rows only, how cells become tensors, and how those become tokens."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from remind.cohort.cohort import load
from remind.encoders.tabular import TabularEncoder
from remind.modalities import Cells
from remind.modalities.spec import TabularModality
from remind.modalities.tabular import TabularInput, TabularShape, TabularTransform

MODALITY = TabularModality(kind="tabular", columns=["age", "site", "smokes", "ward"], categorical=["ward"])
SCHEMA = {"age": pl.Float64, "site": pl.String, "smokes": pl.Boolean, "ward": pl.Int64}


def fit(samples, modality):
    """The transform that these training rows teach."""
    ids = [str(row) for row in range(samples.height)]
    return TabularTransform.fit(Cells("table", modality, samples.select(modality.columns), ids, Path()), {})


def table(*rows):
    return pl.DataFrame(rows, SCHEMA, orient="row")


TRAINING = table([40.0, "b", True, 10], [60.0, "a", False, 2], [None, None, None, None], [80.0, "b", True, 2])


def test_numbers_are_standardised_by_the_training_rows_and_categories_coded_in_their_order():
    transform = fit(TRAINING, MODALITY)
    assert transform.shape == TabularShape(2, (3, 3))
    assert transform.categories == {"site": ["a", "b"], "ward": ["10", "2"]}
    made = transform.apply(table([70.0, "a", False, 10]))
    age = (70 - 60) / np.std([40, 60, 80])
    smokes = (0 - 2 / 3) / np.std([1, 0, 1])
    assert made.numbers[0].tolist() == pytest.approx([age, smokes])
    assert made.observed.tolist() == [[True, True]]
    assert made.codes.tolist() == [[1, 1]]


def test_unknown_categories_and_nulls_give_code_zero_and_no_known_one_does():
    made = fit(TRAINING, MODALITY).apply(
        table([1.0, "c", True, 3], [1.0, None, True, None], [1.0, "", True, -2], [1.0, "b", True, 2])
    )
    assert made.codes.tolist() == [[0, 0], [0, 0], [0, 0], [2, 2]]


def test_a_partly_missing_row_is_flagged_cell_by_cell():
    made = fit(TRAINING, MODALITY).apply(table([None, "a", True, 2], [60.0, "a", None, 2]))
    assert made.observed.tolist() == [[False, True], [True, False]]
    assert made.numbers[0, 0] == made.numbers[1, 1] == 0
    assert made.numbers[1, 0] == 0  # the mean itself: only the flag tells it from an empty cell


def fit_one(cells):
    """The transform of a table of one numeric column ``x``."""
    samples = pl.DataFrame({"x": pl.Series(cells, dtype=pl.Float64)})
    return fit(samples, TabularModality(kind="tabular", columns=["x"]))


@pytest.mark.parametrize(("value", "rows"), [(7.0, 2), (0.1, 3), (98.6, 700), (86400.1, 97), (74466.0786491899, 1371)])
def test_a_constant_column_gets_deviation_one(value, rows):
    """Though the mean of the same number many times is, in floats, seldom that number."""
    transform = fit_one([value] * rows)
    assert transform.numbers["x"] == (pytest.approx(value), 1)
    made = transform.apply(pl.DataFrame({"x": [value, 1.01 * value]}))
    assert made.numbers.ravel().tolist() == pytest.approx([0, 0.01 * value], rel=1e-5, abs=1e-6)


def test_an_empty_column_gets_deviation_one():
    assert fit_one([None, None]).numbers["x"] == (0, 1)


@pytest.mark.parametrize("unit", [1e-15, 1e-9, 1e9])
def test_the_unit_of_a_column_does_not_matter(unit):
    cells = np.array([1.0, 2.0, 4.0, 9.0])
    plain, scaled = (fit_one(x).apply(pl.DataFrame({"x": x})).numbers for x in (cells, unit * cells))
    torch.testing.assert_close(scaled, plain, rtol=1e-6, atol=1e-6)


def test_a_category_that_no_training_row_has_is_code_zero_everywhere():
    samples = pl.DataFrame({"x": pl.Series([None, None], dtype=pl.String)})
    transform = fit(samples, TabularModality(kind="tabular", columns=["x"]))
    assert transform.shape == TabularShape(0, (1,))
    assert transform.apply(pl.DataFrame({"x": ["a", "b"]})).codes.tolist() == [[0], [0]]


cells = st.tuples(
    st.none() | st.floats(-1e6, 1e6),
    st.none() | st.sampled_from(["a", "b", "c", "ä", ""]),
    st.none() | st.booleans(),
    st.none() | st.integers(-3, 12),
)


def folder_of(path, rows, order):
    """A cohort of (split, cells), its rows in this order; ids do not depend on the order."""
    path.mkdir()
    frame = pl.DataFrame(
        [[f"{split}{i:03d}", "yes", split, *row] for i, (split, row) in enumerate(rows)],
        {"id": pl.String, "y": pl.String, "split": pl.String, **SCHEMA},
        orient="row",
    )
    frame[order].write_parquet(path / "samples.parquet")
    spec = {
        "name": "test",
        "id": "id",
        "label": {"column": "y", "classes": ["yes", "no"]},
        "modalities": {"t": MODALITY.model_dump()},
        "split": {"column": "split"},
    }
    (path / "cohort.yaml").write_text(yaml.safe_dump(spec))
    return path


def learned(folder):
    """What a model would store of the training rows, as bytes."""
    cohort = load(folder)
    transform = fit(cohort.samples[cohort.rows("train")], cohort.spec.modalities["t"])
    return transform, json.dumps(transform.to_json()).encode()


@settings(deadline=None, max_examples=25)
@given(
    training=st.lists(cells, min_size=1, max_size=12),
    others=st.lists(st.tuples(st.sampled_from(["validation", "test"]), cells), max_size=12),
    data=st.data(),
)
def test_what_is_learned_is_the_same_to_the_byte_whatever_rows_others_bring_and_in_any_order(
    tmp_path_factory, training, others, data
):
    full = (1.0, "a", True, 1)  # a cohort refuses samples that have nothing at all, and an empty split
    rows = [("train", row) for row in training] + [("validation", full), ("test", full)]
    alone = [(split, row if any(cell is not None for cell in row) else full) for split, row in rows]
    whole = alone + [(split, row if any(cell is not None for cell in row) else full) for split, row in others]
    base = tmp_path_factory.mktemp("c")
    transform, stored = learned(folder_of(base / "alone", alone, list(range(len(alone)))))
    order = data.draw(st.permutations(range(len(whole))))
    permuted, same = learned(folder_of(base / "whole", whole, list(order)))
    assert stored == same
    back = TabularTransform.from_json(json.loads(stored))
    assert back == transform == permuted
    rows = load(base / "whole").samples
    assert all(torch.equal(a, b) for a, b in zip(back.apply(rows), transform.apply(rows), strict=True))


def test_the_order_of_many_rows_changes_no_bit_of_mean_and_deviation():
    """Sums of floats depend on their order, and a hypothesis of a dozen rows seldom shows it."""
    rng = np.random.default_rng(0)
    cells, modality = 1e3 * rng.standard_normal(1000), TabularModality(kind="tabular", columns=["x"])
    first = fit(pl.DataFrame({"x": cells}), modality)
    for _ in range(5):
        assert fit(pl.DataFrame({"x": rng.permutation(cells)}), modality) == first


SHAPES = {"numbers": st.integers(0, 9), "categories": st.lists(st.integers(1, 4), max_size=3)}


def random_input(shape, rows):
    return TabularInput(
        torch.randn(rows, shape.numbers),
        torch.rand(rows, shape.numbers) < 0.7,
        torch.stack([torch.randint(size, (rows,)) for size in shape.categories], dim=1)
        if shape.categories
        else torch.zeros(rows, 0, dtype=torch.int64),
    )


@settings(deadline=None, max_examples=30)
@given(**SHAPES, seed=st.integers(0, 2**31), rows=st.integers(0, 4), tokens=st.integers(1, 20))
def test_the_encoder_equals_patches_projected_one_by_one(numbers, categories, seed, rows, tokens):
    torch.manual_seed(seed)
    if not numbers and not categories:
        numbers = 1
    shape, dim = TabularShape(numbers, tuple(categories)), 5
    encoder = TabularEncoder(shape, dim, tokens=tokens, category_dim=3).double().eval()
    x = random_input(shape, rows)
    made = encoder(x._replace(numbers=x.numbers.double())).values
    assert made.shape == (rows, encoder.num_tokens, dim)
    count = 2 * numbers + 3 * len(categories)
    assert encoder.num_tokens <= min(tokens, count)
    assert (encoder.num_tokens - 1) * encoder.patch < count <= encoder.num_tokens * encoder.patch  # none is empty
    for i in range(rows):
        features = []
        for f in range(numbers):
            features += [x.numbers[i, f].item(), float(not x.observed[i, f])]
        for k, codes in enumerate(encoder.categories):
            features += codes.weight[x.codes[i, k]].tolist()
        features += [0.0] * (encoder.num_tokens * encoder.patch - len(features))
        for token, d in product(range(encoder.num_tokens), range(dim)):
            patch = features[token * encoder.patch : (token + 1) * encoder.patch]
            expected = encoder.bias[token, d].item()
            expected += sum(a * b for a, b in zip(patch, encoder.weight[token, :, d].tolist(), strict=True))
            assert made[i, token, d].item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_an_empty_cell_is_not_the_mean():
    encoder = TabularEncoder(TabularShape(2, ()), 8).eval()
    full = TabularInput(torch.zeros(1, 2), torch.tensor([[True, True]]), torch.zeros(1, 0, dtype=torch.int64))
    part = full._replace(observed=torch.tensor([[True, False]]))
    assert not torch.allclose(encoder(full).values, encoder(part).values)


def test_sixty_four_features_become_sixteen_patches_of_four():
    """The paper's FPRM table: 64 values; ours also holds a flag for each, so 32 numbers fill as many."""
    encoder = TabularEncoder(TabularShape(32, ()), 128)
    assert (encoder.num_tokens, encoder.patch, encoder.dropout.p) == (16, 4, 0.25)
