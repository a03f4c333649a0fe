"""A suite as it happens: a bar, and a line for each run that ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from remind.suite.plan import Outcome

Told = Callable[[Outcome, int], None]


@contextmanager
def suite_progress(console: Console, *, shown: bool) -> Iterator[Told]:
    """Give what is to be told of each outcome; it shows them on the console, or nothing."""
    columns = TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not shown, transient=True) as bar:
        task = bar.add_task("runs", total=None)

        def told(outcome: Outcome, total: int) -> None:
            bar.update(task, total=total, advance=1)
            if not shown:
                return
            if outcome.state == "failed":
                console.print(Text(f"{outcome.name}: failed: {outcome.reason}", style="red"), soft_wrap=True)
            elif outcome.state == "finished":
                console.print(Text(f"{outcome.name}: finished in {outcome.seconds:.0f} s"), soft_wrap=True)

        yield told
