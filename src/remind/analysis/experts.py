"""Which experts each combination uses (Fig. 4), and how sure the router is (App. Table 6).

Letters: b batch, n samples, t tokens, e experts, s slots, g combinations, k metrics.
"""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy.special import rel_entr
from torch.nn import functional as F

from remind.analysis.finding import Finding
from remind.analysis.trained import Trained, identities
from remind.cohort.cohort import Cohort
from remind.cohort.combination import Combination, distinct
from remind.engine.fitted import FittedModel, forward
from remind.evaluation.intervals import ENOUGH
from remind.report.tables import brief
from remind.types import Routing

METRICS = ("certainty", "max_probability", "margin", "gini", "variance", "kl")
PERMUTATIONS = 20  # of samples among combinations, to see how far apart those are by chance
SHOWN = 12  # combinations in the figure
ABREAST = 14  # inches of panels
NUMBERED = 32  # experts; more are not numbered below a panel
WIDTH = 26  # letters of a combination's name in a line
COLOURS = "viridis"

SCHEMA = {
    "method": pl.String,
    "seed": pl.Int64,
    "combination": pl.String,
    "kind": pl.String,
    "n": pl.Int64,
    "share": pl.Float64,
    "few": pl.Boolean,
    "gate_open": pl.Float64,
    **dict.fromkeys(METRICS, pl.Float64),
    "expert_frequency": pl.List(pl.Float64),
    "divergence": pl.Float64,
    "divergence_by_chance": pl.Float64,
}


class Usage(NamedTuple):
    """What the routing of each sample was, summed over its tokens; one that stands for ``c`` counts ``c`` times."""

    tokens: Float[np.ndarray, " n"]
    hits: Float[np.ndarray, "n e"]  # tokens that have the expert among their largest
    metrics: Float[np.ndarray, "n k"]
    opened: Bool[np.ndarray, " n"]


def experts(cohort: Cohort, runs: Sequence[Trained], *, split: str = "test", top: int = 3, seed: int = 0) -> Finding:
    """How often each expert is among the ``top`` of a token, how that differs between combinations, and Table 6.

    ``divergence`` is the mean over pairs of combinations with ten subjects or more; ``divergence_by_chance`` is the
    same with their samples dealt out at random, as combinations of few samples differ even if routed alike.
    """
    rows = [row for run in runs for row in _rows(cohort, run, split=split, top=top, seed=seed)]
    table = pl.DataFrame(rows, SCHEMA)
    title = f"{cohort.spec.name}: how often an expert is in a token's top {top}"
    return Finding("experts", table, _figure(table, cohort.modalities, title), _says(table, split), identities(runs))


def usage(routing: Routing, *, top: int) -> Usage:
    """Reduce the routing of a batch to sums over the tokens of each sample.

    An expert that has no weight is never among the ``top``; a token that gives none to any expert does not count.
    """
    combine = routing.combine.double()
    given = combine.sum((2, 3))
    count = routing.log_count.double().exp() * (given > 0)
    largest, which = combine.sum(3).topk(min(top, combine.shape[2]))
    hits = torch.zeros_like(combine[..., 0]).scatter(2, which, (largest > 0).double())
    p = combine.flatten(2) / torch.where(given > 0, given, 1.0)[..., None]
    return Usage(
        tokens=count.sum(1).cpu().numpy(),
        hits=torch.einsum("bt,bte->be", count, hits).cpu().numpy(),
        metrics=torch.einsum("bt,btk->bk", count, router_metrics(p)).cpu().numpy(),
        opened=routing.opened.cpu().numpy(),
    )


def router_metrics(p: Float[torch.Tensor, "b t n"]) -> Float[torch.Tensor, "b t k"]:
    """Table 6 of each token's distribution over ``n`` slots.

    Certainty ``1 - H / ln n``, the largest probability, how far it is above the second, Gini impurity ``1 - sum p^2``,
    variance over slots, and KL from uniform in nats.
    """
    most = math.log(p.shape[-1])
    kl = most - torch.special.entr(p).sum(-1)
    first, second = F.pad(p, (0, 1)).topk(2).values.unbind(-1)
    gini = 1 - p.square().sum(-1)
    return torch.stack([kl / max(most, 1e-12), first, first - second, gini, p.var(-1, correction=0), kl], dim=-1)


