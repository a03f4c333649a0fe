"""What is left when nearly everybody lacks one modality: the paper's third question (Table 5)."""

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from re import ASCII, sub
from typing import Any

import polars as pl

from remind.analysis.finding import Finding
from remind.analysis.suites import (
    combinations_of,
    compared,
    dot_panels,
    in_words,
    masked,
    one_of,
    paired,
    parts_of,
    score_lines,
    score_table,
)
from remind.cohort.cohort import Cohort, load
from remind.cohort.missingness.masked import place
from remind.config import Recipe, load_recipe
from remind.errors import RemindError
from remind.suite.plan import plan
from remind.suite.progress import Told


def extreme_missingness(
    cohort: Path,
    out: Path,
    *,
    modalities: Sequence[str] | None = None,
    share: float = 0.8,
    methods: Sequence[str] = ("soft-moe", "remind"),
    seeds: Sequence[int] = (0, 1, 42),
    recipe: str | Path | Recipe | None = None,
    overrides: Iterable[str] = (),
    jobs: int = 1,
    told: Told = lambda outcome, total: None,
) -> Finding:
    """Of the complete samples a ``share`` loses one modality; methods are trained on that and compared, each in turn.

    A modality has a folder in ``out``, with the masked ``cohort`` and the ``suite``. Test samples are scored together
    (``overall``), where the modality is there (``available``) and where it is not (``absent``); what has no test
    sample has no line. Differences are to REMIND, or to the last method where it is not one. Holm's correction is for
    the methods compared in a line, the two simple models of every suite among them.

    Raises:
        RemindError: for a modality that is unknown or named twice, a cohort without complete samples, a folder that
            holds another masking, or anything else wrong with what is given; or if a run fails.
    """
    loaded, settings = load(cohort), load_recipe(recipe, overrides)
    names = list(loaded.modalities if modalities is None else modalities)
    if not names or len(set(names)) < len(names):
        raise RemindError("name at least one modality, and none twice.")
    plan(cohort, methods, seeds, settings, out)  # refuses before a cohort is written what would be refused after
    folders = {name: out / _folder(name, place(loaded, name)) for name in names}
    removed = {name: _masked(loaded, folder / "cohort", name, share) for name, folder in folders.items()}
    results = {
        name: compared(
            folder / "cohort",
            methods,
            seeds,
            recipe=settings,
            out=folder / "suite",
            jobs=jobs,
            told=one_of(len(names), folder.name, told),
        )
        for name, folder in folders.items()
    }
    table = score_table(
        [
            line
            for name, result in results.items()
            for part, row in _parts(result, name).items()
            for method in methods
            for line in score_lines(row, method, modality=name, part=part, method=method)
        ],
        modality=pl.String,
        part=pl.String,
        method=pl.String,
    )
    reference = results[names[0]]["reference"]
    says = [paired(seeds, reference)]
    for name, method in product(names, methods):
        if method != reference:
            here = table.filter(pl.col("modality") == name, pl.col("method") == method)
            says.append(f"{removed[name]}; {method}: {in_words(here)}")
    title = f"{loaded.spec.name}: {share:.0%} of the complete samples lose a modality"
    figure = dot_panels(table, panel="part", row="modality", series="method", title=title)
    return Finding("extreme-missingness", table, figure, says)


def _folder(modality: str, number: int) -> str:
    """A name for files, whatever the modality is called."""
    legible = sub(r"[^\w-]", "_", modality, flags=ASCII)[:40]
    return f"{number + 1}-{legible}"


def _masked(cohort: Cohort, folder: Path, modality: str, share: float) -> str:
    """Write the masked cohort if it is not there, and say what was removed."""
    counts = masked(cohort, folder, "extreme", modality=modality, share=share)["removed"][modality]
    return f"{counts['lost']} of {counts['had']} complete samples lose {modality}"


def _parts(result: dict[str, Any], modality: str) -> dict[str, dict[str, Any]]:
    """The rows of a comparison: all, those that have the modality, those that lack it."""
    found = combinations_of(result)
    complete = "+".join(result["modalities"])
    without = "+".join(name for name in result["modalities"] if name != modality)
    rows = {"overall": parts_of(result)["overall"], "available": found.get(complete), "absent": found.get(without)}
    return {part: row for part, row in rows.items() if row}
