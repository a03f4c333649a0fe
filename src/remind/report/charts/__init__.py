"""The charts of a page, as Vega-Lite by Altair: one function each, listed here."""

from math import isfinite
from typing import Any

from remind.report.charts.calibration import coverage, reliability
from remind.report.charts.cohort import upset
from remind.report.charts.modalities import values, values_by_combination
from remind.report.charts.parts import CONFIG
from remind.report.charts.scores import differences, methods, scores
from remind.report.charts.training import experts, gradients, losses, weights
from remind.report.content import Content

CHARTS = (
    *(upset, methods, differences, scores, reliability, coverage),
    *(values, values_by_combination, losses, weights, gradients, experts),
)


def charts(content: Content) -> dict[str, dict[str, Any]]:
    """Vega-Lite specifications by name; what there is nothing to draw of is left out."""
    made = {chart.__name__: chart(content) for chart in CHARTS}
    return {name: _plain(chart.to_dict()) | {"config": CONFIG} for name, chart in made.items() if chart is not None}


def _plain(spec: Any) -> Any:
    """The specification with numbers as short as they are drawn; what is not finite is null."""
    if isinstance(spec, dict):
        return {key: _plain(value) for key, value in spec.items()}
    if isinstance(spec, list):
        return [_plain(value) for value in spec]
    if isinstance(spec, float):
        return round(spec, 5) if isfinite(spec) else None
    return spec
