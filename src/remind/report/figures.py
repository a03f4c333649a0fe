"""Figures, drawn with matplotlib from metrics alone."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text

from remind.report.dots import HEAD, TAIL, dot_matrix
from remind.report.names import shown

COLOURS = ("#b0563f", "#2f6f9f", "#6a8f3c", "#8460a0", "#c08a2b")
MARKS = "osD^v"


def frequency_figure(
    modalities: Sequence[str], runs: Mapping[str, Mapping[str, Any]], *, title: str, most: int = 15
) -> Figure:
    """Fig. 1b: how frequent the combinations are, above each method's accuracy on them, above what they hold.

    Shows the ``most`` frequent combinations with at least ten test samples, and overall head and tail accuracy as
    lines in the legend.
    """
    lines = [line for line in next(iter(runs.values()))["combinations"] if not line["few"]][:most]
    names = [line["combination"] for line in lines]
    figure = Figure(figsize=(max(7.0, 0.62 * len(names) + 3.2), 4.6 + 0.2 * len(modalities)), layout="constrained")
    grid = figure.add_gridspec(3, 1, height_ratios=(2.2, 2.6, 0.2 * len(modalities)))
    share = figure.add_subplot(grid[0])
    accuracy, held = figure.add_subplot(grid[1], sharex=share), figure.add_subplot(grid[2], sharex=share)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")

    bars = share.bar(range(len(names)), [100 * line["share"] for line in lines], width=0.62,
                     color=[HEAD if line["kind"] == "head" else TAIL for line in lines])  # fmt: skip
    share.bar_label(bars, [f"{100 * line['share']:.1f}" for line in lines], fontsize=7.5, padding=1)
    share.set_ylabel("share of the\ntraining set, %")
    share.legend(handles=[Patch(color=HEAD, label="head"),
                          Patch(color=TAIL, label="tail")], frameon=False, fontsize=8)  # fmt: skip

    step = 0.5 / max(len(runs), 1)
    for place, (name, run) in enumerate(runs.items()):
        by_name = {line["combination"]: line for line in run["combinations"]}
        x = [index + (place - (len(runs) - 1) / 2) * step for index in range(len(names))]
        y = [100 * by_name[key]["accuracy"] for key in names]
        label = f"{name}: {_percent(run['head'])} head, {_percent(run['tail'])} tail, {_percent(run['overall'])} all"
        accuracy.plot(x, y, MARKS[place % len(MARKS)], color=COLOURS[place % len(COLOURS)], label=label, markersize=6)
        accuracy.vlines(x, 0, y, color=COLOURS[place % len(COLOURS)], linewidth=0.8, alpha=0.5)
    low = min((100 * run_line["accuracy"] for run in runs.values() for run_line in run["combinations"]
              if run_line["combination"] in names), default=0)  # fmt: skip
    accuracy.set_ylim(max(0.0, low - 8), 103)
    accuracy.set_ylabel("accuracy on the\ntest split, %")
    accuracy.grid(axis="y", linewidth=0.4, alpha=0.6)
    accuracy.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2, frameon=False, fontsize=8)

    dot_matrix(held, modalities, names)
    held.set_xticks(range(len(names)), [f"n={line['n']}" for line in lines], fontsize=7.5)
    for axes in (share, accuracy, held):
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (share, accuracy):
        axes.tick_params(labelbottom=False)
    return figure


def _percent(scores: Mapping[str, Any]) -> str:
    return "-" if scores["accuracy"] is None else f"{100 * scores['accuracy']:.1f}"


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.svg``; the same figure gives the same bytes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context({"svg.hashsalt": "remind"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it
        _settle(figure)
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            path = stem.with_name(f"{stem.name}.{kind}")
            staging = path.with_name(f".{path.name}.tmp")
            figure.savefig(staging, format=kind, dpi=160, metadata=metadata)
            staging.replace(path)
            written.append(path)
    return written


def _settle(figure: Figure) -> None:
    """Lay out once, and round: the solver's last digits differ from one time to the next. Names are made legible."""
    for text in figure.findobj(Text):
        text.set_text(shown(text.get_text(), but="\n"))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = axes.get_position(original=True).bounds
        axes.set_position((round(left, 6), round(bottom, 6), round(width, 6), round(height, 6)))
