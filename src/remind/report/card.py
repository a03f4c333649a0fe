"""A model card in Markdown: what a run's model is, what is known of it, and of whom."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from remind.report.comparison import METRICS, escaped
from remind.report.content import Content
from remind.report.page_tables import results
from remind.report.summary import known, unknown


def card(content: Content) -> str:
    """The card, ending with the recipe."""
    # Markdown, in which HTML counts too: every word that is not ours passes through ``md``, ``code`` or ``fenced``.
    environment = Environment(loader=PackageLoader("remind.report"), undefined=StrictUndefined, autoescape=False)
    environment.filters |= {"md": escaped, "code": _code, "fenced": _fenced}
    return environment.get_template("card.md").render(
        page=content,
        trained=sum(line["trained"] for line in content.combinations),
        combinations=sum(line["trained"] > 0 for line in content.combinations),
        known=known(content),
        unknown=unknown(content),
        scores=METRICS,
        rows=results(content).rows,
        large=len(content.calibration["conformal"]["groups"]),
    )


def _code(text: str) -> str:
    """Between backticks."""
    return text.replace("`", "'")


def _fenced(text: str) -> str:
    """Between lines of backticks, of which the text must not have its own."""
    return text.replace("```", "'''").rstrip()
