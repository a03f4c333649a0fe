"""A comparison as tables: for a terminal, Markdown, LaTeX and CSV. All say the same, from ``comparison.json`` alone."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from remind.report.paper import paper_figures
from remind.report.tables import PLAIN, brief

METRICS = {"accuracy": "Accuracy", "macro_f1": "Macro F1", "macro_auroc": "Macro AUROC"}
PARTS = ("head", "tail", "unseen", "worst", "overall")
NOTE = "mean ± standard deviation over seeds; best bold, second underlined; * fewer than 10 patients: shown, not ranked"


@dataclass(frozen=True)
class Cell:
    """What a method scores in a row."""

    mean: float | None
    std: float | None
    seeds: tuple[int, int]  # that have the score, of how many
    place: int | None  # 1 is best, 2 second; None: not ranked, or neither
    paper: float | None  # the paper's figure
    difference: Mapping[str, Any] | None  # to the reference

    @property
    def text(self) -> str:
        """``0.841 ± 0.007 (paper 0.807)``; a dash where the samples do not allow the metric."""
        if self.mean is None:
            return "-"
        spread = "" if self.std is None else f" ± {self.std:.3f}"
        lacking = "" if self.seeds[0] == self.seeds[1] else f" ({self.seeds[0]} of {self.seeds[1]} seeds)"
        return f"{self.mean:.3f}{spread}{lacking}" + ("" if self.paper is None else f" (paper {self.paper:.3f})")

    @property
    def verdict(self) -> str:
        """``-0.012 worse [-0.020, -0.004]``; empty where nothing was judged."""
        if not self.difference:
            return ""
        d = self.difference
        return f"{d['difference']:+.3f} {d['verdict']} [{d['low']:+.3f}, {d['high']:+.3f}]"


@dataclass(frozen=True)
class Line:
    """A row of the table of one metric."""

    name: str  # in few words
    part: bool  # of all combinations, and not one of them
    kind: str
    n: str
    share: str
    cells: Mapping[str, Cell]  # by method


def lines(result: Mapping[str, Any], metric: str) -> list[Line]:
    """The table of one metric."""
    published = paper_figures(result["cohort"], result["modalities"])
    made = []
    for row in result["rows"]:
        part = row["kind"] is None
        figures = {method: scores[metric] for method, scores in row["scores"].items()}
        whole = max(len(figure["seeds"]) for figure in figures.values())
        ranked = {method: figure["mean"] for method, figure in figures.items() if len(figure["seeds"]) == whole}
        places = {} if row["few"] else _places(ranked)
        paper = published.get(row["row"], {}) if not part or row["row"] == "overall" else {}
        cells = {
            method: Cell(
                figures[method]["mean"],
                figures[method]["std"],
                (len(figures[method]["seeds"]), whole),
                places.get(method),
                paper.get(method, {}).get(metric),
                row["differences"].get(method, {}).get(metric),
            )
            for method in result["methods"]
        }
        name = row["row"] if part else brief(row["row"], result["modalities"])
        size = "" if row["n"] is None else f"{row['n']}{'*' if row['few'] else ''}"
        share = "" if row["share"] is None else f"{row['share']:.1%}"
        kind = row["kind"] if row["kind"] in ("tail", "unseen") else ""
        made.append(Line(name, part, kind or "", size, share, cells))
    return made


def _places(means: Mapping[str, float | None]) -> dict[str, int]:
    """Methods with the best and the second best mean, as they are printed: equal figures share a place."""
    printed = {method: round(mean, 3) for method, mean in means.items() if mean is not None}
    best = sorted(set(printed.values()), reverse=True)[:2]
    return {method: best.index(mean) + 1 for method, mean in printed.items() if mean in best}


def terminal_tables(result: Mapping[str, Any], metric: str, *, width: int, most: int = 12) -> Iterator[Table]:
    """One metric, as many methods side by side as fit the width; the ``most`` frequent combinations."""
    shown = _shown(result, metric, most)
    hidden = len(result["rows"]) - len(shown)
    longest = max(len(cell.text) for line in shown for cell in line.cells.values())
    fit = max(1, (width - 36) // (longest + 1))
    for start in range(0, len(result["methods"]), fit):
        methods = result["methods"][start : start + fit]
        more = f"; {hidden} rarer combinations not shown" if hidden else ""
        title = f"{METRICS[metric]}, {result['cohort']}, test split, seeds {', '.join(map(str, result['seeds']))}"
        table = Table(title=Text(title), caption=Text(NOTE + more), **PLAIN)
        table.add_column("combination", overflow="fold", min_width=12, max_width=20)
        for heading in ("n", "share", ""):
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        for method in methods:
            table.add_column(Text(method), no_wrap=True)
        for place, line in enumerate(shown):
            if line.part and not shown[place - 1].part:
                table.add_section()
            styled = [Text(line.cells[m].text, style=_STYLE[line.cells[m].place]) for m in methods]
            table.add_row(Text(line.name), line.n, line.share, line.kind, *styled)
        yield table


_STYLE = {1: "bold", 2: "underline", None: ""}


def difference_table(result: Mapping[str, Any], metric: str) -> Table:
    """Differences to the reference in the parts that were judged."""
    parts = [line for line in lines(result, metric) if line.part and any(c.difference for c in line.cells.values())]
    title = f"{METRICS[metric]}: difference to {result['reference']}"
    table = Table(title=Text(title), caption=Text(_interval_words(result)), **PLAIN)
    table.add_column("method", no_wrap=True)
    for line in parts:
        table.add_column(line.name, no_wrap=True)
    for method in result["methods"]:
        if method != result["reference"]:
            table.add_row(Text(method), *[line.cells[method].verdict.replace(" [", "\n[") for line in parts])
    return table


def markdown(result: Mapping[str, Any], *, most: int | None = None) -> str:
    """All metrics, then all differences; of combinations the ``most`` frequent."""
    text, combinations = [], sum(row["kind"] is not None for row in result["rows"])
    rarer = max(0, combinations - most) if most is not None else 0
    note = NOTE.replace("*", "\\*") + (f"; {rarer} rarer combinations not shown." if rarer else ".")
    for metric, heading in METRICS.items():
        text += [
            f"## {heading}",
            "",
            *_markdown_table(result, metric, most),
            "",
            note,
            "",
        ]
    if result["reference"]:
        text += [f"## Differences to {result['reference']}", "", f"{_interval_words(result)}.", ""]
        for metric, heading in METRICS.items():
            text += [f"### {heading}", "", *_markdown_differences(result, metric, most), ""]
    if result["trials"]:
        text += ["## Settings", "", "Over the recipe, the best on validation of equally many trials.", ""]
        text += [f"- {name}: `{' '.join(one['settings']) or 'the recipe'}`" for name, one in result["trials"].items()]
        text += [""]
    if result["failed"]:
        text += ["## Failed runs", "", *[f"- {escaped(run)}" for run in result["failed"]], ""]
    return "\n".join(text)


def _interval_words(result: Mapping[str, Any]) -> str:
    return (
        f"{result['level']:.0%} intervals from {result['replicates']} bootstraps of the subjects, paired over samples "
        "and seeds; a tie unless p is below 0.05 after Holm's correction for the methods in a row"
    )


def _shown(result: Mapping[str, Any], metric: str, most: int | None) -> list[Line]:
    """The most frequent combinations, and all parts."""
    every = lines(result, metric)
    return [line for line in every if not line.part][:most] + [line for line in every if line.part]


def _markdown_table(result: Mapping[str, Any], metric: str, most: int | None) -> Iterator[str]:
    yield "| combination | n | share | | " + " | ".join(result["methods"]) + " |"
    yield "|---|---:|---:|---|" + "---|" * len(result["methods"])
    for line in _shown(result, metric, most):
        cells = [_MARKDOWN[cell.place].format(cell.text) for cell in line.cells.values()]
        name = f"*{escaped(line.name)}*" if line.part else escaped(line.name)
        yield (
            f"| {name} | {line.n.replace('*', chr(92) + '*')} | {line.share} | {line.kind} | "
            + " | ".join(cells)
            + " |"
        )


_MARKDOWN = {1: "**{}**", 2: "<u>{}</u>", None: "{}"}


def _markdown_differences(result: Mapping[str, Any], metric: str, most: int | None) -> Iterator[str]:
    others = [method for method in result["methods"] if method != result["reference"]]
    yield "| combination | " + " | ".join(others) + " |"
    yield "|---|" + "---|" * len(others)
    for line in _shown(result, metric, most):
        if any(line.cells[method].difference for method in others):
            yield f"| {escaped(line.name)} | " + " | ".join(line.cells[method].verdict for method in others) + " |"


def escaped(name: str) -> str:
    """A text as Markdown shows it."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+-!|&~" and c not in "+-" else c for c in name)


