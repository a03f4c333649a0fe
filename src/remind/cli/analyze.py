"""``remind analyze``: the paper's analyses, on runs or on a cohort."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from remind.cli.options import Folder, Jobs, Json, RecipeName, Seeds, Set, console, end_what_was_begun, numbers, words
from remind.errors import RemindError, unknown

if TYPE_CHECKING:
    from remind.analysis.finding import Finding
    from remind.analysis.trained import Trained
    from remind.cohort.cohort import Cohort

app = typer.Typer(no_args_is_help=True, help="The paper's analyses: a table and a picture each.")

Targets = Annotated[list[Path], typer.Argument(help="A cohort to train on; or finished runs, or suites, of --cohort.")]
Of = Annotated[Path | None, typer.Option("--cohort", help="The cohort that the runs were trained on.")]
Methods = Annotated[str, typer.Option("--methods", "-m", help="What is trained, where a cohort is given.")]
Out = Annotated[Path | None, typer.Option(help="Where tables, pictures and suites go; default analyses/COHORT.")]
BOTH = "soft-moe,remind"


@app.command()
def gradients(
    targets: Targets,
    cohort: Of = None,
    every: Annotated[int, typer.Option(min=0, help="Steps between records in training; 0: none.")] = 0,
    methods: Methods = BOTH,
    seeds: Seeds = "0",
    recipe: RecipeName = None,
    out: Out = None,
    jobs: Jobs = 1,
    overrides: Set = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """How far each combination's gradients pull the way of all (Eq. 1, 9-17; Fig. 1b, 3)."""
    from remind.analysis.gradient_consistency import gradients as found

    recorded = [*overrides, *([f"train.gradients_every={every}"] if every else [])]
    loaded, runs, place = _runs(targets, cohort, methods, seeds, recipe, recorded, out, jobs, as_json, every)
    _tell(found(loaded, runs), place, as_json)


