"""A trained model goes on to combinations it never saw (the paper's Q4): a few parts learn, the rest stays as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from remind.cohort.cohort import Cohort
from remind.cohort.combination import Combination, GroupTable, distinct
from remind.config import Recipe
from remind.documents import digest
from remind.engine.fitted import FittedModel, build_model
from remind.errors import RemindError, unknown
from remind.fusions.token_fusion import TokenFusion
from remind.methods import Stage
from remind.nn.imputation import GroupEmbeddings
from remind.pretrained import RANDOM

PARTS = ("rows", "head", "router", "experts")
STAGE = Stage("adapted", encoders=False, specialise=True)


@dataclass(frozen=True)
class Tune:
    """What learns: new groups' own ``rows``; the ``head``; the shared ``router``, and rows; a share of ``experts``."""

    rows: bool
    head: bool
    router: bool
    experts: float  # the share of them

    @classmethod
    def parse(cls, text: str) -> "Tune":
        """``rows``, ``head,router`` or ``head,router,experts=0.25``.

        Raises:
            RemindError: for a part that there is not, none at all, or a share outside 0 to 1.
        """
        shares: dict[str, float] = {}
        for word in filter(None, text.replace(" ", "").split(",")):
            part, _, share = word.partition("=")
            if part not in PARTS:
                raise RemindError(f"--tune: {unknown('part', part, PARTS)}")
            if part != "experts" and share:
                raise RemindError(f"--tune: {part} takes no share; only experts do, as in experts=0.25.")
            shares[part] = _share(share)
        if not shares:
            raise RemindError(f"--tune: name what is to learn: {', '.join(PARTS)}.")
        router = "router" in shares
        return cls("rows" in shares or router, "head" in shares, router, shares.get("experts", 0.0))

    def said(self) -> str:
        """As ``parse`` reads it."""
        named = {"rows": self.rows and not self.router, "head": self.head, "router": self.router}
        experts = [f"experts={self.experts:g}"] if self.experts else []
        return ",".join([*(part for part, wanted in named.items() if wanted), *experts])