def divergence(hits: Float[np.ndarray, "n e"], group: Int[np.ndarray, " n"]) -> float:
    """Mean Jensen-Shannon divergence between the expert frequencies of two groups, over all pairs; in bits, 0 to 1."""
    members = group == np.arange(group.max() + 1)[:, None]
    p = members @ hits
    p /= p.sum(1, keepdims=True)
    to_middle = rel_entr(p[:, None], (p[:, None] + p) / 2).sum(2) / math.log(2)
    return float(to_middle.sum() / (len(p) * (len(p) - 1)))


def divergence_by_chance(hits: Float[np.ndarray, "n e"], group: Int[np.ndarray, " n"], seed: int) -> float:
    """The divergence of groups of the same sizes to which samples are dealt at random, the mean over many deals."""
    rng = np.random.default_rng(seed)
    return float(np.mean([divergence(hits, rng.permutation(group)) for _ in range(PERMUTATIONS)]))


def _rows(cohort: Cohort, run: Trained, *, split: str, top: int, seed: int) -> list[dict[str, Any]]:
    """The lines of a run: combinations, most frequent in training first, then all of them together."""
    fitted = run.model()
    cohort = fitted.admit(cohort)
    rows, groups = cohort.rows(split), fitted.groups
    used = _usage_of(fitted, cohort, rows, top)
    masks, which, sizes = distinct(cohort.available[rows])
    subjects = np.array([len(np.unique(cohort.subjects[rows[which == place]])) for place in range(len(masks))])
    lines = [
        {
            "combination": Combination.of(mask).label(cohort.modalities),
            "kind": groups.kind(group),
            "n": int(sizes[place]),
            "share": float(groups.shares[group]) if group >= 0 else 0.0,
            "few": bool(subjects[place] < ENOUGH),
            **_means(Usage(*(part[which == place] for part in used))),
        }
        for place, (mask, group) in enumerate(zip(masks, groups.index(masks).tolist(), strict=True))
    ]
    lines.sort(key=lambda line: (-line["share"], -line["n"], line["combination"]))
    overall = {
        "combination": "overall",
        "n": len(rows),
        "share": sum(line["share"] for line in lines),
        "few": len(np.unique(cohort.subjects[rows])) < ENOUGH,
        **_means(used),
    }
    if (subjects >= ENOUGH).sum() > 1:
        judged = subjects[which] >= ENOUGH
        hits, (_, group) = used.hits[judged], np.unique(which[judged], return_inverse=True)
        overall |= {
            "divergence": divergence(hits, group),
            "divergence_by_chance": divergence_by_chance(hits, group, seed),
        }
    return [{"method": run.method, "seed": run.seed, **line} for line in [*lines, overall]]


