"""The availability atlas of a cohort, drawn with matplotlib from its description alone."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from remind.report.dots import HEAD, TAIL, dot_matrix
from remind.report.tables import mask_alone_words

CLASSES = 8  # told apart by colour; the rarer ones are drawn as one
LETTERS = 34  # of a name; the middle of a longer one is cut out
NUMBERED = 16  # modalities; of more, phi is told by colour alone
LEFT, COLUMN, LINE, LETTER = 1.9, 0.3, 0.27, 0.062  # inches: the left panel, a combination, a modality, a letter


def atlas_figure(described: Mapping[str, Any], *, most: int = 25) -> Figure:
    """An UpSet plot of the ``most`` frequent combinations, their classes, and which modalities are missing together.

    Takes what ``describe_cohort`` returns. From the top: how frequent each combination is, its classes (dashed: those
    of the whole cohort), what it holds. On the left how often each modality is there; on the right phi, the
    correlation of missing one with missing the other.
    """
    lines, modalities = described["combinations"][:most], list(described["modalities"])
    names = [_cut(name) for name in modalities]
    name_width = LETTER * max(map(len, names)) + 0.2
    columns = max(len(lines), 6)
    cell = 0.36 if len(names) <= NUMBERED else 0.14
    widths = [LEFT, COLUMN * columns, cell * max(len(names) - 1, 4)]
    heights = [1.7, 1.3, LINE * max(len(names), 3)]
    figure = Figure(figsize=(sum(widths) + 2 * name_width + 1.2, sum(heights) + 1.3 + name_width), layout="constrained")
    grid = figure.add_gridspec(3, 3, width_ratios=widths, height_ratios=heights)
    share = figure.add_subplot(grid[0, 1])
    classes, held = figure.add_subplot(grid[1, 1], sharex=share), figure.add_subplot(grid[2, 1], sharex=share)
    available = figure.add_subplot(grid[2, 0], sharey=held)
    _title(figure, described, lines)
    _frequencies(share, lines)
    colours = _class_shares(classes, described, lines)
    dot_matrix(held, modalities, [line["combination"] for line in lines])
    held.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    held.set_xticks(range(len(lines)), [f"{line['n']:,}" for line in lines], fontsize=7, rotation=90)
    held.set_xlim(-0.6, columns - 0.4)
    _availability(available, list(described["modalities"].values()))
    _legend(figure.add_subplot(grid[:2, 0]), described, lines, colours)
    _phi(figure.add_subplot(grid[:, 2]), described["co_missing"], modalities, names)
    for axes in (share, classes, held):
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (share, classes):
        axes.tick_params(axis="x", labelbottom=False, length=0)
    return figure


def _cut(name: str, letters: int = LETTERS) -> str:
    return name if len(name) <= letters else f"{name[: letters // 2]}…{name[1 - letters // 2 :]}"


def _title(figure: Figure, described: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> None:
    there, shown = len(described["combinations"]), sum(line["share"] for line in lines)
    held = f"{there} combination{'s' * (there > 1)}"
    held = held if len(lines) == there else f"{len(lines)} of {held} ({shown:.1%} of the samples)"
    sizes = f"{described['samples']:,} samples, {described['subjects']:,} subjects, {held}"
    title = f"{_cut(described['name'], 60)}\n{sizes}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold", parse_math=False)


def _frequencies(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """Dark for head, light for tail, and an outline only for what training never shows."""
    colours = {"head": HEAD, "tail": TAIL, "unseen": "white"}
    bars = axes.bar(range(len(lines)), [100 * line["share"] for line in lines], width=0.66,
                    color=[colours[line["kind"]] for line in lines],
                    edgecolor=[HEAD if line["kind"] == "head" else TAIL for line in lines])  # fmt: skip
    axes.bar_label(bars, [f"{100 * line['share']:.1f}" for line in lines], fontsize=6.5, padding=1)
    axes.set_ylabel("share of all\nsamples, %", fontsize=8)
    axes.tick_params(labelsize=8)


def _class_shares(
    axes: Axes, described: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> list[tuple[str, Any]]:
    """Bars of each combination's classes; returns the name and the colour of each, from the bottom up."""
    whole: dict[str, int] = {}
    for line in described["combinations"]:
        for name, n in line["classes"].items():
            whole[name] = whole.get(name, 0) + n
    own = set(whole) if len(whole) <= CLASSES else set(sorted(whole, key=lambda name: -whole[name])[: CLASSES - 1])
    parts = [(name, [name]) for name in whole if name in own]
    if rarer := [name for name in whole if name not in own]:
        parts.append((f"{len(rarer)} rarer classes", rarer))
    colours = [tuple(colour) for colour in colormaps["viridis"](np.linspace(0.9, 0.15, len(parts)))]
    bottom, below = np.zeros(len(lines)), 0.0
    for (_, members), colour in zip(parts, colours, strict=True):
        height = [100 * sum(line["classes"][name] for name in members) / line["n"] for line in lines]
        axes.bar(range(len(lines)), height, bottom=bottom, width=0.66, color=colour)
        bottom += height
        below += 100 * sum(whole[name] for name in members) / described["samples"]
        if below < 99.99:
            axes.axhline(below, color="black", linewidth=0.9, linestyle=(0, (3, 2)))
    axes.set_ylim(0, 100)
    axes.set_ylabel("classes, %", fontsize=8)
    axes.tick_params(labelsize=8)
    return [(name, colour) for (name, _), colour in zip(parts, colours, strict=True)]


