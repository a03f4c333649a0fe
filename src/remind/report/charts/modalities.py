"""What each modality is worth."""

from typing import Any

import altair as alt

from remind.report.charts.parts import MOST, coloured, data, dots_and_bars, lines_of, tips, upright, wide
from remind.report.content import Content
from remind.report.figures import COLOURS
from remind.report.names import shown

ABOUT = {"bits": "bits:Q|+.3f", "low": "bits_low:Q|+.3f", "high": "bits_high:Q|+.3f", "accuracy": "accuracy:Q|+.3f"}


def values(content: Content) -> Any:
    """What each modality is worth to those who have it, with its interval, by method."""
    rows = [
        {**row, "modality": shown(row["modality"])}
        for row in content.findings.get("modalities", {}).get("rows", [])
        if row["combination"] == "overall" and not row["few"]
    ]
    if not rows:
        return None
    methods = list(dict.fromkeys(row["method"] for row in rows))
    first = content.method if content.method in methods else methods[0]
    bits = {row["modality"]: row["bits"] for row in rows if row["method"] == first}
    base = alt.Chart(data(rows)).encode(
        y=alt.Y("modality:N", sort=sorted(bits, key=lambda name: -bits[name]), title=None, axis=alt.Axis(ticks=False)),
        yOffset=alt.YOffset("method:N", sort=methods),
        color=coloured("method:N", dict(zip(methods, COLOURS, strict=False))),
        tooltip=tips(modality="modality:N", method="method:N", **ABOUT),
    )
    title, scale = "bits of information on the true class", alt.Scale(zero=True)
    drawn = dots_and_bars(base, low="bits_low", high="bits_high", dot="bits", title=title, scale=scale)
    return wide(upright(0.0) + drawn, height=max(80, (12 + 12 * len(methods)) * len(bits)))


def values_by_combination(content: Content) -> Any:
    """Bits of each modality in each combination that is large enough; nothing where it is missing."""
    labels = {line["name"]: line["label"] for line in content.combinations}
    lines = [row for row in content.of_run("modalities") if not row["few"] and row["combination"] in labels]
    drawn = list(dict.fromkeys(row["combination"] for row in lines))[:MOST]
    if not drawn:
        return None
    names = [labels[name] for name in drawn]
    rows = [
        {**row, "modality": shown(row["modality"]), "name": labels[row["combination"]]}
        | {"at": str(drawn.index(row["combination"]))}
        for row in lines
        if row["combination"] in drawn
    ]
    largest = max(abs(row["bits"]) for row in lines)
    top = alt.Axis(orient="top", labelAngle=-90, labelAlign="left", labelBaseline="middle", labelLimit=110)
    scale = alt.Scale(scheme="blueorange", domain=[-largest, largest])
    chart = alt.Chart(data(rows)).mark_rect()
    chart = chart.encode(
        x=alt.X("modality:N", sort=content.modalities, title=None, axis=top),
        y=lines_of(names),
        color=alt.Color("bits:Q", title="bits", scale=scale, legend=alt.Legend(tickCount=3)),
        tooltip=tips(combination="name:N", modality="modality:N", **ABOUT),
    )
    return wide(chart, rows=len(drawn))
