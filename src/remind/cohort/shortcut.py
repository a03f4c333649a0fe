"""How well the mask alone predicts the label: whether who was measured tells who is ill.

A model that sees which modalities a patient has may learn the habit of ordering instead of the disease: it then scores
well wherever the habit holds, and fails where it does not. Letters: ``n`` samples, ``p`` subjects, ``k`` combinations,
``c`` classes, ``f`` folds.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax
from scipy.stats import t

from remind.cohort.splits import majority

FOLDS = 5
SHUFFLES = 199  # the smallest p-value is then 0.005
PRIOR = 30  # a combination's own class shares weigh as much as its bits once it has so many samples
SIGNIFICANT = 0.01
NOTABLE = 0.55  # with samples enough any AUROC above a half is significant; below this one nobody is misled


def mask_alone(
    masks: np.ndarray, which: np.ndarray, target: np.ndarray, owner: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Cross-validated AUROC, one class against the rest, of a classifier that sees the availability bits only.

    Takes the distinct masks ``bool [k, m]``, and of each sample ``[n]`` which of them it has, its class, and the index
    of its subject.

    - ``auroc``: mean over classes and five folds, divided by subject and stratified by label. 0.5: the mask tells
      nothing. A high value means that who was measured tells who is ill.
    - ``interval``: 95 %, from the spread of the folds, widened for their sharing of training samples (Nadeau and
      Bengio 2003).
    - ``p``: how often the AUROC is as high or higher when subjects with equally many samples swap their labels, 1 in
      200 at the least. A subject's samples stay together, so that repeated visits are not taken for evidence.
    - ``shortcut``: ``p`` is at most 0.01 and the AUROC of some class at least 0.55. False in 99 of 100 cohorts whose
      labels are independent of the mask.
    - ``classes``: the AUROC of each class against the rest.

    All are None, with a ``reason``, where no class has members and others in every fold.
    """
    rng = np.random.default_rng(0)
    fold, size = deal_folds(owner, target, rng), np.bincount(owner)
    order = np.lexsort((rng.permutation(len(size))[owner], size[owner], fold[owner]))  # a subject's samples in a row
    labels, cell = target[order], (fold[owner] * len(masks) + which)[order] * len(classes)

    def count(labels: np.ndarray) -> np.ndarray:
        shape = (FOLDS, len(masks), len(classes))
        return np.bincount(cell + labels, minlength=np.prod(shape)).reshape(shape)

    members = count(labels).sum(axis=1)
    judged = np.flatnonzero(((members > 0) & (members < members.sum(axis=1, keepdims=True))).all(axis=0))
    if not len(judged):
        one = (members.sum(axis=0) > 0).sum() < 2
        few = f"too few subjects: two classes need samples in every one of {FOLDS} folds"
        names = ("auroc", "interval", "p", "shortcut", "classes")
        return {**dict.fromkeys(names), "reason": "all samples are of one class" if one else few}
    found = held_out_auroc(masks, count(labels), judged)
    auroc = float(found.mean())
    swap = _swapping(labels, fold[owner][order], size[owner][order], rng)
    shuffled = [held_out_auroc(masks, count(swap()), judged).mean() for _ in range(SHUFFLES)]
    p = (1 + int(np.sum(np.array(shuffled) >= auroc))) / (1 + SHUFFLES)
    half = float(t.ppf(0.975, FOLDS - 1) * found.mean(axis=1).std(ddof=1) * np.sqrt(1 / FOLDS + 1 / (FOLDS - 1)))
    return {
        "auroc": auroc,
        "interval": [max(auroc - half, 0.0), min(auroc + half, 1.0)],
        "p": p,
        "shortcut": p <= SIGNIFICANT and bool(found.mean(axis=0).max() >= NOTABLE),
        "classes": {classes[c]: value for c, value in zip(judged.tolist(), found.mean(axis=0).tolist(), strict=True)},
        "reason": None,
    }


def deal_folds(owner: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The fold of each subject ``[p]``: every label's subjects, and among them those of every size, in equal parts."""
    size = np.bincount(owner)
    fold = np.empty(len(size), dtype=np.int64)
    fold[np.lexsort((rng.permutation(len(size)), size, majority(owner, target)))] = np.arange(len(size)) % FOLDS
    return fold


def held_out_auroc(masks: np.ndarray, counts: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """AUROC in each fold of each judged class against the rest ``[f, judged]``, from counts ``[f, k, c]``."""
    total, found = counts.sum(axis=0), np.empty((len(counts), len(judged)))
    for fold, held in enumerate(counts):
        here = held.any(axis=1)
        score, members = class_shares(masks, total - held)[here], held[here]
        for place, c in enumerate(judged):
            found[fold, place] = _auroc(score[:, c], members[:, c], members.sum(axis=1) - members[:, c])
    return found


def class_shares(masks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The classifier: the probability of each class given the combination ``[k, c]``, from training counts ``[k, c]``.

    The class shares among the combination's samples, drawn towards what its bits say one by one (naive Bayes): the
    fewer samples it has, the more.
    """
    members = counts.sum(axis=0)
    there = (masks.T.astype(float) @ counts + 1) / (members + 2)  # P(available | class), [m, c]
    bits = softmax(np.log(members + 1) + masks @ np.log(there) + ~masks @ np.log(1 - there), axis=1)
    return (counts + PRIOR * bits) / (counts.sum(axis=1, keepdims=True) + PRIOR)


def _auroc(score: np.ndarray, members: np.ndarray, others: np.ndarray) -> float:
    """AUROC of scores ``[k]`` that so many members and so many others have."""
    _, rank = np.unique(score.round(12), return_inverse=True)  # what differs by rounding only is a tie
    members, others = np.bincount(rank, members), np.bincount(rank, others)
    return float((members * (others.cumsum() - others / 2)).sum() / (members.sum() * others.sum()))


def _swapping(
    labels: np.ndarray, fold: np.ndarray, size: np.ndarray, rng: np.random.Generator
) -> Callable[[], np.ndarray]:
    """A function that swaps the labels of whole subjects, at random, within a fold and among subjects of one size.

    Rows stand in blocks of one fold and one size, subjects within them in random order: to move all labels on by as
    many subjects as chance says is then as good as any other permutation, and costs no sorting.
    """
    starts = np.flatnonzero((np.diff(fold) != 0) | (np.diff(size) != 0)) + 1
    blocks = np.split(labels, starts)
    each = size[np.concatenate([[0], starts])].tolist()

    def swap() -> np.ndarray:
        moves = [size * int(rng.integers(len(block) // size)) for block, size in zip(blocks, each, strict=True)]
        return np.concatenate([np.roll(block, move) for block, move in zip(blocks, moves, strict=True)])

    return swap
