"""The command line: parse, delegate, print."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from remind.cli.analyze import app as analyze_app
from remind.cli.cohort import app as cohort_app
from remind.cli.cohort import checked, make_cohort, pairs
from remind.cli.options import (
    Folder,
    Jobs,
    Json,
    RecipeName,
    Seeds,
    Set,
    console,
    end_what_was_begun,
    note,
    numbers,
    show,
    words,
)
from remind.cli.runs import adapt, evaluate, predict, report
from remind.documents import read_json
from remind.errors import RemindError, unknown

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cohort_app, name="cohort")
app.add_typer(analyze_app, name="analyze")


@app.callback()
def _root() -> None:
    """Multi-modal learning when most patients lack some modalities."""


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Where the cohort, the runs and the picture go.")] = Path("demo"),
    source: Annotated[str, typer.Option(help="Whose cohort is made, see `remind cohort make`.")] = "nhanes",
    recipe: RecipeName = "demo",
) -> None:
    """Train Soft MoE and REMIND on a real cohort, and compare them on every combination of modalities.

    Settings of the SOURCE follow as --name value, e.g. --source mimic-iv --root DIR.
    """
    from remind.api import evaluate, fit
    from remind.cohort.cohort import load
    from remind.cohort.describe import describe_cohort
    from remind.engine.bundle import write_text
    from remind.publish import publish
    from remind.report.figures import frequency_figure, save_figure
    from remind.report.live import LiveTable
    from remind.report.tables import atlas_table, metrics_table

    folder, made = out / "cohort", out / "source.json"
    asked = {"source": source, "settings": checked(source, pairs(context.args))}
    if not folder.exists():
        make_cohort(source, folder, asked["settings"])
        write_text(made, json.dumps(asked))
    elif made.is_file() and (there := read_json(made)) != asked:
        raise RemindError(
            f"{folder}: was made of {there['source']} with other settings; name another folder with --out."
        )
    cohort = load(folder)
    console.print(atlas_table(describe_cohort(cohort), most=8))
    runs = {}
    for method in ("soft-moe", "remind"):
        place = out / f"{method}-seed0"
        fit(cohort, method, seed=0, recipe=recipe, out=place, watch=LiveTable(console))
        runs[method] = evaluate(place)
    console.print(metrics_table("Test split, one seed", cohort.modalities, runs, most=12))
    named = "NHANES 2017-2018, diabetes" if cohort.spec.name == "nhanes-diabetes" else cohort.spec.name
    title = f"{named}: frequent combinations, rare combinations"
    pictures = save_figure(frequency_figure(cohort.modalities, runs, title=title), out / "combinations")
    with console.status("reading") as status:
        written = publish(out, cohort=folder, told=note, progress=status.update)
    console.print(f"Runs: {out}/soft-moe-seed0, {out}/remind-seed0. Picture: {', '.join(map(str, pictures))}")
    console.print(f"Report: {written[0]}; model card: {written[1]}", markup=False, soft_wrap=True)


@app.command()
def train(
    cohort: Folder,
    method: Annotated[str | None, typer.Option("--method", "-m", help="A name from `remind methods`.")] = None,
    recipe: RecipeName = None,
    seed: Annotated[int | None, typer.Option(help="Draws the weights and the order of the samples.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; default runs/COHORT/METHOD-seedN.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Where frozen encoders' outputs are kept; default OUT/../features.")
    ] = None,
    unreadable: Annotated[
        str | None, typer.Option(help="Files that cannot be read: stop (default), or missing.")
    ] = None,
    overrides: Set = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """Train on COHORT into a run folder. The same line again resumes; a finished run is left alone."""
    from remind.api import evaluate, fit
    from remind.cohort.cohort import load
    from remind.config import load_recipe
    from remind.engine.watch import Silence
    from remind.report.live import LiveTable
    from remind.report.tables import metrics_table

    rule = [f"data.unreadable={unreadable}"] if unreadable else []
    settings = load_recipe(recipe, [*overrides, *rule], method=method, seed=seed)
    loaded = load(cohort)
    place = out or Path("runs") / loaded.spec.name / f"{settings.method}-seed{settings.seed}"
    fit(loaded, recipe=settings, out=place, store=store, watch=Silence() if as_json else LiveTable(console))
    metrics = evaluate(place)
    show(
        {"run": str(place), **metrics},
        as_json,
        lambda: metrics_table(f"{place}: test split", loaded.modalities, {settings.method: metrics}),
    )


@app.command()
def compare(
    cohort: Folder,
    methods: Annotated[str, typer.Option("--methods", "-m", help="Names from `remind methods`, or all.")] = "all",
    seeds: Seeds = "0,1,42",
    recipe: RecipeName = None,
    out: Annotated[Path | None, typer.Option(help="The suite's folder; default suites/COHORT.")] = None,
    trials: Annotated[
        int, typer.Option(min=1, max=8, help="Settings that each method tries on validation; 1: the recipe's.")
    ] = 1,
    jobs: Jobs = 1,
    on: Annotated[str, typer.Option(help="Where: local, or ray (the extra `ray`).")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; by default one is started here.")] = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs that a run takes on Ray.")] = 0.0,
    reference: Annotated[str | None, typer.Option(help="What the others are compared with; default remind.")] = None,
    replicates: Annotated[int, typer.Option(min=1000, help="Bootstraps of the subjects.")] = 1000,
    metric: Annotated[str, typer.Option(help="To print: accuracy, macro_f1 or macro_auroc; files have all.")] = (
        "macro_auroc"
    ),
    overrides: Set = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """Train METHODS under SEEDS on COHORT, and compare them. The same line again resumes; finished runs are kept."""
    from remind.engine.bundle import write_text
    from remind.report.comparison import METRICS, comparison_files, difference_table, terminal_tables
    from remind.suite.compare import compare as compare_all
    from remind.suite.compare import suite_folder
    from remind.suite.progress import suite_progress

    if metric not in METRICS:
        raise RemindError(unknown("metric", metric, METRICS))
    end_what_was_begun()
    with suite_progress(console, shown=not as_json) as told:
        result = compare_all(
            cohort,
            methods if methods == "all" else words(methods),
            numbers(seeds),
            recipe=recipe,
            overrides=overrides,
            out=out,
            trials=trials,
            jobs=jobs,
            on=on,
            address=address,
            gpus=gpus,
            reference=reference,
            replicates=replicates,
            told=told,
        )
    folder = out or suite_folder(result["cohort"])
    for name, text in comparison_files(result).items():
        write_text(folder / name, text)
    if as_json:
        print(json.dumps(result))
    else:
        for table in terminal_tables(result, metric, width=console.width):
            console.print(table)
        if result["reference"]:
            console.print(difference_table(result, metric))
        console.print(f"All metrics: {folder}/comparison.md, .tex, .csv, .json", markup=False, soft_wrap=True)
        console.print(f"On one page: remind report {folder} --cohort {cohort}", markup=False, soft_wrap=True)
    if result["failed"]:
        raise typer.Exit(1)


@app.command()
def methods(as_json: Json = False) -> None:
    """The methods, and what each is made of."""
    from remind.methods import METHODS
    from remind.report.tables import methods_table

    rows = {
        name: (m.fusion, m.objective, " -> ".join(stage.name for stage in m.stages), m.says)
        for name, m in METHODS.items()
    }
    keys = ("fusion", "objective", "stages", "says")
    show({name: dict(zip(keys, row, strict=True)) for name, row in rows.items()}, as_json, lambda: methods_table(rows))


for _command in (evaluate, predict, report, adapt):
    app.command()(_command)


def main() -> None:
    """A mistake of the user ends in one red line and exit code 2; a traceback means the bug is ours.

    Of several processes that train together, the first one speaks.
    """
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    try:
        app()
    except (RemindError, OSError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise SystemExit(2) from None
