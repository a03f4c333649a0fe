"""The gate: is the shared routing of a sample uncertain enough to open its group's residual?"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

Measure = Literal["joint", "expert", "kl", "always", "off"]
_DEFAULT = {"joint": 0.8, "expert": 0.8, "kl": 0.1, "always": 0.0, "off": 0.0}
_MEMORY = 0.99  # how much of the running quantile a step keeps


class Decision(NamedTuple):
    """What the gate saw and did, a sample."""

    uncertainty: Float[Tensor, " b"]
    opened: Bool[Tensor, " b"]


def joint_uncertainty(logits: Float[Tensor, "b t e s"], log_count: Float[Tensor, "b t"]) -> Float[Tensor, " b"]:
    """Eq. 8: entropy of one softmax over all token-slot logits of a sample, over its maximum ``ln(M n)``.

    A token that stands for ``c`` identical ones enters ``c`` times.
    """
    weight = log_count[:, :, None, None]
    log_p = logits - (logits + weight).logsumexp(dim=(1, 2, 3), keepdim=True)
    entropy = -((log_p + weight).exp() * log_p).sum(dim=(1, 2, 3))
    maximum = log_count.logsumexp(1) + math.log(logits.shape[2] * logits.shape[3])
    return entropy / maximum.clamp_min(1e-12)


def expert_uncertainty(logits: Float[Tensor, "b t e s"], log_count: Float[Tensor, "b t"]) -> Float[Tensor, " b"]:
    """App. 7.2.4: entropy of each token's softmax over slots, averaged over the sample, over its maximum ``ln n``."""
    log_p = logits.flatten(2).log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return (entropy * log_count.softmax(1)).sum(1) / max(math.log(log_p.shape[-1]), 1e-12)


class Gate(nn.Module):
    """Opens where the shared routing is uncertain; the decision itself carries no gradient.

    ``measure``: ``joint`` (Eq. 8) or ``expert`` (App. 7.2.4), relative entropies that open at ``threshold`` or above;
    ``kl``, the divergence of a token's routing from uniform in nats, which opens below it; ``always``; ``off``.
    ``threshold="quantile:q"`` opens for the fraction ``1 - q`` of the training samples that are least sure: the
    quantile is tracked over training steps, so a sample's output still depends on no other sample.
    """

    threshold: Tensor  # scalar; a buffer, since a tracked quantile must survive a restart

    def __init__(self, *, measure: Measure = "joint", threshold: float | str | None = None) -> None:
        super().__init__()
        self.measure = measure
        self.quantile = _parse_quantile(threshold) if isinstance(threshold, str) else None
        start = _DEFAULT[measure] if threshold is None else math.nan if self.quantile is not None else threshold
        self.register_buffer("threshold", torch.tensor(float(start)))

    @torch.no_grad()
    def forward(self, logits: Float[Tensor, "b t e s"], log_count: Float[Tensor, "b t"]) -> Decision:
        """Decide for each sample from its shared logits. Before any quantile is known, everything is open."""
        if self.measure in ("always", "off"):
            opened = torch.full((len(logits),), self.measure == "always", device=logits.device)
            return Decision(joint_uncertainty(logits, log_count), opened)
        if self.measure == "kl":
            slots = logits.shape[2] * logits.shape[3]
            uncertainty = (expert_uncertainty(logits, log_count) - 1) * math.log(slots)  # minus the divergence
            return Decision(uncertainty, ~(uncertainty <= -self.threshold))
        measured = joint_uncertainty if self.measure == "joint" else expert_uncertainty
        uncertainty = measured(logits, log_count)
        return Decision(uncertainty, ~(uncertainty < self.threshold))

    @torch.no_grad()
    def observe(self, uncertainty: Float[Tensor, " b"]) -> None:
        """After a training step: move the tracked quantile. Does nothing for a fixed threshold."""
        if self.quantile is None:
            return
        sign = -1.0 if self.measure == "kl" else 1.0
        seen = sign * torch.quantile(uncertainty.float(), self.quantile)
        kept = torch.where(self.threshold.isnan(), seen, self.threshold)
        self.threshold.copy_(_MEMORY * kept + (1 - _MEMORY) * seen)


def _parse_quantile(text: str) -> float:
    word, _, number = text.partition(":")
    try:
        quantile = float(number)
    except ValueError:
        quantile = math.nan
    if word != "quantile" or not 0 <= quantile <= 1:
        raise ValueError(f"threshold {text!r} is neither a number nor 'quantile:q' with q from 0 to 1")
    return quantile
