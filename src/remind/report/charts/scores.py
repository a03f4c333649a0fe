"""Scores with their intervals: of combinations, and of methods."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from remind.report.charts.parts import (
    KINDS,
    MOST,
    NEUTRAL,
    PARTS,
    WITH_PARTS,
    chosen_score,
    coloured,
    data,
    different,
    dots_and_bars,
    lines_of,
    tips,
    upright,
    wide,
)
from remind.report.comparison import METRICS
from remind.report.content import Content
from remind.report.names import shown

BY_PART = {"overall": NEUTRAL, "head": KINDS["head"], "tail": KINDS["tail"]}


def scores(content: Content) -> Any:
    """Each score with its interval: the parts, then every combination that is large enough."""
    parts = [(part, {**content.parts[part], "kind": "all together"}) for part in PARTS if part in content.parts]
    judged = [(line["label"], line) for line in content.combinations if not line["few"]]
    lines = [(name, line) for name, line in [*parts, *judged[:MOST]] if line["n"]]
    lines = list(zip(different(name for name, _ in lines), (line for _, line in lines), strict=True))
    rows = []
    for name, line in lines:
        for metric, title in METRICS.items():
            held = line["intervals"].get(metric, {})
            about = {"name": name, "kind": line["kind"], "n": line["subjects"], "metric": title}
            rows.append({**about, "score": line[metric], "low": held.get("low"), "high": held.get("high")})
    about = tips(combination="name:N", score="score:Q|.3f", low="low:Q|.3f", high="high:Q|.3f", patients="n:Q|,")
    chosen, colour = chosen_score("combinations", "Accuracy"), coloured("kind:N", WITH_PARTS)
    base = alt.Chart(data(rows)).transform_filter(chosen).transform_filter("isValid(datum.score)")
    base = base.encode(y=lines_of(name for name, _ in lines), color=colour, tooltip=about)
    drawn = dots_and_bars(
        base, low="low", high="high", dot="score", title="score and 95 % interval", scale=alt.Scale(zero=False)
    )
    return wide(drawn.add_params(chosen), rows=len(lines))


def methods(content: Content) -> Any:
    """Each method's scores in each part: mean and standard deviation over the seeds."""
    rows = []
    for row in _parts(content):
        for method, by_metric in row["scores"].items():
            for metric, title in METRICS.items():
                mean, std = by_metric[metric]["mean"], by_metric[metric]["std"] or 0.0
                if mean is not None:
                    about = {"name": shown(method), "part": row["row"], "metric": title}
                    rows.append({**about, "mean": mean, "low": mean - std, "high": mean + std})
    about = tips(method="name:N", part="part:N", mean="mean:Q|.3f", low="low:Q|.3f", high="high:Q|.3f")
    return _by_method("methods", rows, "mean", "mean ± standard deviation over seeds", about) if rows else None


def differences(content: Content) -> Any:
    """Each method's difference to the reference, with its interval."""
    rows = [
        {"name": shown(method), "part": row["row"], "metric": title, **said[metric]}
        for row in _parts(content)
        for method, said in row["differences"].items()
        for metric, title in METRICS.items()
        if metric in said
    ]
    if not rows or content.comparison is None:
        return None
    about = tips(
        method="name:N",
        part="part:N",
        difference="difference:Q|+.3f",
        **{"low": "low:Q|+.3f", "high": "high:Q|+.3f", "p (Holm)": "p_holm:Q|.3f", "verdict": "verdict:N"},
    )
    title = f"difference to {shown(content.comparison['reference'])}, 95 % interval"
    return _by_method("differences", rows, "difference", title, about, upright(0.0))


def _parts(content: Content) -> list[dict[str, Any]]:
    rows = content.comparison["rows"] if content.comparison else []
    return [row for row in rows if row["kind"] is None and row["row"] in PARTS]


def _by_method(
    of: str, rows: Sequence[Mapping[str, Any]], dot: str, title: str, about: list[alt.Tooltip], *below: Any
) -> Any:
    """Methods, one a line, with a dot and a bar for each part."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    first = "Macro AUROC" if any(row["metric"] == "Macro AUROC" for row in rows) else "Accuracy"
    chosen = chosen_score(of, first)
    base = alt.Chart(data(rows)).transform_filter(chosen)
    base = base.encode(
        y=lines_of(names),
        yOffset=alt.YOffset("part:N", scale=alt.Scale(domain=list(PARTS))),
        color=coloured("part:N", BY_PART),
        tooltip=about,
    )
    drawn = dots_and_bars(base, low="low", high="high", dot=dot, title=title, scale=alt.Scale(zero=False))
    return wide(alt.layer(*below, drawn).add_params(chosen), height=max(90, 44 * len(names)))
