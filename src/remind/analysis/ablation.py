"""What each half of REMIND is worth: without group weights, without specialised routing, without either (Table 4)."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from remind.analysis.finding import Finding
from remind.analysis.suites import compared, dot_panels, in_words, paired, parts_of, score_lines, score_table
from remind.config import Recipe, load_recipe
from remind.evaluation.comparison import PARTS
from remind.suite.progress import Told

ABLATIONS = {
    "remind": "REMIND",
    "remind-without-dro": "without DRO",
    "group-dro": "without specialisation",
    "soft-moe": "without either",
}


def ablation(
    cohort: Path,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 42),
    recipe: str | Path | Recipe | None = None,
    overrides: Iterable[str] = (),
    jobs: int = 1,
    told: Told = lambda outcome, total: None,
) -> Finding:
    """REMIND and what is left without its parts, trained as one suite in ``out``.

    Without specialisation there is Soft MoE's fusion, in one stage: neither residuals nor a vector of the group, but
    one of each missing modality. Holm's correction is for the methods compared in a line, the two simple models of
    every suite among them.

    Raises:
        RemindError: for anything wrong with what is given, or if a run fails.
    """
    settings = load_recipe(recipe, overrides)
    result = compared(cohort, list(ABLATIONS), seeds, recipe=settings, out=out, jobs=jobs, told=told)
    parts = parts_of(result)
    table = score_table(
        [
            line
            for part in PARTS
            if part in parts
            for method, arm in ABLATIONS.items()
            for line in score_lines(parts[part], method, part=part, method=method, arm=arm)
        ],
        part=pl.String,
        method=pl.String,
        arm=pl.String,
    )
    says = [paired(seeds, "REMIND")]
    for method, arm in ABLATIONS.items():
        if method != "remind":
            says.append(f"{arm}: {in_words(table.filter(pl.col('method') == method))}")
    title = f"{result['cohort']}: REMIND without its parts"
    return Finding("ablation", table, dot_panels(table, panel="part", row="arm", series="arm", title=title), says)
