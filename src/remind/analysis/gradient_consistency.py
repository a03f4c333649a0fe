"""Gradient consistency (Eq. 1, 9-17; Fig. 1b, 3): does training pull every combination's way, or the frequent ones'?"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from remind.analysis.finding import Finding
from remind.analysis.trained import Trained, identities
from remind.cohort.cohort import Cohort
from remind.engine.probe import PER_GROUP, GradientProbe
from remind.engine.run_folder import RunFolder
from remind.report.figures import COLOURS, MARKS

DRAWS = 5
SCORES = {"dominant": "dominant directions (Eq. 13)", "mean": "mean gradients (Eq. 1)"}


def gradients(cohort: Cohort, runs: Sequence[Trained]) -> Finding:
    """The consistency of every combination of 16 training samples or more, by run.

    Rows without a ``step`` are of the selected model: means over five draws of the samples, and the deviation between
    them. Rows with one are what the run recorded while it trained, if it did (``train.gradients_every``).
    """
    table = pl.concat([_of_run(cohort, run) for run in runs])
    title = f"{cohort.spec.name}: gradient consistency of combinations"
    return Finding("gradients", table, _figure(table, title), _says(table), identities(runs))


def _of_run(cohort: Cohort, run: Trained) -> pl.DataFrame:
    fitted = run.model()
    fitted.model.eval()
    dataset = fitted.dataset(fitted.admit(cohort), cohort.rows("train"))
    drawn = pl.concat(
        pl.DataFrame(GradientProbe(dataset, fitted.criterion, seed=draw).measure(fitted.model)) for draw in range(DRAWS)
    )
    final = drawn.group_by("group").agg(
        pl.col("dominant", "mean").mean(), pl.col("dominant", "mean").std().name.suffix("_std")
    )
    parts = [final.with_columns(step=pl.lit(None, pl.Int64), stage=pl.lit(None, pl.String))]
    if (run.folder / "gradients.parquet").is_file():
        recorded = RunFolder(run.folder).read_table("gradients")
        parts.append(recorded.with_columns(dominant_std=pl.lit(None, pl.Float64), mean_std=pl.lit(None, pl.Float64)))
    groups = fitted.groups
    facts = pl.DataFrame(
        {
            "group": range(len(groups)),
            "combination": groups.labels(),
            "share": groups.shares,
            "kind": np.where(groups.tail, "tail", "head"),
        }
    )
    columns = ("step", "stage", "group", *SCORES, *(f"{score}_std" for score in SCORES))
    table = pl.concat([part.select(columns) for part in parts]).join(facts, on="group").sort("step", "group")
    return table.select(pl.lit(run.method).alias("method"), pl.lit(run.seed).alias("seed"), pl.all())


def _kinds(table: pl.DataFrame, *by: str) -> pl.DataFrame:
    """Means of head and tail groups, each group counted alike; then over seeds."""
    by_seed = table.group_by("method", "seed", "kind", *by, maintain_order=True).agg(pl.col(*SCORES).mean())
    return by_seed.group_by("method", "kind", *by, maintain_order=True).agg(
        pl.col(*SCORES).mean(), pl.col(*SCORES).std().name.suffix("_std"), pl.len().alias("seeds")
    )


def _says(table: pl.DataFrame) -> list[str]:
    final = _kinds(table.filter(pl.col("step").is_null()))
    said = []
    for method in final["method"].unique(maintain_order=True):
        here = {row["kind"]: row for row in final.filter(pl.col("method") == method).to_dicts()}
        for score, words in SCORES.items():
            parts = [f"{kind} {here[kind][score]:.3f}" for kind in ("head", "tail") if kind in here]
            gap = f"; gap {here['head'][score] - here['tail'][score]:+.3f}" if len(here) == 2 else ""
            rank = _with_share(table.filter(pl.col("step").is_null(), method=method), score)
            said.append(f"{method}, {words}: {', '.join(parts)}{gap}; rank correlation with the share {rank}.")
    tail = table.filter(pl.col("step").is_null(), kind="tail")["combination"].n_unique()
    return [*said, f"Combinations of {PER_GROUP} training samples or more; {tail} of them are tail."]


def _with_share(table: pl.DataFrame, score: str) -> str:
    """Spearman's correlation of share and score over combinations, each a mean over seeds; it needs no head."""
    means = table.group_by("combination").agg(pl.col("share", score).mean())
    if means.height < 3 or means["share"].n_unique() == 1 or means[score].n_unique() == 1:
        return "not to be had of so few, or of all alike"
    rank, p = spearmanr(means["share"].to_numpy(), means[score].to_numpy())
    return f"{rank:+.2f} (p = {p:.2f})"


def _figure(table: pl.DataFrame, title: str) -> Figure:
    """Each combination's consistency against its share; and, where it was recorded, head and tail over the steps."""
    methods = table["method"].unique(maintain_order=True).to_list()
    final, recorded = table.filter(pl.col("step").is_null()), table.filter(pl.col("step").is_not_null())
    figure = Figure(figsize=(6.4 if recorded.is_empty() else 11.0, 4.2), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False)
    axes = figure.subplots(1, 1 if recorded.is_empty() else 2, squeeze=False)[0]
    for place, method in enumerate(methods):
        here = final.filter(method=method).group_by("combination").agg(pl.col("share", "dominant").mean())
        colour, mark = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
        axes[0].plot(100 * here["share"], here["dominant"], mark, color=colour, markersize=5, alpha=0.8, label=method)
    axes[0].set_xscale("log")
    axes[0].xaxis.set_major_formatter("{x:g}")
    axes[0].set_xlabel("share of the training set, %")
    axes[0].set_ylabel("gradient consistency")
    axes[0].set_title("each combination, selected model", loc="left", fontsize=10)
    axes[0].legend(frameon=False, fontsize=8)
    if not recorded.is_empty():
        means = _kinds(recorded, "step").sort("step")
        for place, method in enumerate(methods):
            for kind, style in (("head", "-"), ("tail", "--")):
                line = means.filter(method=method, kind=kind)
                if line.is_empty():
                    continue
                colour = COLOURS[place % len(COLOURS)]
                axes[1].plot(line["step"], line["dominant"], style, color=colour, label=f"{method}, {kind}")
        axes[1].set_xlabel("training step")
        axes[1].set_title("means of head and tail combinations, in training", loc="left", fontsize=10)
        axes[1].legend(frameon=False, fontsize=8)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(linewidth=0.4, alpha=0.6)
    return figure
