"""What analyses that train suites have in common: a comparison, its scores as a table, in words, and drawn."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from remind.analysis.trained import train_on
from remind.cohort.cohort import Cohort
from remind.cohort.missingness import mask
from remind.config import Recipe
from remind.documents import read_json
from remind.errors import RemindError
from remind.evaluation.comparison import LEVEL
from remind.evaluation.resampling import METRICS
from remind.report.figures import COLOURS, MARKS
from remind.suite.compare import RESULT
from remind.suite.progress import Told

DIFFERENCE = {
    **dict.fromkeys(("difference", "low", "high", "p_holm"), pl.Float64),
    "verdict": pl.String,
}
SAID = {"accuracy": "accuracy", "macro_auroc": "macro AUROC"}
SCORE = {"metric": pl.String, "mean": pl.Float64, "std": pl.Float64, "seeds": pl.List(pl.Int64), **DIFFERENCE}


def compared(
    cohort: Path, methods: Sequence[str], seeds: Sequence[int], *, recipe: Recipe, out: Path, jobs: int, told: Told
) -> dict[str, Any]:
    """What ``compare`` says of a suite, all of whose runs finish.

    Raises:
        RemindError: for anything wrong with what is given, or if a run fails.
    """
    train_on(cohort, methods, seeds, recipe=recipe, overrides=(), out=out, jobs=jobs, told=told)
    return read_json(out / RESULT)


def masked(cohort: Cohort, folder: Path, rule: str, **settings: Any) -> dict[str, Any]:
    """Write what a rule leaves of a cohort, if it is not there, and give what ``mask.json`` says of it.

    Raises:
        RemindError: if the folder holds another masking or another cohort's, or the rule does not fit the cohort.
    """
    if not folder.exists():
        mask(cohort, folder, rule, **settings)
    done = read_json(folder / "mask.json")
    there, asked = {"rule": done.get("rule"), **done.get("settings", {})}, {"rule": rule, **settings}
    if other := [f"{key} {there.get(key)}, not {value}" for key, value in asked.items() if there.get(key) != value]:
        raise RemindError(f"{folder}: was masked with {'; '.join(other)}; name another folder.")
    if done.get("source", {}).get("fingerprint") != cohort.fingerprint:
        raise RemindError(f"{folder}: was made of another cohort than {cohort.folder}; name another folder.")
    return done


def one_of(suites: int, name: str, told: Told) -> Told:
    """Tell of one of several suites of equal size: the run by its suite, and how many runs they have together."""
    return lambda outcome, total: told(outcome._replace(name=f"{name}/{outcome.name}"), total * suites)


def parts_of(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of a comparison that are no combination, by name."""
    return {row["row"]: row for row in result["rows"] if row["kind"] is None}


def combinations_of(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of a comparison that are combinations, by name."""
    return {row["row"]: row for row in result["rows"] if row["kind"] is not None}


def score_lines(row: Mapping[str, Any], method: str, /, **names: Any) -> list[dict[str, Any]]:
    """What a method scores in a row of a comparison, a metric a line; ``names`` say what the line is of.

    The difference is null for the reference itself, and where samples are too few to judge.
    """
    lines = []
    for metric in METRICS:
        score = row["scores"][method][metric]
        said = row["differences"].get(method, {}).get(metric, {})
        lines.append(
            {
                **names,
                "n": row["n"],
                "few": row["few"],
                "metric": metric,
                "mean": score["mean"],
                "std": score["std"],
                "seeds": [int(seed) for seed in score["seeds"]],
                **{key: said.get(key) for key in DIFFERENCE},
            }
        )
    return lines


def score_table(lines: Iterable[Mapping[str, Any]], **names: Any) -> pl.DataFrame:
    """The lines as a table; ``names`` gives the type of each column that says what a line is of."""
    return pl.DataFrame(list(lines), schema={**names, "n": pl.Int64, "few": pl.Boolean, **SCORE})


def paired(seeds: Sequence[int], reference: str) -> str:
    """What all differences are."""
    listed = ", ".join(map(str, seeds))
    return (
        f"Seeds {listed}; differences to {reference} are paired over seeds and test samples, with {LEVEL:.0%} "
        "bootstrap intervals over patients and Holm's correction."
    )


def in_words(table: pl.DataFrame) -> str:
    """How accuracy and AUROC differ from the reference's, part by part."""
    parts = []
    for (part,), lines in table.group_by("part", maintain_order=True):
        by_metric = {line["metric"]: line for line in lines.iter_rows(named=True)}
        said = [f"{words} {_difference(by_metric[metric])}" for metric, words in SAID.items()]
        parts.append(f"{part} has too few patients to be judged" if lines["few"].any() else f"{part} {', '.join(said)}")
    return "; ".join(parts) + "."


def _difference(line: Mapping[str, Any]) -> str:
    if line["verdict"] is None:
        return "not judged (a class has too few patients)"
    verdict = "a tie" if line["verdict"] == "tie" else line["verdict"]
    return f"{line['difference']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}], {verdict}"


def dot_panels(table: pl.DataFrame, *, panel: str, row: str, series: str, title: str) -> Figure:
    """Accuracy: a dot for the mean, a bar of one standard deviation over seeds to either side; a colour a series.

    Parts of too few patients to be judged are not drawn.
    """
    accuracy = table.filter(pl.col("metric") == "accuracy", ~pl.col("few"))
    panels = accuracy.partition_by(panel, maintain_order=True)
    rows = [one[row].unique(maintain_order=True).to_list() for one in panels]
    names = accuracy[series].unique(maintain_order=True).to_list()
    deep = math.ceil(len(panels) / 4)
    wide = math.ceil(len(panels) / deep)
    most = [max(map(len, rows[start : start + wide])) for start in range(0, len(rows), wide)]
    height = sum(0.7 + 0.36 * count for count in most) + 0.9
    figure = Figure(figsize=(2.3 * wide + 2.4, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False)
    ratios = [0.5 + count for count in most]
    grid = figure.subplots(deep, wide, sharex=True, squeeze=False, height_ratios=ratios)
    for place, (axes, lines, labels) in enumerate(zip(grid.flat, panels, rows, strict=False)):
        for line in lines.iter_rows(named=True):
            number = names.index(line[series])
            beside = 0.0 if series in (row, panel) else 0.6 * ((number + 0.5) / len(names) - 0.5)
            spread = None if line["std"] is None else 100 * line["std"]
            y = labels.index(line[row]) + beside
            axes.errorbar(100 * line["mean"], y, xerr=spread, capsize=2, elinewidth=1.2, **_style(number))
        axes.set_title(lines[panel][0], fontsize=9, loc="left", parse_math=False)
        axes.set_yticks(range(len(labels)), [_short(label) for label in labels], fontsize=8, parse_math=False)
        axes.set_ylim(most[place // wide] - 0.5, -0.5)
        axes.tick_params(axis="x", labelsize=8)
        axes.tick_params(axis="y", length=0, labelleft=place % wide == 0 or labels != rows[0])
        axes.grid(axis="x", linewidth=0.4, alpha=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    figure.supxlabel("accuracy on the test split, %; mean and standard deviation over seeds", fontsize=8.5)
    if series not in (row, panel):
        handles = [Line2D([], [], label=name, **_style(number)) for number, name in enumerate(names)]
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _short(label: str) -> str:
    return label if len(label) <= 36 else f"{label[:35]}…"


def _style(number: int) -> dict[str, Any]:
    mark, colour = MARKS[number % len(MARKS)], COLOURS[number % len(COLOURS)]
    return {"color": colour, "marker": mark, "markersize": 5, "linestyle": "none"}
