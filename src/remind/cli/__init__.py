"""The command line: parse, delegate, print."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group

from remind.cli.analyze import app as analyze_app
from remind.cli.options import (
    Folder,
    Jobs,
    Json,
    RecipeName,
    Run,
    Seeds,
    Set,
    console,
    end_what_was_begun,
    numbers,
    show,
    words,
)
from remind.documents import read_json, read_yaml
from remind.errors import RemindError, unknown

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
cohort_app = typer.Typer(no_args_is_help=True, help="Make, check and describe cohorts.")
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
    from remind.report.figures import frequency_figure, save_figure
    from remind.report.live import LiveTable
    from remind.report.tables import atlas_table, metrics_table

    folder, made = out / "cohort", out / "source.json"
    asked = {"source": source, "settings": _checked(source, _pairs(context.args))}
    if not folder.exists():
        _make(source, folder, asked["settings"])
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
    console.print(f"Runs: {out}/soft-moe-seed0, {out}/remind-seed0. Picture: {', '.join(map(str, pictures))}")


@cohort_app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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
    _make(source, out, _checked(source, _pairs(settings)))
    console.print(f"{source} cohort -> {out}", markup=False, soft_wrap=True)


@cohort_app.command()
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


@cohort_app.command()
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


@cohort_app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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
        write_mask(load(cohort), out, rule, seed=seed, **_pairs(context.args))
    report = read_json(out / "mask.json")
    samples = sum(line["n"] for line in report["after"])
    summary = f"{samples} samples, {report['dropped']} dropped, {len(report['after'])} combinations -> {out}"
    console.print(summary, markup=False, highlight=False, soft_wrap=True)
    console.print(mask_table(report))


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
def evaluate(
    run: Run,
    cohort: Annotated[Path | None, typer.Argument(help="Another cohort of the same modalities.")] = None,
    split: Annotated[str, typer.Option(help="train, validation, test or all.")] = "test",
    as_json: Json = False,
) -> None:
    """Score a finished run: overall, head, tail, unseen, worst, and every combination with its n."""
    from remind.api import evaluate as score
    from remind.api import load_model
    from remind.cohort.splits import SPLITS
    from remind.report.tables import metrics_table

    if split not in (*SPLITS, "all"):
        raise RemindError(unknown("split", split, (*SPLITS, "all")))
    if cohort is None and split in ("train", "all"):
        raise RemindError(f"{run}: keeps the predictions of validation and test; name the cohort to score {split}.")
    fitted = load_model(run)
    metrics = score(run, cohort, split=None if split == "all" else split)
    modalities = list(fitted.spec.modalities)
    show(metrics, as_json, lambda: metrics_table(f"{run}: {split} split", modalities, {run.name: metrics}))


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
    if result["failed"]:
        raise typer.Exit(1)


@app.command()
def adapt(
    run: Run,
    cohort: Folder,
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    tune: Annotated[
        str, typer.Option(help="What learns: rows (the new combinations' own), head, router (and rows), experts=0.25.")
    ] = "head,router",
    seed: Annotated[int | None, typer.Option(help="Draws the order of the samples; default the run's own.")] = None,
    overrides: Set = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """Teach the model of RUN the combinations of COHORT's training split that it does not know."""
    from remind.api import adapt as adapt_run
    from remind.api import evaluate
    from remind.engine.watch import Silence
    from remind.report.live import LiveTable
    from remind.report.tables import metrics_table

    watch = Silence() if as_json else LiveTable(console)
    fitted = adapt_run(run, cohort, tune=tune, seed=seed, overrides=overrides, out=out, watch=watch)
    metrics = evaluate(out)
    moved = read_json(out / "adaptation.json")
    modalities = list(fitted.spec.modalities)
    title = f"{out}: test split"
    show({"run": str(out), **metrics, **moved}, as_json, lambda: metrics_table(title, modalities, {out.name: metrics}))
    if not as_json and moved["known"]["samples"]:
        largest = moved["known"]["largest"]
        console.print(f"Combinations known before: probabilities moved by at most {largest:.3g}.", highlight=False)


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


def _checked(source: str, settings: dict[str, Any]) -> dict[str, Any]:
    from remind.sources import SOURCES

    return SOURCES.check(source, settings)


def _make(source: str, out: Path, settings: dict[str, Any]) -> None:
    from remind.report.extraction import extraction_tables
    from remind.sources import SOURCES

    with console.status(f"writing {source}"):
        SOURCES.get(source)(out, **settings)
    if (report := out / "extraction.json").is_file():
        for table in extraction_tables(read_json(report)):
            console.print(table)


def _pairs(words: list[str]) -> dict[str, Any]:
    """``--task health --modalities 4`` as settings; values are read as YAML."""
    settings = {}
    for option, value in zip(words[::2], [*words[1::2], None], strict=False):
        if not option.startswith("--") or value is None:
            raise RemindError(f"{option!r} does not read --name value, such as --task health.")
        settings[option.removeprefix("--").replace("-", "_")] = read_yaml(value, option)
    return settings


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
