"""Fair Mixup's penalty against derivatives that are exact, of a block with attention and experts, in float64."""

import pytest
import torch
from losing import batch_of
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from remind.errors import RemindError
from remind.fusions import FUSIONS
from remind.model import Model
from remind.nn.mixing import mixed, slope, without_dropout
from remind.objectives import OBJECTIVES, Loss
from remind.objectives.fair_mixup import FairMixup
from remind.types import Encoded, Layout, Ragged, Tokens

COUNTS = torch.tensor([[20, 20], [30, 10], [10, 10], [2, 1]])
GROUPS = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3])  # of the samples below
MASKS = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0]], dtype=torch.bool)


def cross_entropy(logits, target):
    return F.cross_entropy(logits, target, reduction="none")


class Given(Model):
    """A model whose encoders are three tables of tokens, two a sample; the last modality's second may be missing."""

    def __init__(self, dropout=0.0, **settings):
        layout = Layout((2, 2, 2), MASKS, (40, 40, 15, 5))
        torch.manual_seed(0)
        fusion = FUSIONS.build("soft_moe", 8, layout, experts=3, heads=2, dropout=dropout, **settings)
        super().__init__((), (), fusion, classes=2)
        self.table = nn.Parameter(torch.randn(3, 8, 2, 8))
        self.encoded = 0
        self.double()

    def encode(self, batch):
        self.encoded += 1
        available = MASKS[batch.group]
        rows = tuple(available[:, place].nonzero().ravel() for place in range(3))
        tokens = [Ragged(self.table[place][batch.row[here]]) for place, here in enumerate(rows)]
        tokens[2] = Ragged(tokens[2].values, 1 + batch.row[rows[2]] % 2)
        return Encoded(tuple(tokens), rows, available, batch.group)


def batch():
    return batch_of(GROUPS, torch.arange(8) % 2)


def predictor(model):
    def predict(tokens):
        nobody = torch.full((len(tokens.values),), -1)
        return model.classify(model.fusion.fuse(tokens, nobody)).logits.softmax(-1)

    return predict


def ends(model, *, ragged):
    """Samples of group 0 and of group 1, laid out; without padding where a derivative of counts would be infinite."""
    values, log_count = model.fusion.broadcast(model.encode(batch()))
    log_count = log_count if ragged else torch.zeros_like(log_count)
    return tuple(Tokens(values[rows], log_count[rows]) for rows in (torch.tensor([0, 1, 1]), torch.tensor([2, 4, 3])))


def path(model, a, b):
    """The prediction at ``t``, place by place."""

    def at(t):
        c_a, c_b = a.log_count.exp(), b.log_count.exp()
        count = t * c_a + (1 - t) * c_b
        values = (t * c_a[..., None] * a.values + (1 - t) * c_b[..., None] * b.values) / count[..., None]
        return predictor(model)(Tokens(torch.where(count[..., None] > 0, values, 0.0), count.log()))

    return at


def gradients(model, value):
    found = torch.autograd.grad(value, list(model.parameters()), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, model.parameters(), strict=True)]


def penalty(found):
    return found.mean(0).abs().sum()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, in its forward mode
def test_the_slope_is_that_of_forward_mode():
    model, t = Given(), torch.tensor(0.37).double()
    a, b = ends(model, ragged=False)
    with sdpa_kernel(SDPBackend.MATH):  # the fused one has no forward mode
        _, exact = torch.func.jvp(path(model, a, b), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(slope(predictor(model), a, b, t, step=1e-4), exact, rtol=1e-5, atol=1e-7)


def test_slope_and_penalty_are_chuangs_gradient_times_the_way_and_so_are_their_gradients():
    """Their own form: the gradient of each class by the mixture, in the direction ``a - b``, derived once more."""
    model, t = Given(), torch.tensor(0.8).double()
    a, b = ends(model, ragged=False)
    with sdpa_kernel(SDPBackend.MATH):  # the fused one has no derivative of its derivative
        z = t * a.values + (1 - t) * b.values
        predicted = predictor(model)(Tokens(z, a.log_count))
        by_class = [torch.autograd.grad(predicted[:, c].sum(), z, create_graph=True)[0] for c in range(2)]
        exact = torch.stack([(gradient * (a.values - b.values)).sum((1, 2)) for gradient in by_class], dim=1)
        expected = gradients(model, penalty(exact))
    ours = slope(predictor(model), a, b, t, step=1e-4)
    torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-7)
    for mine, theirs in zip(gradients(model, penalty(ours)), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=3e-7)


def test_where_texts_are_of_unequal_length_it_is_the_slope_of_counts_too():
    model, t, h = Given(), torch.tensor(0.3).double(), 1e-3
    a, b = ends(model, ragged=True)
    assert (a.log_count == -torch.inf).any()
    assert ((a.log_count == -torch.inf) & (b.log_count == 0)).any()
    at = path(model, a, b)
    fine = (8 * (at(t + h) - at(t - h)) - (at(t + 2 * h) - at(t - 2 * h))) / (12 * h)  # of the fourth order
    ours = slope(predictor(model), a, b, t, step=1e-4)
    torch.testing.assert_close(ours, fine, rtol=1e-5, atol=1e-8)
    grads = zip(gradients(model, penalty(ours)), gradients(model, penalty(fine)), strict=True)
    assert all(torch.allclose(mine, theirs, rtol=1e-5, atol=1e-7) for mine, theirs in grads)


def test_the_default_step_is_near_enough_in_float32():
    model = Given()
    exact = slope(predictor(model), *ends(model, ragged=True), torch.tensor(0.4).double(), step=1e-4)
    rough = model.float()
    found = slope(predictor(rough), *ends(rough, ragged=True), torch.tensor(0.4))
    torch.testing.assert_close(found.double(), exact, rtol=2e-2, atol=2e-4)