def _availability(axes: Axes, shares: Sequence[float]) -> None:
    """Bars that grow leftwards from the names."""
    axes.barh(range(len(shares)), [100 * share for share in shares], height=0.6, color="#2f6f9f")
    for row, share in enumerate(shares):
        axes.text(100 * share + 3, row, f"{share:.1%}", ha="right", va="center", fontsize=7.5)
    axes.set_xlim(140, 0)
    axes.set_xticks([])
    axes.set_xlabel("available", fontsize=8)
    axes.tick_params(axis="y", left=False, labelleft=False)
    axes.spines[["left", "top", "bottom"]].set_visible(False)


def _legend(
    axes: Axes,
    described: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    colours: Sequence[tuple[str, Any]],
) -> None:
    """What the colours mean, and what the mask alone tells of the label."""
    axes.axis("off")
    handles = [Patch(facecolor=HEAD, label="head"), Patch(facecolor=TAIL, label="tail")]
    if any(line["kind"] == "unseen" for line in lines):
        handles.append(Patch(facecolor="white", edgecolor=TAIL, label="unseen in training"))
    handles += [Patch(facecolor=colour, label=_cut(name)) for name, colour in reversed(colours)]
    legend = axes.legend(handles=handles, loc="lower left", borderaxespad=0, frameon=False, fontsize=7.5)
    for text in legend.get_texts():
        text.set_parse_math(False)
    words = fill("Mask alone: " + mask_alone_words(described["mask_alone"]), 34)
    axes.text(0, 1, words, fontsize=8, va="top", parse_math=False)


def _phi(axes: Axes, pairs: Sequence[Mapping[str, Any]], modalities: Sequence[str], names: Sequence[str]) -> None:
    """The lower triangle of phi: red where two are missing together, blue where one or the other is."""
    axes.set_anchor("NW")
    if not pairs:
        axes.axis("off")
        axes.text(0, 1, "one modality: no pairs", fontsize=8, va="top")
        return
    place = {name: index for index, name in enumerate(modalities)}
    limit = max([0.3, *(abs(pair["phi"]) for pair in pairs if pair["phi"] is not None)])
    axes.set_title(f"missing together: phi\n(blue -{limit:.2f}, red {limit:.2f})", fontsize=8, loc="left")
    phi = np.full((len(names), len(names)), np.nan)
    for pair in pairs:
        column, row = (place[name] for name in pair["modalities"])
        if pair["phi"] is not None:
            phi[row, column] = pair["phi"]
        if len(names) <= NUMBERED:
            text = "–" if pair["phi"] is None else f"{round(pair['phi'], 2) + 0.0:.2f}"  # + 0.0: no -0.00
            light = pair["phi"] is not None and abs(pair["phi"]) > 0.6 * limit
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color="white" if light else "black")
    axes.imshow(phi[1:, :-1], cmap="RdBu_r", vmin=-limit, vmax=limit,
                extent=(-0.5, len(names) - 1.5, len(names) - 0.5, 0.5))  # fmt: skip
    axes.set_xticks(range(len(names) - 1), names[:-1], rotation=90, fontsize=7.5, parse_math=False)
    axes.set_yticks(range(1, len(names)), names[1:], fontsize=7.5, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
