"""What a model says of samples that lose modalities: encoders run once a sample, the fusion once a set.

Letters: n samples, u sets of modalities, m modalities, c classes.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from remind.cohort.cohort import Cohort
from remind.engine.device import to_device
from remind.engine.fitted import FittedModel, evaluating
from remind.types import Encoded, Ragged

AT_ONCE = 2048  # samples, each with one set, that are fused together


def subset_probability(
    fitted: FittedModel, cohort: Cohort, rows: np.ndarray, sets: Bool[np.ndarray, "u m"]
) -> Float[np.ndarray, "n u c"]:
    """Class probabilities of each sample with each set of modalities alone; all samples must have all of the sets'.

    A set is a combination like any other: a group of the training data, or unseen in it.
    """
    model, size = fitted.model, fitted.recipe.train.batch_size
    device = next(model.parameters()).device
    dataset = fitted.dataset(cohort, rows)
    masks, group = torch.from_numpy(sets).to(device), torch.from_numpy(fitted.groups.index(sets)).to(device)
    found = []
    with evaluating(model):
        for start in range(0, len(rows), size):
            batch = to_device(dataset.__getitems__(list(range(start, min(start + size, len(rows))))), device)
            encoded, count = model.encode(batch), len(batch.target)
            step = max(1, AT_ONCE // count)
            parts = [
                model.classify(model.fusion(one)).logits.double().softmax(1).view(-1, count, len(fitted.classes_))
                for one in _with_sets(encoded, count, masks.split(step), group.split(step))
            ]
            found.append(torch.cat(parts).transpose(0, 1).cpu().numpy())
    return np.concatenate(found)


def _with_sets(
    encoded: Encoded, count: int, masks: tuple[Tensor, ...], groups: tuple[Tensor, ...]
) -> Iterator[Encoded]:
    """The batch once for each set, one after the other, with what is not in the set left out."""
    for mask, group in zip(masks, groups, strict=True):
        tokens, rows = [], []
        for place, ragged in enumerate(encoded.tokens):
            having = mask[:, place].nonzero().ravel()
            copies = len(having)
            length = None if ragged.length is None else ragged.length.repeat(copies)
            tokens.append(Ragged(ragged.values.repeat(copies, 1, 1), length))
            rows.append((having[:, None] * count + encoded.rows[place]).ravel())
        available, of = mask.repeat_interleave(count, 0), group.repeat_interleave(count)
        yield Encoded(tuple(tokens), tuple(rows), available, of)