def test_ends_and_padding_of_a_mixture():
    model = Given()
    a, b = ends(model, ragged=True)
    both = (a.log_count == -torch.inf) & (b.log_count == -torch.inf)
    for t, end in ((1.0, a), (0.0, b)):
        made = mixed(a, b, torch.tensor(t).double())
        assert torch.equal(made.log_count, end.log_count)
        real = end.log_count == 0
        torch.testing.assert_close(made.values[real], end.values[real])
    assert mixed(a, b, torch.tensor(0.5).double()).values.isfinite().all()
    assert (mixed(a, b, torch.tensor(0.5).double()).log_count[both] == -torch.inf).all()


def objective_of(**settings):
    return FairMixup(COUNTS, cross_entropy, **settings)


@pytest.mark.parametrize("mode", ["dp", "eo"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_loss_is_the_mean_and_the_penalty_of_what_was_drawn(mode, dropout):
    """The draws are repeated from the same random numbers; everything else is by hand, one pair at a time."""
    model, objective = Given(dropout), objective_of(weight=0.7, mode=mode)
    torch.manual_seed(5)
    loss = objective(model, batch())
    assert model.encoded == 1
    assert all(part.training for part in model.modules())  # dropout is back in its mode

    torch.manual_seed(5)
    encoded = model.encode(batch())
    logits = model.classify(model.fusion(encoded)).logits
    assert torch.equal(loss.output.logits, logits)
    losses = cross_entropy(logits, batch().target)
    assert torch.equal(loss.per_sample, losses)
    risk = [losses[k == GROUPS].mean().item() for k in range(3)]  # group 3 is too small
    pair = max(range(3), key=risk.__getitem__), min(range(3), key=risk.__getitem__)
    assert objective.pair(GROUPS, losses) == pair
    tokens, expected = model.fusion.broadcast(encoded), losses.mean()
    target = batch().target
    drawn = objective.draw(batch(), pair)
    assert len(drawn) == (1 if mode == "dp" else 2)
    for a, b in drawn:
        assert len(a) == len(b) == 4
        assert (GROUPS[a] == pair[0]).all()
        assert (GROUPS[b] == pair[1]).all()
        assert mode == "dp" or (target[a] == target[b]).all()
        t = 0.01 + 0.98 * torch.rand((), dtype=torch.float64)
        with without_dropout(model):
            each = []
            for i, j in zip(a.tolist(), b.tolist(), strict=True):
                at = path(model, *(Tokens(tokens.values[[k]], tokens.log_count[[k]]) for k in (i, j)))
                each.append((at(t + 0.01) - at(t - 0.01)) / 0.02)
        expected = expected + 0.7 * penalty(torch.cat(each))
    torch.testing.assert_close(loss.total, expected, rtol=1e-9, atol=1e-12)


def test_with_dropout_the_penalty_is_not_noise():
    """A mask of its own for each side of the difference would make it fifty times as large as it is."""
    objective, batch_ = objective_of(weight=1.0), batch()
    found = []
    for dropout in (0.0, 0.3):
        model = Given(dropout)
        torch.manual_seed(1)
        loss = objective(model, batch_)
        found.append((loss.total - loss.per_sample.mean()).item())
    assert 0 < found[1] < 3 * found[0]


@pytest.mark.parametrize("group", [[1] * 8, [3] * 4 + [1] * 4])
def test_with_one_group_to_compare_it_is_the_mean_loss(group):
    model = Given()
    loss = objective_of()(model, batch_of(group, torch.arange(8) % 2))
    assert torch.equal(loss.total, loss.per_sample.mean())


def test_pairs_follow_the_running_losses():
    objective = objective_of()
    group = torch.tensor([0, 1, 2, 2])
    seen = objective_of().pair(group, torch.tensor([1.0, 3.0, 2.0, 2.0]))
    assert seen == (1, 0)

    def train(group, losses):
        objective.after_step(batch_of(group), Loss(torch.tensor(0.0), torch.tensor(losses), None))

    train(group, [1.0, 3.0, 2.0, 2.0])
    assert objective.running.tolist() == [1, 3, 2, 0]
    train([2, 2], [20.0, 14.0])
    assert objective.running.tolist() == pytest.approx([1, 3, 0.9 * 2 + 0.1 * 17, 0])
    assert objective.pair(group, torch.tensor([1.0, 3.0, 3.5, 3.5])) == (2, 0)
    assert objective.pair(torch.tensor([0, 1]), torch.tensor([1.0, 1.0])) == (1, 0)
    assert objective.pair(torch.tensor([1, 1]), torch.tensor([1.0, 1.0])) is None


def test_equal_losses_still_give_two_groups_and_uniform_pairs_give_all():
    assert objective_of().pair(torch.tensor([0, 1]), torch.zeros(2)) in {(0, 1), (1, 0)}
    torch.manual_seed(0)
    pairs = {objective_of(pairs="uniform").pair(GROUPS, torch.zeros(8)) for _ in range(200)}
    assert pairs == {(a, b) for a in range(3) for b in range(3) if a != b}


def test_a_fusion_that_leaves_places_empty_is_refused():
    objective = OBJECTIVES.build("fair_mixup", COUNTS, cross_entropy)
    objective.check(Given())
    with pytest.raises(RemindError, match="must fill what is missing"):
        objective.check(Given(imputation="none"))
    other = Given()
    other.fusion = nn.Identity()
    with pytest.raises(RemindError, match="must fill what is missing"):
        objective.check(other)
