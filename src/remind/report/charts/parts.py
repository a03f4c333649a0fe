"""What the charts of a page have in common. Colours of text and axes are the page's own (``currentColor``)."""

from collections.abc import Iterable, Mapping
from itertools import cycle
from typing import Any

import altair as alt

from remind.report.comparison import METRICS

KINDS = {"head": "#2f6f9f", "tail": "#c08a2b", "unseen": "#b0563f"}
NEUTRAL = "#8a8a8a"
WITH_PARTS = {"all together": NEUTRAL, **KINDS}
ON, OFF = "currentColor", "#8886"
METHODS = (
    *("#b0563f", "#2f6f9f", "#6a8f3c", "#8460a0", "#c08a2b", "#3f9c8f"),
    *("#c4618c", "#7a7a2e", "#5b6fd0", "#9a6a4a", "#4f8fbf", "#a84343"),
)
MOST = 25  # combinations drawn; tables have all
LONGEST = 60  # letters of a name
PARTS = ("overall", "head", "tail")

_FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"  # the page's: how wide a text is must be known
_TEXT = {"labelColor": ON, "titleColor": ON, "labelFont": _FONT, "titleFont": _FONT, "titleFontWeight": "normal"}
_SIZE = {"labelFontSize": 11, "titleFontSize": 11}
_LINES = {"domainColor": ON, "tickColor": ON, "gridColor": ON}
_FAINT = {"gridOpacity": 0.15, "domainOpacity": 0.4, "tickOpacity": 0.4}
CONFIG = {
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {"labelLimit": 190, **_TEXT, **_SIZE, **_LINES, **_FAINT},
    "legend": {"orient": "top", "symbolLimit": 40, "columns": 4, **_TEXT, **_SIZE},
    "text": {"color": ON, "font": _FONT, "fontSize": 10},
    "rule": {"color": ON},
}


def data(rows: Iterable[Mapping[str, Any]]) -> alt.Data:
    """Rows that stand in the chart itself."""
    return alt.Data(values=[dict(row) for row in rows])


def wide(chart: Any, *, rows: int | None = None, height: int = 260) -> Any:
    """As wide as the page; as high as its rows need, or as it is told."""
    return chart.properties(width="container", height=height if rows is None else 20 * rows + 10)


def tips(**fields: str) -> list[alt.Tooltip]:
    """Tooltips by title: a field with its type and, after a bar, the format of its number: ``patients="n:Q|,"``."""
    made = []
    for title, field in fields.items():
        encoded, _, number = field.partition("|")
        tip = alt.Tooltip(encoded, title=title.replace("_", " "))
        made.append(tip.format(number) if number else tip)
    return made


def coloured(field: str, colours: Mapping[str, str], **more: Any) -> alt.Color:
    """A colour for each name, in their order."""
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color(field, title=None, scale=scale, **more)


def by_method(methods: Iterable[str], first: str) -> dict[str, str]:
    """A colour for each method, that of the run in detail before all others."""
    names = sorted(dict.fromkeys(methods), key=lambda name: name != first)
    return dict(zip(names, cycle(METHODS)))


def lines_of(names: Iterable[str]) -> alt.Y:
    """One line below the other, by the field ``name``, in the order of the names, which must differ.

    They are the domain of a scale, never part of an expression, in which some words, and all of an enemy, do harm.
    """
    axis = alt.Axis(title=None, ticks=False, domain=False)
    return alt.Y("name:N", scale=alt.Scale(domain=list(names)), axis=axis)


def different(names: Iterable[str]) -> list[str]:
    """The names, cut to what a chart has room for, and numbered where two are then alike."""
    found: list[str] = []
    for name in names:
        short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        found.append(short if short not in found else f"{short[: LONGEST - 6]}… #{len(found) + 1}")
    return found


def chosen_score(of: str, first: str) -> Any:
    """A choice of the score that is drawn, by the field ``metric``."""
    options = alt.binding_select(options=list(METRICS.values()), name=f"Score of {of}: ")
    return alt.selection_point(fields=["metric"], value=first, bind=options)


def upright(at: float) -> Any:
    """A dashed line from top to bottom."""
    return alt.Chart(alt.Data(values=[{"at": at}])).mark_rule(strokeDash=[4, 3]).encode(x="at:Q")


def dots_and_bars(base: Any, *, low: str, high: str, dot: str, title: str | None, scale: alt.Scale) -> Any:
    """A dot for a value and a bar for its interval, where it has one."""
    x = alt.X(f"{low}:Q", title=title, scale=scale)
    bars = base.transform_filter(f"isValid(datum.{low})").mark_rule(strokeWidth=2).encode(x=x, x2=f"{high}:Q")
    return bars + base.mark_circle(size=60, opacity=1).encode(x=alt.X(f"{dot}:Q", title=title, scale=scale))