@app.command()
def experts(
    targets: Targets,
    cohort: Of = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    methods: Methods = BOTH,
    seeds: Seeds = "0",
    recipe: RecipeName = None,
    out: Out = None,
    jobs: Jobs = 1,
    overrides: Set = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """Which experts each combination uses, how sure the router is, how often the gate opens (Fig. 4, Table 6)."""
    from remind.analysis.experts import experts as found

    _refuse_unknown(split)
    loaded, runs, place = _runs(targets, cohort, methods, seeds, recipe, overrides, out, jobs, as_json)
    _tell(found(loaded, runs, split=split), place, as_json)


@app.command()
def modalities(
    targets: Targets,
    cohort: Of = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    most: Annotated[int, typer.Option(min=0, help="Samples looked at of each combination; 0: all.")] = 200,
    methods: Methods = BOTH,
    seeds: Seeds = "0",
    recipe: RecipeName = None,
    out: Out = None,
    jobs: Jobs = 1,
    overrides: Set = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """What each modality is worth, exactly (Shapley), by combination and patient; what the next one would add."""
    from remind.analysis.modality_values import modality_values as found

    _refuse_unknown(split)
    loaded, runs, place = _runs(targets, cohort, methods, seeds, recipe, overrides, out, jobs, as_json)
    with console.status("removing modalities") as status:
        made = found(
            loaded,
            runs,
            split=split,
            most=most or None,
            told=lambda done, total: status.update(f"removing modalities: {done} of {total} samples"),
        )
    _tell(made, place, as_json)


@app.command()
def missingness(
    cohort: Folder,
    modalities: Annotated[str | None, typer.Option(help="Which lose samples, each in turn; default all.")] = None,
    share: Annotated[float, typer.Option(help="Of the complete samples, how many lose it.")] = 0.8,
    methods: Methods = BOTH,
    seeds: Seeds = "0,1,42",
    recipe: RecipeName = None,
    out: Out = None,
    jobs: Jobs = 1,
    overrides: Set = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """What is left when most complete samples lose one modality (Q3, Table 5)."""
    from remind.analysis.extreme_missingness import extreme_missingness as found

    own = {"modalities": None if modalities is None else words(modalities), "share": share, "methods": words(methods)}
    _trained(found, "missingness", cohort, seeds, recipe, overrides, out, jobs, as_json, **own)


@app.command()
def unseen(
    cohort: Folder,
    hold: Annotated[str | None, typer.Option(help="Combinations held out, as labs+text,labs.")] = None,
    methods: Methods = BOTH,
    seeds: Seeds = "0,1,42",
    recipe: RecipeName = None,
    out: Out = None,
    jobs: Jobs = 1,
    overrides: Set = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """What a model makes of combinations it never saw, and how much of it must learn to do better (Q4, Fig. 5)."""
    from remind.analysis.unseen import unseen as found

    own = {"hold": None if hold is None else words(hold), "methods": words(methods)}
    _trained(found, "unseen", cohort, seeds, recipe, overrides, out, jobs, as_json, **own)


@app.command()
def ablation(
    cohort: Folder,
    seeds: Seeds = "0,1,42",
    recipe: RecipeName = None,
    out: Out = None,
    jobs: Jobs = 1,
    overrides: Set = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """REMIND without group weights, without specialised routing, without either (Table 4)."""
    from remind.analysis.ablation import ablation as found

    _trained(found, "ablation", cohort, seeds, recipe, overrides, out, jobs, as_json)


@app.command()
def sensitivity(
    cohort: Folder,
    seeds: Seeds = "0,1,42",
    recipe: RecipeName = None,
    out: Out = None,
    jobs: Jobs = 1,
    overrides: Set = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """REMIND with one setting changed at a time: step size, experts, what stands for the missing, gate (Table 16)."""
    from remind.analysis.sensitivity import sensitivity as found

    _trained(found, "sensitivity", cohort, seeds, recipe, overrides, out, jobs, as_json)


@app.command()
def cost(
    cohort: Folder,
    methods: Methods = "all",
    steps: Annotated[int, typer.Option(min=1, help="Training steps that are timed.")] = 30,
    recipe: RecipeName = None,
    out: Out = None,
    overrides: Set = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """Parameters, FLOPs a sample, steps a second and peak memory of each method and stage (Table 17)."""
    from remind.analysis.cost import cost as found
    from remind.methods import METHODS

    end_what_was_begun()
    names, place = list(METHODS) if methods == "all" else words(methods), _place(cohort, out)
    with console.status("measuring") as status:
        made = found(
            cohort,
            names,
            recipe=recipe,
            overrides=overrides,
            steps=steps,
            told=status.update,
        )
    _tell(made, place, as_json)


def _trained(
    found: Callable[..., "Finding"],
    name: str,
    cohort: Path,
    seeds: str,
    recipe: str | None,
    overrides: list[str],
    out: Path | None,
    jobs: int,
    as_json: bool,
    **own: Any,
) -> None:
    """An analysis that trains suites of its own, in a folder of its name; ``own`` are the settings only it has."""
    place = _place(cohort, out)
    with _progress(as_json) as told:
        made = found(
            cohort,
            place / name,
            seeds=numbers(seeds),
            recipe=recipe,
            overrides=overrides,
            jobs=jobs,
            told=told,
            **own,
        )
    _tell(made, place, as_json)


def _runs(
    targets: list[Path],
    cohort: Path | None,
    methods: str,
    seeds: str,
    recipe: str | None,
    overrides: list[str],
    out: Path | None,
    jobs: int,
    as_json: bool,
    every: int = 0,
) -> tuple["Cohort", list["Trained"], Path]:
    """The runs to look at: those given, or those trained now."""
    from remind.analysis.trained import runs_of, train_on

    if cohort is not None:
        loaded, runs = runs_of(targets, cohort)
        return loaded, runs, _place(cohort, out)
    if len(targets) > 1 or not (targets[0] / "cohort.yaml").is_file():
        raise RemindError(f"{targets[0]}: is no cohort; of runs, name the cohort they were trained on with --cohort.")
    place = _place(targets[0], out)
    with _progress(as_json) as told:
        loaded, runs = train_on(
            targets[0],
            words(methods),
            numbers(seeds),
            recipe=recipe,
            overrides=overrides,
            out=place / ("recorded" if every else "suite"),
            jobs=jobs,
            told=told,
        )
    return loaded, runs, place


def _refuse_unknown(split: str) -> None:
    from remind.cohort.splits import SPLITS

    if split not in SPLITS:
        raise RemindError(unknown("split", split, SPLITS))


def _place(cohort: Path, out: Path | None) -> Path:
    from remind.cohort.spec import read_spec

    return out or Path("analyses") / read_spec(cohort / "cohort.yaml").name


def _progress(as_json: bool) -> Any:
    from remind.suite.progress import suite_progress

    end_what_was_begun()
    return suite_progress(console, shown=not as_json)


def _tell(finding: "Finding", folder: Path, as_json: bool) -> None:
    written = finding.save(folder)
    if as_json:
        print(json.dumps({"files": list(map(str, written)), "says": finding.says}))
        return
    for sentence in finding.says:
        console.print(Text(sentence), soft_wrap=True)
    console.print(Text(f"Written: {', '.join(map(str, written))}"), soft_wrap=True)
