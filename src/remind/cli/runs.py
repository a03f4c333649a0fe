"""What is done with finished runs: evaluate, predict, report, adapt."""

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from remind.cli.options import Folder, Json, Run, Set, console, note, show
from remind.documents import read_json
from remind.errors import RemindError, unknown


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


def predict(
    run: Run,
    samples: Annotated[
        Path, typer.Argument(metavar="COHORT", help="A cohort folder, or a Parquet or CSV file; labels are not needed.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write: .parquet or .csv.")] = Path("predictions.csv"),
    coverage: Annotated[float, typer.Option(help="How often the set of classes is to hold the true one.")] = 0.9,
    unreadable: Annotated[
        str | None, typer.Option(help="Files that cannot be read: stop, or missing; default the run's rule.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Probabilities, a set of classes, and whether to abstain, for every sample of COHORT, into a file."""
    from remind.engine.bundle import read_document
    from remind.engine.run_folder import RunFolder
    from remind.prediction import predict as predict_samples
    from remind.prediction import summary, write_predictions
    from remind.report.tables import predictions_table

    if out.suffix not in (".csv", ".parquet"):
        raise RemindError(f"{out}: name a file that ends in .csv or .parquet.")
    if not out.parent.is_dir():
        raise RemindError(f"{out}: there is no folder {out.parent}; make it, or name another file with --out.")
    own = [samples, *((samples / f"samples{kind}") for kind in (".csv", ".parquet"))]
    if out.resolve() in [path.resolve() for path in own]:
        raise RemindError(f"{out}: is the table that is read; name another file with --out.")
    if unreadable not in (None, "stop", "missing"):
        raise RemindError(unknown("rule", str(unreadable), ("stop", "missing")))
    table = predict_samples(
        run,
        samples,
        coverage=coverage,
        unreadable=cast(Any, unreadable),
        quarantine=out.with_name(f"{out.stem}-quarantine.csv"),
        told=note,
    )
    write_predictions(table, out)
    found = summary(table)
    modalities = list(read_document(RunFolder(run).model)["spec"]["modalities"])
    show({"out": str(out), **found}, as_json, lambda: predictions_table(str(out), modalities, found))


def report(
    target: Annotated[
        Path, typer.Argument(metavar="RUN|SUITE", help="A finished run, or a folder of runs of a cohort.")
    ],
    cohort: Annotated[
        Path | None, typer.Option(help="Their cohort: then the analyses a page shows are made if they are not there.")
    ] = None,
    analyses: Annotated[Path | None, typer.Option(help="What `remind analyze` has written; default in RUN.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write to; default RUN.")] = None,
    suppress: Annotated[int, typer.Option(help="Leave out cells of fewer people, e.g. 5, and their complements.")] = 0,
    as_json: Json = False,
) -> None:
    """Write report.html, one page without network, and model-card.md."""
    from remind.publish import publish

    with console.status("reading") as status:
        written = publish(
            target,
            cohort=cohort,
            analyses=analyses,
            out=out,
            suppressed=suppress,
            told=note,
            progress=status.update,
        )
    if as_json:
        print(json.dumps({"files": list(map(str, written))}))
    else:
        console.print(f"Written: {', '.join(map(str, written))}", markup=False, soft_wrap=True)


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
