"""How far a group's gradients pull the way of all, from inner products alone (Eq. 1, 9-17)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Consistency(NamedTuple):
    """Cosines, between -1 and 1, of each group's direction with that of all samples."""

    dominant: Float[Tensor, " g"]  # of the dominant directions (Eq. 13)
    mean: Float[Tensor, " g"]  # of the mean gradients (Eq. 1)


def consistency(gram: Float[Tensor, "n n"], group: Int[Tensor, " n"]) -> Consistency:
    """The consistency of groups ``0 .. g-1``, from the Gram matrix of their samples' gradients.

    The dominant direction of samples with gradients ``J`` is ``u^T J``, ``u`` the top eigenvector of ``J J^T``. An
    eigenvector has no sign: ours has a sum of at least 0, so that its direction is the mean gradient's and not the
    opposite. A direction of norm 0 has cosine 0.
    """
    gram = gram.double()
    whole = dominant_weights(gram), torch.ones_like(gram[0])
    found = []
    for place in range(int(group.max()) + 1):
        member = (group == place).nonzero().ravel()
        block = gram[member][:, member]
        own = dominant_weights(block), torch.ones_like(block[0])
        found.append([_cosine(gram, block, member, *pair) for pair in zip(own, whole, strict=True)])
    dominant, mean = torch.tensor(found, dtype=torch.float64).T
    return Consistency(dominant, mean)


def dominant_weights(gram: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """The top eigenvector, oriented to a sum of at least 0."""
    top = torch.linalg.eigh(gram).eigenvectors[:, -1]
    return -top if top.sum() < 0 else top


def _cosine(
    gram: Float[Tensor, "n n"],
    block: Float[Tensor, "k k"],
    member: Int[Tensor, " k"],
    own: Float[Tensor, " k"],
    whole: Float[Tensor, " n"],
) -> float:
    norms = (own @ block @ own).clamp_min(0).sqrt() * (whole @ gram @ whole).clamp_min(0).sqrt()
    return float((own @ gram[member] @ whole) / norms) if norms > 0 else 0.0
