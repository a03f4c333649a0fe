"""REMIND written plainly from the paper, for tables: what one would write on the first day, and no trick.

Every modality is encoded in every sample, in every step; where it is missing, the group's vector takes the place of
each of its tokens. Experts are modules in a list. It can take the weights of the product's model, whose logits it
then gives.

Letters: b batch, t tokens, d width, e experts, g groups, c classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from remind.encoders.tabular import TabularEncoder
from remind.modalities.tabular import TabularInput
from remind.model import Model


class PlainRemind(nn.Module):
    """Section 2 of the paper: encoders, ``B_k``, self-attention, Soft MoE routed by ``Phi + Phi_k``, head."""

    def __init__(
        self,
        encoders: Sequence[TabularEncoder],
        *,
        dim: int,
        experts: int,
        heads: int,
        dropout: float,
        groups: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.imputation = nn.Parameter(torch.zeros(groups, dim))  # B_k
        self.attention_norm, self.moe_norm, self.norm = (nn.LayerNorm(dim) for _ in range(3))
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.phi = nn.Parameter(torch.randn(dim, experts))
        self.residual = nn.Parameter(torch.zeros(groups, dim, experts))  # Phi_k
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)) for _ in range(experts)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, classes)

    def forward(self, inputs: list[TabularInput], available: Tensor, group: Tensor) -> Tensor:
        """Logits ``[b, c]`` of stage two."""
        tokens = []
        for place, (encoder, one) in enumerate(zip(self.encoders, inputs, strict=True)):
            encoded = encoder(one).values
            imputed = self.imputation[group][:, None].expand_as(encoded)
            tokens.append(torch.where(available[:, place, None, None], encoded, imputed))
        x = torch.cat(tokens, dim=1)
        z = self.attention_norm(x)
        x = x + self.dropout(self.attention(z, z, z, need_weights=False)[0])
        z = self.moe_norm(x)
        x = x + self.dropout(self.soft_moe(z, group))
        return self.head(self.norm(x.mean(1)))

    def soft_moe(self, z: Tensor, group: Tensor) -> Tensor:
        """Eq. 5 to 8."""
        unit = F.normalize(z, dim=-1)
        shared = self.scale * unit @ F.normalize(self.phi, dim=0)
        p = shared.flatten(1).softmax(1)
        entropy = -(p * p.log()).sum(1) / torch.tensor(float(p.shape[1])).log()
        phi = F.normalize(self.phi + self.residual[group], dim=1)
        adapted = self.scale * unit @ phi
        logits = torch.where((entropy >= 0.8)[:, None, None], adapted, shared)
        slots = logits.softmax(1).transpose(1, 2) @ z
        made = torch.stack([expert(slots[:, place]) for place, expert in enumerate(self.experts)], dim=1)
        return logits.softmax(2) @ made

    @torch.no_grad()
    def take(self, model: Model) -> None:
        """The product's weights."""
        theirs = model.state_dict()
        own = {
            "imputation": "fusion.imputation.vectors",
            "phi": "fusion.router.shared.phi",
            "residual": "fusion.router.residual",
            "scale": "fusion.router.shared.scale",
            "attention.in_proj_weight": "fusion.block.attention.qkv.weight",
            "attention.in_proj_bias": "fusion.block.attention.qkv.bias",
            "attention.out_proj.weight": "fusion.block.attention.out.weight",
            "attention.out_proj.bias": "fusion.block.attention.out.bias",
        }
        for name, parameter in self.named_parameters():
            if name in own:
                parameter.copy_(theirs[own[name]].view_as(parameter))
            elif name.startswith("experts."):
                _, expert, layer, kind = name.split(".")
                of = theirs[f"fusion.block.moe.experts.{'up' if layer == '0' else 'down'}.{kind}"][int(expert)]
                parameter.copy_(of.T if kind == "weight" else of[0])
            elif "_norm" in name:
                parameter.copy_(theirs[f"fusion.block.{name}"])
            else:
                parameter.copy_(theirs[name])


class PlainTraining:
    """Stage two, Section 3: encoders frozen, group DRO, AdamW."""

    def __init__(
        self,
        model: PlainRemind,
        data: TensorDataset,
        shares: Tensor,
        *,
        batch_size: int,
        lr: float,
        decay: float,
        every: int,
    ) -> None:
        self.model, self.shares, self.every = model, shares, every
        model.encoders.requires_grad_(False)
        self.loader = DataLoader(data, batch_size=batch_size, shuffle=True)
        self.optimizer = torch.optim.AdamW(
            [one for one in model.parameters() if one.requires_grad], lr=lr, weight_decay=decay
        )
        self.weights, self.steps = shares.clone(), 0
        self.loss_sum, self.count = torch.zeros_like(shares), torch.zeros_like(shares)

    def epoch(self) -> None:
        """Every training sample once."""
        self.model.train()
        for available, group, target, *columns in self.loader:
            inputs = [TabularInput(*columns[place : place + 3]) for place in range(0, len(columns), 3)]
            losses = F.cross_entropy(self.model(inputs, available, group), target, reduction="none")
            self.optimizer.zero_grad()
            (losses * (self.weights / self.shares).clamp(max=10.0)[group]).mean().backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.remember(losses.detach(), group)

    def remember(self, losses: Tensor, group: Tensor) -> None:
        """Eq. 4."""
        for place in group.unique():
            here = group == place
            self.loss_sum[place] += losses[here].sum()
            self.count[place] += here.sum()
        self.steps += 1
        if self.steps % self.every == 0:
            risk = self.loss_sum / self.count.clamp(min=1)
            weights = self.weights * (0.02 * risk).exp()
            self.weights = weights / weights.sum()
            self.loss_sum.zero_()
            self.count.zero_()
