"""The tables of a page: what stands in them, and by what they are sorted."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from remind.report.charts.parts import PARTS
from remind.report.comparison import METRICS
from remind.report.content import Content
from remind.report.names import shown

STEPS = 100  # that are shown, of those that add most


class Cell(NamedTuple):
    """What stands in a table."""

    text: str
    small: str = ""  # below it
    sort: float | str | None = None  # by which it is sorted; None: by the text; empty: last


class Line(NamedTuple):
    """A row of a table."""

    cells: list[Cell]
    part: bool = False  # of all combinations, and not one of them


class Table(NamedTuple):
    """A table of a page."""

    heads: list[str]
    rows: list[Line]


def tables(content: Content) -> dict[str, Table]:
    """All of them, by name; what there is nothing to say of has no rows."""
    return {
        "results": results(content),
        "methods": _methods(content),
        "calibration": _calibration(content),
        "next": _next(content),
    }


def results(content: Content) -> Table:
    """Parts, then every combination."""
    parts = [
        Line([Cell(name), Cell(""), Cell("", sort=""), *_tested(scores), *_scores(scores)], part=True)
        for name in ("overall", "head", "tail", "unseen")
        if (scores := content.parts.get(name)) and scores["n"]
    ]
    single = [
        Line(
            [
                Cell(line["label"]),
                Cell(line["kind"]),
                Cell(f"{line['trained']:,}", f"{line['share']:.1%}", sort=line["trained"]),
                *_tested(line),
                *_scores(line),
            ]
        )
        for line in content.combinations
    ]
    return Table(["Combination", "Kind", "Trained on", "Test patients", *METRICS.values()], [*parts, *single])


def _tested(scores: Mapping[str, Any]) -> list[Cell]:
    samples = "" if scores["n"] == scores["subjects"] else f"{scores['n']:,} samples"
    return [Cell(f"{scores['subjects']:,}", samples, sort=scores["subjects"])]


def _scores(scores: Mapping[str, Any]) -> list[Cell]:
    """Each score above its interval, or above the reason why it has none."""
    cells = []
    for metric in METRICS:
        if scores[metric] is None:
            cells.append(Cell("", sort=""))
            continue
        said = scores["intervals"].get(metric, {})
        below = (
            f"{said['low']:.3f} – {said['high']:.3f}" if "low" in said else said.get("reason", "").partition(" (")[0]
        )
        cells.append(Cell(f"{scores[metric]:.3f}", below, sort=scores[metric]))
    return cells


def _methods(content: Content) -> Table:
    """A method a line; each score in each part."""
    if content.comparison is None:
        return Table([], [])
    rows = {row["row"]: row for row in content.comparison["rows"] if row["kind"] is None}
    parts = [part for part in PARTS if part in rows]
    heads = [f"{title}, {part}" for part in parts for title in METRICS.values()]
    lines = []
    for method in content.comparison["methods"]:
        cells = []
        for part in parts:
            for metric in METRICS:
                score = rows[part]["scores"][method][metric]
                spread = "" if score["std"] is None else f"± {score['std']:.3f}"
                value = score["mean"]
                cells.append(Cell("", sort="") if value is None else Cell(f"{value:.3f}", spread, sort=value))
        lines.append(Line([Cell(shown(method)), *cells]))
    return Table(["Method", *heads], lines)


def _calibration(content: Content) -> Table:
    test = content.calibration["test"]
    parts = [(part, test[part], True) for part in PARTS if part in test and "coverage" in test[part]]
    single = [
        (line["label"], line["calibration"], False)
        for line in content.combinations
        if line["calibration"] and "coverage" in line["calibration"]
    ]
    rows = []
    for name, line, part in [*parts, *single]:
        raw, mended, coverage = line["raw"], line["calibrated"], line["coverage"]
        rows.append(
            Line(
                [
                    Cell(name),
                    Cell(
                        f"{line['temperature']:.2f}" if "temperature" in line else "", sort=line.get("temperature", "")
                    ),
                    Cell(f"{raw['ece']:.3f}", "beyond chance" if raw["beyond_chance"] else "", sort=raw["ece"]),
                    Cell(
                        f"{mended['ece']:.3f}", "beyond chance" if mended["beyond_chance"] else "", sort=mended["ece"]
                    ),
                    Cell(f"{mended['ece_by_chance']:.3f}", sort=mended["ece_by_chance"]),
                    Cell(f"{mended['brier']:.3f}", sort=mended["brier"]),
                    Cell(
                        f"{coverage['share']:.3f}",
                        f"{coverage['low']:.3f} – {coverage['high']:.3f}",
                        sort=coverage["share"],
                    ),
                    Cell(f"{line['set_size']:.2f}", sort=line["set_size"]),
                    Cell(line.get("held", "")),
                ],
                part=part,
            )
        )
    heads = ["Temperature", "ECE as it is", "ECE scaled", "ECE by chance", "Brier", "Coverage", "Set size", "Held in"]
    return Table(["Combination", *heads], rows)


def _next(content: Content) -> Table:
    """What the next modality would add, of steps that can be judged."""
    names = {line["name"]: line["label"] for line in content.combinations}
    steps = [row for row in content.of_run("modalities", "next") if not row["few"] and row["combination"] in names]
    rows = []
    for row in sorted(steps, key=lambda row: -row["bits"])[:STEPS]:
        bits = f"{row['bits_low']:+.3f} to {row['bits_high']:+.3f}"
        points = f"{100 * row['accuracy_low']:+.1f} to {100 * row['accuracy_high']:+.1f}"
        cells = [
            Cell(names[row["combination"]]),
            Cell(shown(row["modality"])),
            Cell(f"{row['bits']:+.3f}", bits, sort=row["bits"]),
            Cell(f"{100 * row['accuracy']:+.1f} points", points, sort=row["accuracy"]),
        ]
        counted = [Cell(f"{row['subjects']:,}", sort=row["subjects"])] if "subjects" in row else []
        rows.append(Line([*cells, *counted]))
    heads = ["Who has", "and had also", "Bits", "Accuracy", *([] if content.suppressed else ["Seen in patients"])]
    return Table(heads, rows)
