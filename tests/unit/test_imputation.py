"""The vector that stands for what is missing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remind.nn.imputation import GroupEmbeddings


def all_masks(modalities):
    return torch.tensor([[bool(bits >> place & 1) for place in range(modalities)] for bits in range(1, 2**modalities)])


def by_hand(embeddings, group, mask):
    """The group's own vector; else the share-weighted mean over the groups that differ in the fewest modalities."""
    vectors = embeddings.vectors.detach()
    if group >= 0:
        return vectors[group]
    distance = [
        sum(a != b for a, b in zip(mask.tolist(), known.tolist(), strict=True)) for known in embeddings.nearest.masks
    ]
    total, weight = torch.zeros_like(vectors[0]), 0.0
    for k, apart in enumerate(distance):
        if apart == min(distance):
            total += embeddings.nearest.shares[k].item() * vectors[k]
            weight += embeddings.nearest.shares[k].item()
    return total / weight


def made(seed, modalities, groups, batch):
    """Embeddings of some combinations, and a batch of any, known or not."""
    torch.manual_seed(seed)
    masks = all_masks(modalities)
    masks = masks[torch.randperm(len(masks))]
    groups = min(groups, len(masks))
    counts = (99 * torch.rand(groups) + 1).long().tolist()
    embeddings = GroupEmbeddings(4, masks[:groups], counts, start="normal").double()
    which = torch.randint(len(masks), (batch,))
    return embeddings, torch.where(which < groups, which, -1), masks[which]


SIZES = {
    "seed": st.integers(0, 2**31),
    "modalities": st.integers(1, 5),
    "groups": st.integers(1, 12),
    "batch": st.integers(1, 8),
}


@settings(deadline=None, max_examples=30)
@given(**SIZES)
def test_a_known_group_gets_its_own_vector_and_an_unseen_one_the_mean_of_its_nearest(seed, modalities, groups, batch):
    embeddings, group, available = made(seed, modalities, groups, batch)
    vectors = embeddings(group, available)[:, 0]
    for i in range(batch):
        torch.testing.assert_close(
            vectors[i], by_hand(embeddings, int(group[i]), available[i]), rtol=1e-6, atol=1e-12, check_dtype=True
        )


@settings(deadline=None, max_examples=30)
@given(**SIZES)
def test_a_samples_vector_depends_on_no_other_sample(seed, modalities, groups, batch):
    embeddings, group, available = made(seed, modalities, groups, batch)
    together = embeddings(group, available)[:, 0]
    for i in range(batch):
        alone = embeddings(group[i : i + 1], available[i : i + 1])[:, 0]
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)


def test_by_hand_on_four_groups():
    masks = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.bool)
    embeddings = GroupEmbeddings(1, masks, (40, 30, 10, 20), start="zeros")
    assert (embeddings.vectors == 0).all()
    with torch.no_grad():
        embeddings.vectors.copy_(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    available = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)
    vectors = embeddings(torch.tensor([-1, 2, -1]), available)
    nearest_to_110 = (0.4 * 1 + 0.3 * 2 + 0.1 * 3) / 0.8  # 111, 100 and 010 differ in one modality; 001 in three
    nearest_to_011 = (0.4 * 1 + 0.1 * 3 + 0.2 * 4) / 0.7
    assert vectors.ravel().tolist() == pytest.approx([nearest_to_110, 3.0, nearest_to_011])


def test_gradient_reaches_the_vectors_used_and_no_others():
    masks = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.bool)
    embeddings = GroupEmbeddings(2, masks, (40, 30, 10, 20), start="normal")
    embeddings(torch.tensor([1, -1]), torch.tensor([[1, 0, 0], [1, 0, 1]], dtype=torch.bool)).sum().backward()
    assert (embeddings.vectors.grad != 0).any(1).tolist() == [True, True, False, True]
