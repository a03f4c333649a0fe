"""What the commands have in common: options, the console, and how results are shown."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from remind.errors import RemindError

console = Console()

Folder = Annotated[Path, typer.Argument(help="A cohort folder: cohort.yaml and samples.parquet (or samples.csv).")]
Run = Annotated[Path, typer.Argument(help="A finished run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]
Set = Annotated[list[str], typer.Option("--set", "-s", help="Override a setting, e.g. -s train.lr=0.001. Repeatable.")]
RecipeName = Annotated[str | None, typer.Option("--recipe", "-r", help="A YAML file, or a shipped name: demo.")]
Seeds = Annotated[str, typer.Option(help="Each draws weights and the order of the samples.")]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time.")]


def end_what_was_begun() -> None:
    """Let SIGTERM end the processes that this one started, and remove what it made for a time."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def show(document: dict[str, Any], as_json: bool, table: Callable[[], RenderableType]) -> None:
    """Print a result for machines or for people."""
    if as_json:
        print(json.dumps(document))
    else:
        console.print(table())


def note(sentence: str) -> None:
    """Say beside the results what went otherwise than one might expect."""
    typer.secho(f"note: {sentence}", fg="yellow", err=True)


def words(text: str) -> list[str]:
    """``a,b c`` as a list."""
    return [word for word in text.replace(",", " ").split() if word]


def numbers(text: str) -> list[int]:
    """``0,1,42`` as seeds."""
    return [_whole(word) for word in words(text)]


def _whole(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise RemindError(f"--seeds: {word!r} is not a whole number; write them as 0,1,42.") from None
