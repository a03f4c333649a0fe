"""What each modality is worth."""

from typing import Any

import altair as alt

from remind.report.charts.parts import (
    MOST,
    by_method,
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
from remind.report.names import shown

KEYS = ("method", "bits", "bits_low", "bits_high", "accuracy")
ABOUT = {"bits": "bits:Q|+.3f", "low": "bits_low:Q|+.3f", "high": "bits_high:Q|+.3f", "accuracy": "accuracy:Q|+.3f"}


def values(content: Content) -> Any:
    """What each modality is worth to those who have it, with its interval, by method."""
    rows = [
        {**{key: row[key] for key in KEYS}, "name": shown(row["modality"])}
        for row in content.findings.get("modalities", {}).get("rows", [])
        if row["kind"] is None and not row["few"]
    ]
    if not rows:
        return None
    methods = by_method((row["method"] for row in rows), content.method)
    first = [row["name"] for row in sorted(rows, key=lambda row: -row["bits"]) if row["method"] == next(iter(methods))]
    names = list(dict.fromkeys([*first, *(row["name"] for row in rows)]))
    base = alt.Chart(data(rows)).encode(
        y=lines_of(names),
        yOffset=alt.YOffset("method:N", scale=alt.Scale(domain=list(methods))),
        color=coloured("method:N", methods),
        tooltip=tips(modality="name:N", method="method:N", **ABOUT),
    )
    title, scale = "bits of information on the true class", alt.Scale(zero=True)
    drawn = dots_and_bars(base, low="bits_low", high="bits_high", dot="bits", title=title, scale=scale)
    return wide(upright(0.0) + drawn, height=max(80, (12 + 8 * len(methods)) * len(names)))


def values_by_combination(content: Content) -> Any:
    """Bits of each modality in each combination that is large enough; nothing where it is missing."""
    labels = {line["name"]: line["label"] for line in content.combinations}
    lines = [
        row for row in content.of_run("modalities") if row["kind"] and not row["few"] and row["combination"] in labels
    ]
    drawn = list(dict.fromkeys(row["combination"] for row in lines))[:MOST]
    if not drawn:
        return None
    names = dict(zip(drawn, different(labels[name] for name in drawn), strict=True))
    rows = [
        {**{key: row[key] for key in KEYS}, "modality": shown(row["modality"])} | {"name": names[row["combination"]]}
        for row in lines
        if row["combination"] in drawn
    ]
    largest = max(abs(row["bits"]) for row in lines)
    top = alt.Axis(orient="top", labelAngle=-90, labelAlign="left", labelBaseline="middle", labelLimit=110)
    colours = alt.Scale(scheme="blueorange", domain=[-largest, largest])
    chart = alt.Chart(data(rows)).mark_rect()
    chart = chart.encode(
        x=alt.X("modality:N", scale=alt.Scale(domain=content.modalities), title=None, axis=top),
        y=lines_of(names.values()),
        color=alt.Color("bits:Q", title="bits", scale=colours, legend=alt.Legend(tickCount=3)),
        tooltip=tips(combination="name:N", modality="modality:N", **ABOUT),
    )
    return wide(chart, rows=len(drawn))
