"""How training went: losses, group weights, gradients, experts."""

from itertools import pairwise
from typing import Any

import altair as alt

from remind.report.charts.parts import KINDS, MOST, NEUTRAL, by_method, coloured, data, different, lines_of, tips, wide
from remind.report.content import Content
from remind.report.figures import COLOURS

OF = {"training": NEUTRAL, "validation": KINDS["head"]}
NUMBERED = 32  # experts; more are not numbered


def losses(content: Content) -> Any:
    """Losses by epoch."""
    rows = [
        {"number": line["number"], "stage": line["stage"], "of": of, "loss": line[key]}
        for line in _epochs(content)
        for of, key in zip(OF, ("train_loss", "validation_loss"), strict=True)
    ]
    chart = alt.Chart(data(rows)).mark_line(point=True)
    chart = chart.encode(
        x=_epoch(),
        y=alt.Y("loss:Q", title="loss", scale=alt.Scale(zero=False)),
        color=coloured("of:N", OF),
        tooltip=tips(epoch="number:Q", stage="stage:N", loss="loss:Q|.4f", of="of:N"),
    )
    return wide(chart + _stages(content), height=220)


def weights(content: Content) -> Any:
    """Group weights by epoch, of the groups that ever weigh the most."""
    lines = [line for line in _epochs(content) if line["group_weights"]]
    if not lines:
        return None
    labels = {line["name"]: line["label"] for line in content.combinations}
    names = different(labels[name] for name in content.groups)
    heaviest = [max(weights) for weights in zip(*(line["group_weights"] for line in lines), strict=True)]
    chosen = sorted(range(len(names)), key=lambda place: -heaviest[place])[: len(COLOURS)]
    rows = [
        {"number": line["number"], "name": names[place], "weight": line["group_weights"][place]}
        for line in lines
        for place in chosen
    ]
    legend = alt.Legend(columns=1, labelLimit=300)
    colours = dict(zip([names[place] for place in chosen], COLOURS, strict=False))
    chart = alt.Chart(data(rows)).mark_line()
    chart = chart.encode(
        x=_epoch(),
        y=alt.Y("weight:Q", title="weight in the loss"),
        color=coloured("name:N", colours, legend=legend),
        tooltip=tips(combination="name:N", epoch="number:Q", weight="weight:Q|.4f"),
    )
    return wide(chart + _stages(content), height=240)


def gradients(content: Content) -> Any:
    """Each combination's gradient consistency against its share, by method."""
    labels = {line["name"]: line["label"] for line in content.combinations}
    short = dict(zip(labels, different(labels.values()), strict=True))
    rows = [
        {"label": short[row["combination"]], **{key: row[key] for key in ("method", "share", "dominant")}}
        for row in content.findings.get("gradients", {}).get("rows", [])
        if row["step"] is None and row["combination"] in labels
    ]
    if not rows:
        return None
    methods = by_method((row["method"] for row in rows), content.method)
    chart = alt.Chart(data(rows)).mark_circle(size=60, opacity=0.85)
    chart = chart.encode(
        x=alt.X("share:Q", title="share of the training set", scale=alt.Scale(type="log"), axis=alt.Axis(format="~p")),
        y=alt.Y("dominant:Q", title="gradient consistency", scale=alt.Scale(zero=False)),
        color=coloured("method:N", methods),
        tooltip=tips(combination="label:N", method="method:N", share="share:Q|.1%", consistency="dominant:Q|.3f"),
    )
    return wide(chart)


def experts(content: Content) -> Any:
    """How often each expert is among the largest of a token, by combination; who uses an expert most comes first."""
    labels = {line["name"]: line["label"] for line in content.combinations}
    found = [
        row for row in content.of_run("experts") if not row["few"] and (row["combination"] in labels or not row["kind"])
    ]
    if not found:
        return None
    lines = [*[row for row in found if row["kind"]][:MOST], *[row for row in found if not row["kind"]]]
    frequency: list[list[float]] = [row["expert_frequency"] for row in lines]
    names = different(labels[row["combination"]] if row["kind"] else "all samples" for row in lines)
    numbers = range(len(frequency[0]))
    by_expert = [[row[expert] for row in frequency] for expert in numbers]
    order = sorted(numbers, key=[shares.index(max(shares)) for shares in by_expert].__getitem__)
    rows = [
        {"name": name, "expert": expert, "share": frequency[place][expert]}
        for place, name in enumerate(names)
        for expert in numbers
    ]
    axis = alt.Axis(labels=len(numbers) <= NUMBERED, labelAngle=0)
    bar = alt.Legend(format=".0%", tickCount=3)
    chart = alt.Chart(data(rows)).mark_rect()
    chart = chart.encode(
        x=alt.X("expert:O", sort=order, title="expert", axis=axis),
        y=lines_of(names),
        color=alt.Color("share:Q", title="share of tokens", scale=alt.Scale(scheme="viridis"), legend=bar),
        tooltip=tips(combination="name:N", expert="expert:O", share="share:Q|.1%"),
    )
    return wide(chart, rows=len(lines))


def _epochs(content: Content) -> list[dict[str, Any]]:
    """The history with a running number of the epoch over all stages."""
    return [{**line, "number": number} for number, line in enumerate(content.history, start=1)]


def _epoch() -> alt.X:
    return alt.X("number:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d"))


def _stages(content: Content) -> Any:
    """A line where a stage ends and the next begins; nothing where there is one."""
    starts = [
        {"number": line["number"] - 0.5, "stage": line["stage"]}
        for before, line in pairwise(_epochs(content))
        if line["stage"] != before["stage"]
    ]
    rule = alt.Chart(data(starts)).mark_rule(strokeDash=[2, 3])
    return rule.encode(x=alt.X("number:Q", title="epoch"), tooltip=tips(next_stage="stage:N"))