def _usage_of(fitted: FittedModel, cohort: Cohort, rows: np.ndarray, top: int) -> Usage:
    batches = forward(fitted.model, fitted.dataset(cohort, rows), size=fitted.recipe.train.batch_size)
    parts = [usage(output.fused.routing, top=top) for _, output in batches]
    return Usage(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _means(used: Usage) -> dict[str, Any]:
    """Over all tokens of some samples, and for the gate over the samples."""
    metrics, tokens = used.metrics.sum(0), used.tokens.sum()
    return {
        "gate_open": float(used.opened.mean()),
        **dict(zip(METRICS, (metrics / tokens).tolist(), strict=True)),
        "expert_frequency": (used.hits.sum(0) / tokens).tolist(),
    }


def _says(table: pl.DataFrame, split: str) -> list[str]:
    """A sentence on what was compared, then one a method."""
    single = table.filter(pl.col("kind").is_not_null()).unique("combination")
    judged = len(single) - single["few"].sum()
    says = [f"{judged} of {len(single)} combinations have {ENOUGH} subjects or more in the {split} split."]
    overall = table.filter(pl.col("kind").is_null()).group_by("method", maintain_order=True)
    means = overall.agg(
        pl.len().alias("seeds"), pl.mean("divergence", "divergence_by_chance", "gate_open", "certainty")
    )
    return says + [_sentence(line) for line in means.iter_rows(named=True)]


def _sentence(line: Mapping[str, Any]) -> str:
    seeds = f" (mean of {line['seeds']} seeds)" if line["seeds"] > 1 else ""
    apart, chance = line["divergence"], line["divergence_by_chance"]
    if apart is None:
        first = "too few combinations to say whether they use experts of their own"
    else:
        first = (
            f"the expert frequencies of two combinations are {apart:.4f} bits apart (Jensen-Shannon), {chance:.4f} if "
            f"samples are dealt out at random, an excess of {apart - chance:.4f}"
        )
    gate = f"the gate opened for {line['gate_open']:.1%} of the samples" if line["gate_open"] else "no gate opened"
    sure = f"the router's certainty is {line['certainty']:.3f}, where 0 is all slots alike and 1 a single one"
    return f"{line['method']}{seeds}: {first}; {gate}; {sure}."


def _figure(table: pl.DataFrame, modalities: Sequence[str], title: str) -> Figure:
    """A heat map a method, of its first run: the most frequent combinations, and all samples, by expert."""
    panels = []
    for (method,), lines in table.group_by("method", maintain_order=True):
        first = lines.unique(["combination", "kind"], keep="first", maintain_order=True)
        judged = first.filter(~pl.col("few") & pl.col("kind").is_not_null()).head(SHOWN)
        panels.append((method, pl.concat([judged, first.filter(pl.col("kind").is_null())])))
    frequencies = [np.array(shown["expert_frequency"].to_list()) for _, shown in panels]
    names = [_label(line, modalities) for line in panels[0][1].iter_rows(named=True)]

    width = max(2.6, min(0.17 * max(frequency.shape[1] for frequency in frequencies), 6.5))
    across = min(len(panels), int(ABREAST / width))
    down = -(-len(panels) // across)
    height = (0.14 + 0.12 * max(name.count("\n") + 1 for name in names)) * len(names) + 0.85
    size = (across * width + 2.9, max(down * height, 2.2) + 0.4)
    figure = Figure(size, layout="constrained", dpi=160)  # as it is saved: how wide text is depends on it
    title = fill(title, int(11 * size[0]))
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold", parse_math=False)
    every = figure.subplots(down, across, squeeze=False)
    scale = Normalize(0, max(float(frequency.max()) for frequency in frequencies))
    for axes, (method, shown), frequency in zip(every.flat, panels, frequencies, strict=False):
        _panel(axes, frequency, scale)
        overall = shown.row(-1, named=True)
        axes.set_title(f"{method}, seed {overall['seed']}\n{_apart(overall)}", fontsize=8, loc="left")
    for axes in every[:, 0]:
        axes.set_yticks(range(len(names)), names, fontsize=7.5, parse_math=False)
    for axes in every.flat[len(panels) :]:
        axes.axis("off")
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), ax=every, aspect=25, pad=0.01)
    bar.set_label("share of tokens", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    return figure


def _panel(axes: Axes, frequency: Float[np.ndarray, "g e"], scale: Normalize) -> None:
    """One method's heat map; its last line, set apart, is of all samples."""
    order = specialists(frequency)
    numbers, name = (order, "expert") if len(order) <= NUMBERED else ([""] * len(order), f"{len(order)} experts")
    axes.imshow(frequency[:, order], cmap=COLOURS, norm=scale, aspect="auto")
    axes.axhline(len(frequency) - 1.5, color="white", linewidth=2)
    axes.set_xticks(range(len(order)), numbers, fontsize=6)
    axes.set_xlabel(name, fontsize=8)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def specialists(frequency: Float[np.ndarray, "g e"]) -> Int[np.ndarray, " e"]:
    """Experts in the order of the lines that use each the most; of one line, what it uses beyond the others first."""
    return np.lexsort((frequency.mean(0) - frequency.max(0), frequency.argmax(0)))


def _label(line: Mapping[str, Any], modalities: Sequence[str]) -> str:
    name = "all samples" if line["kind"] is None else brief(line["combination"], modalities)
    return fill(f"{name.replace('+', ' + ')} (n={line['n']})", WIDTH)


def _apart(line: Mapping[str, Any]) -> str:
    if line["divergence"] is None:
        return "too few combinations to compare"
    return f"{line['divergence']:.3f} bits apart, {line['divergence_by_chance']:.3f} by chance"
