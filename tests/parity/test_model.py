"""The whole model on a small cohort: no sample sees another, no order matters, nothing missing is computed."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from remind.cohort.batch import Packed
from remind.cohort.cohort import load
from remind.cohort.dataset import CohortDataset
from remind.config import ModelSettings, Recipe
from remind.encoders.tabular import TabularEncoder
from remind.engine.fitted import FittedModel, build_model
from remind.fusions import FUSIONS
from remind.modalities.tabular import TabularInput
from remind.model import Model
from remind.nn.tokens import pack
from remind.sources.synthetic import write
from remind.types import Encoded, Layout, Ragged

few = settings(deadline=None, max_examples=20)
DIM, FEATURES = 16, 3
METHODS = ["soft-moe", "remind"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return load(
        write(tmp_path_factory.mktemp("model") / "cohort", samples=240, features=FEATURES, available=[0.8] * 4, seed=4)
    )


@pytest.fixture(scope="module")
def fitted(cohort):
    """A model of each method; in REMIND's, residuals are random and the gate opens for about half of the samples."""
    made = {}
    for method in METHODS:
        torch.manual_seed(0)
        settings = {"gate": "joint", "router_scale": 3.0} if method == "remind" else {}
        recipe = Recipe(
            method=method,
            model=ModelSettings(dim=DIM, experts=5, heads=2),
            fusions={"remind": settings | {"min_count": 1}} if settings else {},
        )
        made[method] = FittedModel.create(cohort, recipe)
        model = made[method].model.eval()
        nn.init.normal_(model.fusion.imputation.vectors)
        if method == "remind":
            nn.init.normal_(model.fusion.router.residual)
            model.fusion.specialise()
            whole = dataset_of(cohort, made[method]).__getitems__(range(len(cohort)))
            routing = model(whole).fused.routing
            ordered = routing.uncertainty.sort().values
            middle = range(80, 160)
            widest = max(middle, key=lambda place: ordered[place + 1] - ordered[place])  # none stands on the threshold
            model.fusion.router.gate.threshold.copy_((ordered[widest] + ordered[widest + 1]) / 2)
    return made


def dataset_of(cohort, one, groups=None):
    return CohortDataset(cohort, np.arange(len(cohort)), one.transforms, groups or one.groups)


@pytest.fixture(scope="module")
def data(cohort, fitted):
    return dataset_of(cohort, fitted["remind"])


def test_the_gate_is_open_for_some_and_closed_for_others(fitted, data):
    opened = fitted["remind"].model(data.__getitems__(range(240))).fused.routing.opened
    assert 0.2 < opened.float().mean() < 0.8


