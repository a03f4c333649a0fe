"""Whether probabilities mean what they say, and sets hold what they promise."""

from typing import Any

import altair as alt

from remind.report.charts.parts import (
    KINDS,
    MOST,
    NEUTRAL,
    ON,
    PARTS,
    WITH_PARTS,
    coloured,
    data,
    different,
    dots_and_bars,
    lines_of,
    tips,
    upright,
    wide,
)
from remind.report.content import Content

HOW = {"as the model says": NEUTRAL, "calibrated": KINDS["head"]}


def reliability(content: Content) -> Any:
    """How often the most probable class is the true one, by how probable it was said to be."""
    test = content.calibration["test"]["overall"]
    if "reason" in test or not test["raw"]["bins"]:
        return None
    unit = alt.Scale(domain=[0, 1])
    across, up = "probability said", "share that is true"
    diagonal = alt.Chart(data([{"x": 0, "y": 0}, {"x": 1, "y": 1}])).mark_line(
        strokeWidth=1, strokeDash=[4, 3], color=ON
    )
    diagonal = diagonal.encode(x=alt.X("x:Q", scale=unit, title=across), y=alt.Y("y:Q", scale=unit, title=up))
    rows = [
        {**one, "how": how} for how, key in zip(HOW, ("raw", "calibrated"), strict=True) for one in test[key]["bins"]
    ]
    base = alt.Chart(data(rows)).encode(
        x=alt.X("confidence:Q", scale=unit, title=across),
        color=coloured("how:N", HOW),
        tooltip=tips(said="confidence:Q|.3f", true="accuracy:Q|.3f", low="low:Q|.3f", high="high:Q|.3f"),
    )
    bars = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", scale=unit, title=up), y2="high:Q")
    points = base.mark_circle(size=60, opacity=1).encode(y=alt.Y("accuracy:Q", scale=unit, title=up))
    return wide(diagonal + bars + points, height=300)


def coverage(content: Content) -> Any:
    """How often the set holds the true class, against what was asked for."""
    parts = [(part, "all together", content.calibration["test"].get(part)) for part in PARTS]
    single = [(line["label"], line["kind"], line["calibration"]) for line in content.combinations]
    judged = [(name, kind, line) for name, kind, line in [*parts, *single] if line and "coverage" in line][: MOST + 3]
    if not judged:
        return None
    names = different(name for name, _, _ in judged)
    rows = [
        {"name": name, "kind": kind, "size": line["set_size"], **line["coverage"]}
        for name, (_, kind, line) in zip(names, judged, strict=True)
    ]
    about = tips(
        combination="name:N",
        coverage="share:Q|.3f",
        low="low:Q|.3f",
        high="high:Q|.3f",
        **{"classes in the set": "size:Q|.2f"},
    )
    base = alt.Chart(data(rows)).encode(y=lines_of(names), color=coloured("kind:N", WITH_PARTS), tooltip=about)
    title, scale = "sets that hold the true class", alt.Scale(zero=False)
    drawn = dots_and_bars(base, low="low", high="high", dot="share", title=title, scale=scale)
    return wide(upright(content.calibration["conformal"]["coverage"]) + drawn, rows=len(judged))
