"""The paper's own figures, to stand beside ours where a cohort is one of its three."""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from remind.cohort.missingness.shares import PAPER

COHORTS = {"embed": "EMBED", "mimic-iv": "MIMIC-IV", "fprm": "FPRM"}
METHODS = {
    "SoftMoE": "soft-moe",
    "FuseMoE": "fusemoe",
    "FlexMoE": "flex-moe",
    "FairMixup": "fair-mixup",
    "Reweigh": "reweigh",
    "GroupDRO": "group-dro",
    "FairBatch": "fairbatch",
    "REMIND": "remind",
}
_SCALE = {"accuracy": 0.01, "macro_f1": 1.0}  # the paper gives accuracy in percent


def paper_figures(cohort: str, modalities: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Means of Tables 1 to 3 (and Table 4's REMIND without DRO) by row, method and metric, as fractions.

    Empty for a cohort that is none of the paper's, by its name and the names of its modalities.
    """
    if cohort not in COHORTS or set(modalities) != set(names := PAPER[cohort][0]):
        return {}
    published = json.loads((files("remind.report") / "paper_results.json").read_text(encoding="utf-8"))
    known = published[COHORTS[cohort]]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for metric, scale in _SCALE.items():
        for row, by_method in _rows(known, metric):
            here = {METHODS.get(column, column): {metric: value * scale} for column, value in by_method.items()}
            for method, figure in here.items():
                found.setdefault(_named(row, names, modalities), {}).setdefault(method, {}).update(figure)
    return found


def _rows(known: Mapping[str, Any], metric: str) -> Iterator[tuple[str, dict[str, float]]]:
    yield from known[metric].items()
    ablation = known.get(f"ablation_{metric}", {})
    for row, values in ablation.items():
        if row != "columns":
            yield row, {"remind-without-dro": values[ablation["columns"].index("without_dro")]}


def _named(row: str, names: Sequence[str], modalities: Sequence[str]) -> str:
    """``M1+M3`` as our rows call it, in the cohort's order."""
    if row == "overall":
        return row
    held = {names[int(part.removeprefix("M")) - 1] for part in row.split("+")}
    return "+".join(name for name in modalities if name in held)