@pytest.mark.parametrize("method", METHODS)
@few
@given(rows=st.lists(st.integers(0, 239), min_size=1, max_size=12))
@torch.no_grad()
def test_a_samples_output_does_not_depend_on_its_batch_mates(fitted, data, method, rows):
    model = fitted[method].model
    together = model(data.__getitems__(rows))
    for place, row in enumerate(rows):
        alone = model(data[row])
        torch.testing.assert_close(together.logits[place], alone.logits[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(together.fused.pooled[place], alone.fused.pooled[0], rtol=0, atol=1e-5)
        assert together.fused.routing.opened[place] == alone.fused.routing.opened[0]


@pytest.mark.parametrize("method", METHODS)
@few
@given(rows=st.lists(st.integers(0, 239), min_size=2, max_size=12), seed=st.integers(0, 2**31))
@torch.no_grad()
def test_permuting_the_batch_permutes_the_outputs(fitted, data, method, rows, seed):
    model, order = fitted[method].model, torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    plain, permuted = model(data.__getitems__(rows)), model(data.__getitems__([rows[i] for i in order]))
    torch.testing.assert_close(permuted.logits, plain.logits[order], rtol=0, atol=1e-5)
    assert permuted.fused.routing.opened.equal(plain.fused.routing.opened[order])


@torch.no_grad()
def test_the_order_of_the_samples_within_a_modality_does_not_matter(fitted, data):
    model, batch = fitted["remind"].model, data.__getitems__(range(0, 240, 9))
    packed = {
        name: Packed(TabularInput(*(part.flip(0) for part in one.inputs)), one.rows.flip(0))
        for name, one in batch.packed.items()
    }
    torch.testing.assert_close(model(batch._replace(packed=packed)).logits, model(batch).logits, rtol=0, atol=1e-5)


def uneven(one, order):
    """The fitted model's cohort under encoders of 2, 3, 5 and 6 tokens, its modalities in this order; same weights."""
    torch.manual_seed(1)
    encoders = {
        name: TabularEncoder(transform.shape, DIM, tokens=tokens)
        for (name, transform), tokens in zip(one.transforms.items(), (2, 3, 5, 6), strict=True)
    }
    names = list(one.transforms)
    ordered = [encoders[names[place]] for place in order]
    layout = Layout(
        tuple(encoder.num_tokens for encoder in ordered),
        torch.from_numpy(one.groups.masks)[:, order],
        one.groups.counts,
    )
    fusion = FUSIONS.build("remind", DIM, layout, experts=5, heads=2, gate="always", min_count=1)
    model = Model([names[place] for place in order], ordered, fusion, classes=3)
    nn.init.normal_(model.fusion.router.residual)
    nn.init.normal_(model.fusion.imputation.vectors)
    model.fusion.specialise()
    return model.eval()


@few
@given(order=st.permutations(range(4)), rows=st.lists(st.integers(0, 239), min_size=1, max_size=12))
@torch.no_grad()
def test_the_order_of_the_modalities_does_not_matter(fitted, cohort, order, rows):
    one = fitted["remind"]
    fewer = fewer_groups(one.groups)
    plain, permuted = uneven(replace_groups(one, fewer), [0, 1, 2, 3]), uneven(replace_groups(one, fewer), order)
    batch = dataset_of(cohort, one, fewer).__getitems__(rows)
    turned = batch._replace(
        packed={name: batch.packed[name] for name in permuted.modalities}, available=batch.available[:, order]
    )
    torch.testing.assert_close(permuted(turned).logits, plain(batch).logits, rtol=0, atol=1e-5)


def fewer_groups(groups):
    """All but the last three, as if training had not shown those."""
    return replace(groups, combinations=groups.combinations[:-3], counts=groups.counts[:-3])


def replace_groups(one, groups):
    return FittedModel(one.recipe, one.spec, groups, one.transforms, one.model)


def test_encoders_see_the_rows_that_have_their_modality_and_no_other(fitted, data):
    model = fitted["remind"].model
    seen, hooks = {}, []
    for name, encoder in zip(model.modalities, model.encoders, strict=True):
        hooks.append(encoder.register_forward_hook(lambda _, given, __, name=name: seen.__setitem__(name, given[0])))
    rows = list(range(0, 240, 7))
    model(data.__getitems__(rows))
    for place, name in enumerate(model.modalities):
        having = [row for row in rows if data.available[row, place]]
        assert 0 < len(having) < len(rows)
        assert seen[name].numbers.tolist() == [data.readers[name].table.numbers[row].tolist() for row in having]
    for hook in hooks:
        hook.remove()


def test_a_modality_that_nobody_in_the_batch_has_is_no_trouble(fitted, data):
    rows = [row for row in range(240) if not data.available[row, 3]][:5]
    for one in fitted.values():
        one.model.zero_grad()
        output = one.model(data.__getitems__(rows))
        output.logits.sum().backward()
        assert output.logits.isfinite().all()
        gradients = {name: p.grad for name, p in one.model.named_parameters() if p.grad is not None}
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        assert gradients["encoders.0.weight"].abs().max() > 0
        assert all((g == 0).all() for name, g in gradients.items() if name.startswith("encoders.3."))


@torch.no_grad()
def test_a_sample_that_lacks_nothing_is_untouched_by_what_stands_for_the_missing(fitted, data):
    batch, model = data.__getitems__(range(60)), fitted["remind"].model
    before, kept = model(batch).logits, model.fusion.imputation.vectors.clone()
    model.fusion.imputation.vectors += torch.randn_like(kept)
    after = model(batch).logits
    model.fusion.imputation.vectors.copy_(kept)
    same = (before == after).all(1)
    assert same.equal(batch.available.all(1))
    assert 0 < same.sum() < 60


@torch.no_grad()
def test_without_imputation_a_sample_is_its_observed_tokens(fitted, data):
    """And a sample that lacks nothing is what it is with imputation."""
    one, batch = fitted["soft-moe"], data.__getitems__(range(60))
    recipe = one.recipe.model_copy(update={"fusions": {"soft_moe": {"imputation": "none"}}})
    bare = build_model(recipe, one.spec, one.groups, one.transforms).eval()
    missing, unexpected = bare.load_state_dict(one.model.state_dict(), strict=False)
    assert not missing
    assert unexpected == ["fusion.imputation.vectors"]
    tokens = bare.fusion.tokens(bare.encode(batch))
    observed = (batch.available * torch.tensor(bare.fusion.lengths)).sum(1)
    assert (tokens.log_count == 0).sum(1).equal(observed)
    assert tokens.log_count.isinf().sum(1).equal(tokens.log_count.shape[1] - observed)
    full = batch.available.all(1)
    with_it, without = one.model(batch).logits, bare(batch).logits
    torch.testing.assert_close(without[full], with_it[full], rtol=0, atol=1e-5)
    assert (without[~full] - with_it[~full]).abs().amax(1).min() > 1e-5


@pytest.mark.parametrize("method", METHODS)
@few
@given(rows=st.lists(st.integers(0, 239), min_size=1, max_size=12))
@torch.no_grad()
def test_vectors_for_the_missing_count_as_often_as_if_they_were_written_out(fitted, data, method, rows):
    fusion, batch = fitted[method].model.fusion, data.__getitems__(rows)
    encoded = fitted[method].model.encode(batch)
    few, many = fusion.tokens(encoded), fusion.broadcast(encoded)
    assert many.values.shape[1] == sum(fusion.lengths)
    assert (many.log_count == 0).all()
    torch.testing.assert_close(few.log_count.exp().sum(1), torch.full((len(rows),), float(sum(fusion.lengths))))
    one, other = fusion.fuse(few, batch.group), fusion.fuse(many, batch.group)
    torch.testing.assert_close(one.pooled, other.pooled, rtol=0, atol=1e-5)
    places = torch.tensor(fusion.lengths).cumsum(0) - torch.tensor(fusion.lengths)
    for row, available in enumerate(batch.available.tolist()):
        for modality, there in enumerate(available):
            token = many.values[row, places[modality]]
            if there:
                here = encoded.rows[modality].tolist().index(row)
                assert token.equal(encoded.tokens[modality].values[here, 0])
            else:
                vectors = fusion.imputation.vectors
                assert token.equal(vectors[modality] if method == "soft-moe" else vectors[batch.group[row]])


@torch.no_grad()
def test_an_unseen_combination_is_imputed_by_the_share_weighted_mean_of_its_nearest_groups(fitted, cohort):
    one = fitted["remind"]
    groups = fewer_groups(one.groups)
    model, data = uneven(replace_groups(one, groups), [0, 1, 2, 3]), dataset_of(cohort, one, groups)
    unseen = [row for row in range(240) if data.group[row] == -1]
    known = [row for row in range(240) if data.group[row] >= 0 and not data.available[row].all()][:20]
    assert len(unseen) >= 3
    batch = data.__getitems__(unseen + known)
    tokens = model.fusion.tokens(model.encode(batch))
    lengths = model.fusion.lengths
    for i, (mask, group) in enumerate(zip(batch.available.tolist(), batch.group.tolist(), strict=True)):
        if group >= 0:
            expected = model.fusion.imputation.vectors[group]
        else:
            apart = [sum(a != b for a, b in zip(mask, other, strict=True)) for other in groups.masks.tolist()]
            nearest = [k for k, distance in enumerate(apart) if distance == min(apart)]
            weight = sum(groups.shares[k] for k in nearest)
            expected = sum(groups.shares[k] / weight * model.fusion.imputation.vectors[k] for k in nearest)
        place = sum(length for length, there in zip(lengths, mask, strict=True) if there)
        torch.testing.assert_close(tokens.values[i, place], expected.float(), rtol=1e-6, atol=1e-6)
        assert tokens.log_count[i, place].item() == pytest.approx(math.log(sum(lengths) - place))
    assert not model(batch).fused.routing.opened[: len(unseen)].any()


@torch.no_grad()
def test_the_model_in_bf16_gives_nearly_what_it_gives_in_float32(fitted, data):
    model, batch = fitted["soft-moe"].model, data.__getitems__(range(40))
    exact = model(batch).logits
    with torch.autocast("cpu", torch.bfloat16):
        tokens, rough = model.fusion.tokens(model.encode(batch)), model(batch).logits
    assert tokens.log_count.dtype == torch.float32  # 8 bits cannot hold the log of a count
    torch.testing.assert_close(rough.float(), exact, rtol=0, atol=0.05)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 6),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    imputes=st.sampled_from(["group", "modality", "none"]),
)
def test_pack_lays_tokens_as_a_loop_over_samples_does(seed, batch, lengths, imputes):
    torch.manual_seed(seed)
    available = torch.rand(batch, len(lengths)) < 0.5
    available[torch.arange(batch), torch.randint(len(lengths), (batch,))] = True
    encoded = []
    for modality, length in enumerate(lengths):
        rows = available[:, modality].nonzero().ravel()
        rows = rows[torch.randperm(len(rows))]
        sizes = torch.randint(1, length + 1, (len(rows),)) if torch.rand(()) < 0.5 else None
        encoded.append((Ragged(torch.randn(len(rows), length, 3), sizes), rows))
    imputed = None if imputes == "none" else torch.randn(batch, 1 if imputes == "group" else len(lengths), 3)
    tokens, rows = zip(*encoded, strict=True)
    made = pack(Encoded(tokens, rows, available, torch.zeros(batch, dtype=torch.int64)), lengths, imputed)

    laid = []
    for i in range(batch):
        tokens, missing = [], []
        for modality, ((values, sizes), rows) in enumerate(encoded):
            if i in rows.tolist():
                here = rows.tolist().index(i)
                size = lengths[modality] if sizes is None else int(sizes[here])
                tokens += [(token, 1) for token in values[here, :size].tolist()]
            else:
                missing.append(modality)
        if imputes == "group" and missing:
            tokens.append((imputed[i, 0].tolist(), sum(lengths[modality] for modality in missing)))
        if imputes == "modality":
            tokens += [(imputed[i, modality].tolist(), lengths[modality]) for modality in missing]
        laid.append(tokens)
    assert made.values.shape[1] == max(len(tokens) for tokens in laid)
    for i, tokens in enumerate(laid):
        count = len(tokens)
        assert made.values[i, :count].tolist() == [token for token, _ in tokens]
        torch.testing.assert_close(made.log_count[i, :count], torch.tensor([float(c) for _, c in tokens]).log())
        assert (made.log_count[i, count:] == -math.inf).all()