def _share(text: str) -> float:
    try:
        share = float(text or 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise RemindError(f"--tune: experts={text} is no share above 0 and at most 1.")
    return share


@dataclass(frozen=True)
class Adaptation:
    """A model with room for a cohort's new groups, and which of its parts are to learn."""

    base: FittedModel
    fitted: FittedModel
    tune: Tune
    source: str  # checksum of the model that is adapted

    @classmethod
    def begin(cls, base: FittedModel, model: Path, cohort: Cohort, recipe: Recipe, tune: Tune) -> "Adaptation":
        """Extend a model by the combinations of a cohort's training split that it does not know.

        Args:
            base: the model; it is left as it is.
            model: the bundle it was read from.
            cohort: has the new combinations.
            recipe: the model's own, but for what says how to train.
            tune: what learns.

        Raises:
            RemindError: if there is none, they have no validation samples, or the method's fusion cannot be extended.
        """
        if not isinstance(base.model.fusion, TokenFusion):
            raise RemindError(
                f"{model}: a model of {base.recipe.method} cannot be adapted; its fusion has other parts than a router "
                "and experts."
            )
        asked, there = (one.model_dump(exclude={"train", "data", "seed"}) for one in (recipe, base.recipe))
        if changed := [key for key in there if asked[key] != there[key]]:
            raise RemindError(
                f"{', '.join(changed)}: a model is adapted as it was built; override train and data settings only."
            )
        base.refuse_other(cohort)
        groups = extended(base.groups, cohort)
        for split in ("train", "validation"):
            if not (groups.index(cohort.available[cohort.rows(split)]) >= len(base.groups)).any():
                raise RemindError(
                    f"{cohort.spec.name}: its {split} split has no combination that the model does not know; there is "
                    "nothing to adapt to."
                )
        made = build_model(recipe, base.spec, groups, base.transforms, weights=RANDOM)
        made.load_state_dict(_grown(base.model.state_dict(), made.state_dict()))
        fitted = FittedModel(recipe, base.spec, groups, base.transforms, made)
        assert isinstance(made.fusion, TokenFusion)
        old = len(base.model.fusion.having)
        _start_rows(fitted, old)
        rows = tune.rows and any(len(table) > old for table in _tables(made.fusion))
        if not (rows or tune.head or tune.router or tune.experts):
            raise RemindError(
                f"{cohort.spec.name}: there are no rows to learn, since {base.recipe.method} has none or no new "
                "combination has training samples enough for its own (min_count); tune more, such as head,router."
            )
        return cls(base, fitted, tune, digest(next(model.glob("*.safetensors"))))

    def asked(self) -> dict[str, str]:
        """What tells this run from others, for its configuration."""
        return {"model": self.source, "tune": self.tune.said()}

    def rows(self, cohort: Cohort, split: str) -> np.ndarray:
        """The samples of new groups in a split."""
        rows = cohort.rows(split)
        return rows[self.fitted.groups.index(cohort.available[rows]) >= len(self.base.groups)]

    def freeze(self) -> None:
        """Let the chosen parts learn, and nothing else; where part of a tensor learns, the rest has no gradient."""
        model = self.fitted.model.requires_grad_(False)
        fusion, before = model.fusion, self.base.model.fusion
        assert isinstance(fusion, TokenFusion)
        assert isinstance(before, TokenFusion)
        for table in _tables(fusion) if self.tune.rows else ():
            _learn(table, range(len(before.having), len(table)))
        if self.tune.head:
            model.norm.requires_grad_(True)
            model.head.requires_grad_(True)
        if self.tune.router:
            fusion.shared_router.requires_grad_(True)
        if self.tune.experts:
            experts = fusion.block.moe.experts
            count = len(experts.up.weight)
            drawn = np.random.default_rng(self.fitted.recipe.seed).permutation(count)[
                : max(1, round(self.tune.experts * count))
            ]
            for tensor in experts.parameters():
                _learn(tensor, sorted(drawn.tolist()))

    def shift(self, cohort: Cohort, rows: np.ndarray) -> dict[str, float | int | None]:
        """How far the predictions for groups that the model knew before have moved."""
        known = rows[self.base.groups.index(cohort.available[rows]) >= 0]
        if not len(known):
            return {"samples": 0, "largest": None, "mean": None}
        self.base.model.to(next(self.fitted.model.parameters()).device)
        columns = [f"p_{name}" for name in self.fitted.classes_]
        before, after = (one.predictions(cohort, known).select(columns).to_numpy() for one in (self.base, self.fitted))
        moved = np.abs(after - before).max(axis=1)
        return {"samples": len(known), "largest": float(moved.max()), "mean": float(moved.mean())}


def extended(groups: GroupTable, cohort: Cohort) -> GroupTable:
    """The groups, and behind them the combinations of the cohort's training split that are not among them."""
    masks, _, counts = distinct(cohort.available[cohort.rows("train")])
    known = set(groups.combinations)
    new = sorted(
        (-count, combination.bits)
        for combination, count in zip(map(Combination.of, masks), counts.tolist(), strict=True)
        if combination not in known
    )
    return replace(
        groups,
        combinations=(*groups.combinations, *(Combination(bits) for _, bits in new)),
        counts=(*groups.counts, *(-count for count, _ in new)),
        added=groups.added + len(new),
    )


def _tables(fusion: TokenFusion) -> list[nn.Parameter]:
    """Those with a row for each group."""
    imputed = [fusion.imputation.vectors] if isinstance(fusion.imputation, GroupEmbeddings) else []
    return [*fusion.of_groups(), *imputed]


def _grown(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The old tensors; of one that has become longer, the first rows."""
    return {
        name: old[name] if old[name].shape == tensor.shape else torch.cat([old[name], tensor[len(old[name]) :]])
        for name, tensor in new.items()
    }


@torch.no_grad()
def _start_rows(fitted: FittedModel, first: int) -> None:
    """A new group's vector begins as what stood in for it, the mean of its nearest groups'."""
    fusion = fitted.model.fusion
    assert isinstance(fusion, TokenFusion)
    if isinstance(fusion.imputation, GroupEmbeddings):
        imputation = fusion.imputation
        masks = torch.from_numpy(fitted.groups.masks[fusion.having[first:]])
        imputation.vectors[first:] = imputation.nearest(masks) @ imputation.vectors[: len(imputation.nearest.masks)]


def _learn(tensor: nn.Parameter, rows: Sequence[int] | range) -> None:
    """These rows of it learn."""
    if not len(rows):
        return
    tensor.requires_grad_(True)
    mask = torch.zeros(len(tensor), *[1] * (tensor.ndim - 1), device=tensor.device, dtype=tensor.dtype)
    mask[list(rows)] = 1
    tensor.register_hook(lambda gradient: gradient * mask.to(gradient))
