"""The table of methods: each is a fusion, an objective and stages, under a name. One screen, no other place."""

from typing import NamedTuple

from remind.errors import RemindError, unknown


class Stage(NamedTuple):
    """A stretch of training with its own trainable parts."""

    name: str
    encoders: bool = True  # whether they learn
    specialise: bool = False  # whether the groups' residuals are in play


class Method(NamedTuple):
    """What a method is made of. All else (encoders, data order, budget, selection) is the same for every method."""

    fusion: str
    objective: str
    stages: tuple[Stage, ...]
    says: str


JOINT = (Stage("joint"),)
TWO_STAGES = (Stage("shared"), Stage("specialised", encoders=False, specialise=True))

METHODS = {
    "soft-moe": Method("soft_moe", "erm", JOINT, "one router for all combinations; the plain mean of the losses"),
    "fusemoe": Method("fuse_moe", "erm", JOINT, "a router for each modality; what is missing is zeros"),
    "flex-moe": Method("flex_moe", "erm", JOINT, "a bank of what is missing; an expert for each combination"),
    "fair-mixup": Method("soft_moe", "fair_mixup", JOINT, "one router; predictions change evenly between combinations"),
    "reweigh": Method("soft_moe", "reweigh", JOINT, "one router; samples of rare combinations weigh more"),
    "logit-adjust": Method("soft_moe", "logit_adjust", JOINT, "one router; all classes count alike in a combination"),
    "group-dro": Method("soft_moe", "group_dro", JOINT, "one router; weights on the combinations that fare worst"),
    "fairbatch": Method("soft_moe", "fair_batch", JOINT, "one router; batches hold more of who fares worst"),
    "remind": Method("remind", "group_dro", TWO_STAGES, "a router residual for each combination, and group weights"),
    "remind-without-dro": Method("remind", "erm", TWO_STAGES, "a router residual for each combination; the plain mean"),
}


def method(name: str) -> Method:
    """Look a method up.

    Raises:
        RemindError: if there is none of that name.
    """
    if name not in METHODS:
        raise RemindError(unknown("method", name, METHODS))
    return METHODS[name]
