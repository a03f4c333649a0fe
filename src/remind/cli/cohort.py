"""``remind cohort``: make, check, describe and mask cohorts."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group

from remind.cli.options import Folder, Json, console, show
from remind.documents import read_json, read_yaml
from remind.errors import RemindError

app = typer.Typer(no_args_is_help=True, help="Make, check and describe cohorts.")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def make(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="nhanes, synthetic, mimic-iv, embed or fprm.")],
    out: Annotated[Path | None, typer.Option("--out", help="The folder to write; it may also follow SOURCE.")] = None,
) -> None:
    """Write the cohort of a SOURCE. Settings of the source follow as --name value, e.g. --task health."""
    settings = list(context.args)
    if settings and not settings[0].startswith("--") and out is None:
        out = Path(settings.pop(0))
    if out is None:
        raise RemindError(f"name the folder to write, as in: remind cohort make {source} my-cohort.")
    make_cohort(source, out, checked(source, pairs(settings)))
    console.print(f"{source} cohort -> {out}", markup=False, soft_wrap=True)


@app.command()
def check(
    cohort: Folder,
    files: Annotated[bool, typer.Option("--files/--no-files", help="Open every file that the table names.")] = True,
    workers: Annotated[int, typer.Option(min=0, help="Processes that open files.")] = 0,
    quarantine: Annotated[Path | None, typer.Option(help="Where unreadable files are listed.")] = None,
    as_json: Json = False,
) -> None:
    """List everything that is wrong with a cohort, its files included; exit code 2 if anything is."""
    from remind.cohort.audit import audit
    from remind.cohort.survey import write_quarantine

    with console.status("checking"):
        found = audit(cohort, files=files, workers=workers)
    place = quarantine or cohort / "quarantine.csv"
    listed = not found.broken.is_empty()
    if listed or place.is_file():
        try:
            write_quarantine(place, found.broken)
        except OSError as error:
            listed = False
            found.warnings.append(f"{place}: cannot be written ({error.strerror}); name another with --quarantine.")
    if as_json:
        document = {"cohort": str(cohort), "problems": found.problems, "warnings": found.warnings}
        print(json.dumps({**document, "quarantine": str(place) if listed else None}))
    else:
        for sentence in found.problems:
            typer.secho(sentence, fg="red", err=True)
        for sentence in found.warnings:
            typer.secho(f"warning: {sentence}", fg="yellow", err=True)
        if listed:
            console.print(f"unreadable files: {place}", markup=False, soft_wrap=True)
        if not found.problems:
            console.print(f"{cohort}: nothing is wrong.", markup=False, soft_wrap=True)
    if found.problems:
        raise typer.Exit(2)


@app.command()
def describe(
    cohort: Folder,
    figure: Annotated[Path | None, typer.Option(help="Draw the atlas into FIGURE.png and FIGURE.svg.")] = None,
    as_json: Json = False,
) -> None:
    """Which combinations of modalities there are, how they fall into splits and classes, what missingness tells."""
    from remind.cohort.cohort import load
    from remind.cohort.describe import describe_cohort
    from remind.report.tables import atlas_table, missingness_table, split_table

    described = describe_cohort(load(cohort))
    if figure is not None:
        from remind.report.atlas import atlas_figure
        from remind.report.figures import save_figure

        save_figure(atlas_figure(described), figure)
    tables = (atlas_table, missingness_table, split_table)
    show(described, as_json, lambda: Group(*(table(described) for table in tables)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def mask(
    context: typer.Context,
    cohort: Folder,
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    rule: Annotated[str, typer.Argument(help="mcar, mar, mnar, shares, extreme or hold-out.")],
    seed: Annotated[int, typer.Option(help="Draws who loses what.")] = 0,
) -> None:
    """Write COHORT with new missingness to OUT. Settings of the RULE follow, e.g. --remove labs=0.3,notes=0.5."""
    from remind.cohort.cohort import load
    from remind.cohort.missingness import mask as write_mask
    from remind.report.tables import mask_table

    with console.status(f"masking by {rule}"):
        write_mask(load(cohort), out, rule, seed=seed, **pairs(context.args))
    report = read_json(out / "mask.json")
    samples = sum(line["n"] for line in report["after"])
    summary = f"{samples} samples, {report['dropped']} dropped, {len(report['after'])} combinations -> {out}"
    console.print(summary, markup=False, highlight=False, soft_wrap=True)
    console.print(mask_table(report))


def checked(source: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, if they are the source's."""
    from remind.sources import SOURCES

    return SOURCES.check(source, settings)


def make_cohort(source: str, out: Path, settings: dict[str, Any]) -> None:
    """Write the cohort, and say what an extraction has found."""
    from remind.report.extraction import extraction_tables
    from remind.sources import SOURCES

    with console.status(f"writing {source}"):
        SOURCES.get(source)(out, **settings)
    if (report := out / "extraction.json").is_file():
        for table in extraction_tables(read_json(report)):
            console.print(table)


def pairs(words: list[str]) -> dict[str, Any]:
    """``--task health --modalities 4`` as settings; values are read as YAML."""
    settings = {}
    for option, value in zip(words[::2], [*words[1::2], None], strict=False):
        if not option.startswith("--") or value is None:
            raise RemindError(f"{option!r} does not read --name value, such as --task health.")
        settings[option.removeprefix("--").replace("-", "_")] = read_yaml(value, option)
    return settings