@torch.no_grad()
def test_a_rare_group_has_nothing_of_its_own_and_is_treated_as_if_it_were_unseen(fitted, cohort):
    """Its samples come out as those of a model that never heard of the group, with the frequent groups' weights."""
    one = fitted["remind"]
    least = sorted(one.groups.counts)[len(one.groups) // 2]
    frequent = [place for place, count in enumerate(one.groups.counts) if count >= least]
    assert 1 < len(frequent) < len(one.groups)
    recipe = one.recipe.model_copy(update={"fusions": {"remind": {"gate": "always", "min_count": least}}})
    groups = replace(
        one.groups,
        combinations=tuple(one.groups.combinations[place] for place in frequent),
        counts=tuple(one.groups.counts[place] for place in frequent),
    )
    made, other = (build_model(recipe, one.spec, table, one.transforms).eval() for table in (one.groups, groups))
    assert len(made.fusion.router.residual) == len(made.fusion.imputation.vectors) == len(frequent)
    nn.init.normal_(made.fusion.router.residual)
    made.fusion.specialise()
    other.load_state_dict(made.state_dict())
    batch, strangers = (dataset_of(cohort, one, table).__getitems__(range(240)) for table in (one.groups, groups))
    found, expected = made(batch), other(strangers)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-6)
    counts = torch.tensor(one.groups.counts)
    assert found.fused.routing.opened.equal(counts[batch.group] >= least)


def test_where_every_group_is_rare_the_largest_still_has_its_own():
    for name in ("remind", "soft_moe"):
        layout = Layout((1, 1), torch.tensor([[1, 1], [1, 0], [0, 1]]).bool(), (7, 7, 2))
        fusion = FUSIONS.build(name, DIM, layout, heads=2, imputation="group")
        assert fusion.own.tolist() == [0, 1, -1, -1]