def latex(result: Mapping[str, Any]) -> str:
    """One ``tabular`` a metric, for the packages booktabs and graphicx."""
    return "\n".join(_latex_table(result, metric) for metric in METRICS)


def _latex_table(result: Mapping[str, Any], metric: str) -> str:
    heads = ["combination", "$n$", "share", "", *map(_tex, result["methods"])]
    text = [
        f"% {METRICS[metric]}; {NOTE}".replace("±", "+-"),
        r"\begin{tabular}{lrrl" + "l" * len(result["methods"]) + "}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
    ]
    previous = False
    for line in lines(result, metric):
        if line.part and not previous:
            text.append(r"\midrule")
        previous = line.part
        cells = [_LATEX[cell.place] % _tex(cell.text) for cell in line.cells.values()]
        text.append(" & ".join([_tex(line.name), _tex(line.n), _tex(line.share), line.kind, *cells]) + r" \\")
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}", ""])


_LATEX = {1: r"\textbf{%s}", 2: r"\underline{%s}", None: "%s"}
_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text).replace("±", r"$\pm$")


COLUMNS = (
    *("metric", "row", "part", "kind", "n", "share", "few", "method", "mean", "std", "place", "paper"),
    *("difference", "low", "high", "p", "p_holm", "verdict"),
)


def as_csv(result: Mapping[str, Any]) -> str:
    """A line for each metric, row and method."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for metric in METRICS:
        for row, line in zip(result["rows"], lines(result, metric), strict=True):
            for method, cell in line.cells.items():
                facts = {"metric": metric, "row": row["row"], "part": line.part, "kind": row["kind"], "n": row["n"]}
                figures = {"mean": cell.mean, "std": cell.std, "place": cell.place, "paper": cell.paper}
                facts |= {"share": row["share"], "few": row["few"], "method": method}
                writer.writerow(facts | figures | dict(cell.difference or {}))
    return out.getvalue()


def comparison_files(result: Mapping[str, Any]) -> dict[str, str]:
    """File names and contents."""
    return {
        "comparison.md": f"# {escaped(result['cohort'])}\n\n{markdown(result)}",
        "comparison.tex": latex(result),
        "comparison.csv": as_csv(result),
    }
