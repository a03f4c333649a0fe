"""Gradient consistency: cosines from inner products, against directions that are written out."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remind.api import fit, load_model
from remind.config import load_recipe
from remind.engine.probe import PER_GROUP, GradientProbe
from remind.engine.run_folder import RunFolder
from remind.errors import RemindError
from remind.nn.consistency import consistency
from remind.nn.gradient_gram import gradient_gram, plain_gram
from remind.sources.synthetic import write

few = settings(deadline=None, max_examples=30)


def by_hand(rows, group):
    """The cosines of Eq. 1 and 17, from the gradients themselves."""

    def dominant(jacobian):
        values, vectors = np.linalg.eigh(jacobian @ jacobian.T)
        top = vectors[:, values.argmax()]
        return (top if top.sum() >= 0 else -top) @ jacobian

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    parts = [rows[group == place] for place in range(group.max() + 1)]
    return (
        [cosine(dominant(part), dominant(rows)) for part in parts],
        [cosine(part.mean(0), rows.mean(0)) for part in parts],
    )


@few
@given(seed=st.integers(0, 2**31), groups=st.integers(1, 4), size=st.integers(1, 5))
def test_cosines_are_those_of_the_directions_written_out(seed, groups, size):
    rng = np.random.default_rng(seed)
    rows, group = rng.normal(size=(groups * size, 30)) + rng.normal(size=30), np.repeat(np.arange(groups), size)
    order = rng.permutation(len(rows))
    rows, group = rows[order], group[order]
    found = consistency(torch.tensor(rows @ rows.T), torch.tensor(group))
    dominant, mean = by_hand(rows, group)
    assert found.dominant.numpy() == pytest.approx(dominant, abs=1e-8)
    assert found.mean.numpy() == pytest.approx(mean, abs=1e-10)


def test_groups_that_pull_together_have_one_and_against_each_other_minus_one():
    step = torch.tensor([1.0, 2.0, 0.5]).double()
    rows = torch.stack([step, 2 * step, 3 * step, -step])
    for cosines in consistency(rows @ rows.T, torch.tensor([0, 0, 0, 1])):
        assert cosines.tolist() == pytest.approx([1, -1])
    for cosines in consistency(torch.zeros(2, 2), torch.tensor([0, 1])):
        assert cosines.tolist() == [0, 0]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return write(tmp_path_factory.mktemp("consistency") / "c", samples=400, modalities=3, seed=1)


@pytest.mark.parametrize("method", ["soft-moe", "remind", "flex-moe", "fusemoe"])
def test_a_run_records_what_a_probe_of_its_model_measures(places, tiny, tmp_path, method):
    """Of all groups of enough samples; and if the last step was selected, the last record is of the saved model."""
    from remind.cohort.cohort import load

    cohort = load(places)
    steps = 2 * -(-len(cohort.rows("train")) // 64)
    recipe = load_recipe(None, [*tiny, f"train.gradients_every={steps // 2}"], method=method, seed=3)
    fit(cohort, recipe=recipe, out=tmp_path / "run")
    table = RunFolder(tmp_path / "run").read_table("gradients")
    assert table["step"].unique().sort().to_list() == [steps // 2, steps]
    assert table["stage"].unique().sort().to_list() == (["shared", "specialised"] if "remind" in method else ["joint"])
    enough = [place for place, count in enumerate(cohort.groups.counts) if count >= PER_GROUP]
    assert table["group"].unique().sort().to_list() == enough
    assert table.select(pl.col("dominant", "mean").abs().max()).row(0) <= (1.0, 1.0)
    fitted = load_model(tmp_path / "run")
    selected = RunFolder(tmp_path / "run").read_json("selection")["step"]
    if selected == steps:
        probe = GradientProbe(fitted.dataset(cohort, cohort.rows("train")), fitted.criterion, seed=3)
        last = table.filter(pl.col("step") == steps)
        for row, line in zip(probe.measure(fitted.model), last.to_dicts(), strict=True):
            assert row["mean"] == pytest.approx(line["mean"], abs=1e-4)


def test_recording_changes_nothing_in_the_training(places, tiny, tmp_path):
    for name, extra in (("with", ["train.gradients_every=3"]), ("without", [])):
        fit(places, recipe=load_recipe(None, [*tiny, *extra], method="remind", seed=0), out=tmp_path / name)
    one, other = (next((tmp_path / name).rglob("*.safetensors")).read_bytes() for name in ("with", "without"))
    assert one == other


def test_one_pass_and_many_say_the_same_of_a_trained_model(places, tiny, tmp_path):
    from remind.cohort.cohort import load

    cohort = load(places)
    fitted = fit(cohort, recipe=load_recipe(None, tiny, method="remind", seed=0), out=tmp_path / "run")
    model, dataset = fitted.model.eval(), fitted.dataset(cohort, cohort.rows("train"))
    batch = dataset.__getitems__(range(24))
    model.fusion.requires_grad_(True)
    encoded = model.encode(batch)
    losses = lambda: fitted.criterion(model.classify(model.fusion(encoded)).logits, batch.target)  # noqa: E731
    torch.testing.assert_close(
        gradient_gram(model.fusion, losses), plain_gram(model.fusion, losses), rtol=1e-3, atol=1e-5
    )


def test_too_few_samples_of_a_group_are_a_sentence(tiny, tmp_path):
    folder = write(tmp_path / "c", samples=40, modalities=4)
    with pytest.raises(RemindError, match="16 training samples or more"):
        fit(folder, recipe=load_recipe(None, [*tiny, "train.gradients_every=1"]), out=tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()
