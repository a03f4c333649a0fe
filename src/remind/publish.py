"""``remind report``: a page of a run or of a suite, and the model card of a run."""

from collections.abc import Callable
from pathlib import Path

from remind.analysis.experts import experts
from remind.analysis.finding import Finding
from remind.analysis.gradient_consistency import gradients
from remind.analysis.modality_values import modality_values
from remind.analysis.trained import identities, runs_of
from remind.engine.bundle import write_text
from remind.errors import RemindError
from remind.report.card import card
from remind.report.content import gather
from remind.report.folders import finding_of, run_folders
from remind.report.page import page
from remind.report.suppression import suppress

PAGE, CARD, ANALYSES = "report.html", "model-card.md", "analyses"
MOST = 50  # samples of each combination that lose modalities


def publish(
    target: str | Path,
    *,
    cohort: str | Path | None = None,
    analyses: str | Path | None = None,
    out: str | Path | None = None,
    suppressed: int = 0,
    told: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[str], None] = lambda words: None,
) -> list[Path]:
    """Write ``report.html``, and the ``model-card.md`` of the run it shows in detail; returns their paths.

    Everything is made from run folders, and from what ``remind analyze`` has written into ``analyses``.

    Args:
        target: a finished run, or a folder of finished runs of one cohort, such as a suite.
        cohort: the cohort folder of the runs; the analyses a page shows are then made, where they are not there.
        analyses: a folder; default ``analyses`` in the target.
        out: where the files go; default the target.
        suppressed: leave out cells of fewer people than that, and what would give them away.
        told: called with why an analysis cannot be made of this cohort; the page then goes without it.
        progress: called with what is being done.

    Raises:
        RemindError: if there is no finished run, or the cohort is not theirs.
    """
    target = Path(target)
    place, found = Path(out) if out else target, Path(analyses) if analyses else target / ANALYSES
    if suppressed < 0:
        raise RemindError(f"--suppress {suppressed}: name the fewest people a cell may have, such as 5.")
    folders = run_folders(target)
    if cohort is not None:
        _analyze([folder.path for folder in folders], Path(cohort), found, told, progress)
    progress("writing the page")
    content = suppress(gather(target, found), suppressed)
    place.mkdir(parents=True, exist_ok=True)
    written = [place / PAGE, place / CARD]
    for path, text in zip(written, (page(content), card(content)), strict=True):
        write_text(path, text)
    return written


def _analyze(
    runs: list[Path], cohort: Path, folder: Path, told: Callable[[str], None], progress: Callable[[str], None]
) -> None:
    """Make the analyses a page shows, where they are not there for the first run of each method."""
    loaded, found = runs_of(runs, cohort)
    first = list({run.method: run for run in sorted(found, key=lambda run: -run.seed)}.values())
    wanted = identities(first)
    makers: dict[str, Callable[[], Finding]] = {
        "modalities": lambda: modality_values(
            loaded,
            first,
            most=MOST,
            told=lambda done, total: progress(f"removing modalities: {done} of {total} samples"),
        ),
        "experts": lambda: experts(loaded, first),
        "gradients": lambda: gradients(loaded, first),
    }
    for name, make in makers.items():
        there = finding_of(folder, name, wanted)
        if there and there["of"] == wanted.keys():
            continue
        progress(f"looking at {name}")
        try:
            make().save(folder)
        except RemindError as error:
            told(f"no {name} in the report: {error}")
