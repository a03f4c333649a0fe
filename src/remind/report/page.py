"""One self-contained page of a run or a suite: no network, no file beside it."""

from collections.abc import Sequence
from importlib.resources import files

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from remind.report.charts import charts
from remind.report.charts.parts import MOST
from remind.report.content import Content
from remind.report.page_tables import tables
from remind.report.summary import known, people, unknown

TITLES = {
    "words": "In plain words",
    "cohort": "Cohort",
    "methods": "Methods",
    "results": "Results",
    "calibration": "Calibration",
    "modalities": "Modalities",
    "training": "Training",
    "settings": "Settings",
    "reading": "How to read this",
}


def page(content: Content) -> str:
    """The page as HTML; every word that is not ours is escaped."""
    made = charts(content)
    without = {"methods": content.comparison is None, "modalities": "values" not in made}
    environment = Environment(loader=PackageLoader("remind.report"), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    templates = files("remind.report") / "templates"
    return environment.get_template("report.html").render(
        page=content,
        comparison=content.comparison,
        seeds="" if content.comparison is None else _seeds(content.comparison["seeds"]),
        tested_people=people(content.parts["overall"]),
        tested=sum(line["n"] > 0 for line in content.combinations),
        sections=[(name, title) for name, title in TITLES.items() if not without.get(name)],
        known=known(content),
        unknown=unknown(content),
        charts=made,
        upset_says=_drawn(content),
        tables=tables(content),
        style=_trusted((templates / "style.css").read_text(encoding="utf-8")),
        script=_trusted((templates / "page.js").read_text(encoding="utf-8")),
        library=_trusted(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
    )


def _drawn(content: Content) -> str:
    """How many of the combinations are drawn."""
    lines = len(content.combinations)
    return f"The {MOST} most frequent of {lines} are shown; the table has all." if lines > MOST else ""


def _trusted(text: str) -> Markup:
    """Our own scripts and styles, which are not escaped; they must not end their element."""
    return Markup(text.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
