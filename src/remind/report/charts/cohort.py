"""The UpSet plot: which modalities patients have."""

from typing import Any

import altair as alt

from remind.report.charts.parts import KINDS, MOST, OFF, ON, coloured, data, different, lines_of, tips
from remind.report.content import Content

LINE, COLUMN, WIDEST = 20, 17, 520  # pixels: of a line, of a column, of all columns


def upset(content: Content) -> Any:
    """Which modalities each of the most frequent combinations holds, beside how often training shows it."""
    lines = content.combinations[:MOST]
    keys, names = ("kind", "trained", "share", "n"), different(line["label"] for line in lines)
    facts = [{"name": name, **{key: line[key] for key in keys}} for name, line in zip(names, lines, strict=True)]
    dots, links = [], []
    for fact, line in zip(facts, lines, strict=True):
        if line["held"] is not None:
            held = [name for name, there in zip(content.modalities, line["held"], strict=True) if there]
            dots += [{"name": fact["name"], "modality": name, "held": name in held} for name in content.modalities]
            links.append({"name": fact["name"], "first": held[0], "last": held[-1]})
    rows = lines_of(names).axis(None)
    about = tips(combination="name:N", training="trained:Q|,", test="n:Q|,", share="share:Q|.1%")
    scale = alt.Scale(domain=content.modalities)
    heads = alt.Axis(
        orient="top",
        labelAngle=-90,
        labelAlign="left",
        labelBaseline="middle",
        labelLimit=140,
        title=None,
        domain=False,
        ticks=False,
        grid=False,
    )

    def column(field: str) -> alt.X:
        return alt.X(field, scale=scale, axis=heads)

    link = alt.Chart(data(links)).mark_rule(strokeWidth=2, opacity=0.35)
    link = link.encode(y=rows, x=column("first:N"), x2="last:N")
    dot = alt.Chart(data(dots)).mark_circle(size=70, opacity=1)
    filled = alt.condition("datum.held", alt.value(ON), alt.value(OFF))
    dot = dot.encode(
        y=rows, x=column("modality:N"), color=filled, tooltip=tips(modality="modality:N", combination="name:N")
    )
    count = alt.X(
        "trained:Q",
        title="training samples",
        axis=alt.Axis(orient="top", format=",d", tickCount=4),
        scale=alt.Scale(domainMax=1.2 * max(line["trained"] for line in lines)),  # room for the labels
    )
    bar = alt.Chart(data(facts)).mark_bar(height=12)
    bar = bar.encode(y=rows, x=count, color=coloured("kind:N", KINDS), tooltip=about)
    label = alt.Chart(data(facts)).mark_text(align="left", dx=4)
    label = label.encode(y=rows, x=count, text=alt.Text("share:Q", format=".1%"))
    height = LINE * len(lines)
    matrix = (link + dot).properties(width=min(COLUMN * len(content.modalities), WIDEST), height=height)
    return alt.hconcat(matrix, (bar + label).properties(width=320, height=height), spacing=8)
