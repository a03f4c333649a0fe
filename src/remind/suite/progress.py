"""A suite as it happens: a bar, and a line for each run that ends."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from remind.suite.plan import Outcome


class SuiteProgress:
    """Shows outcomes on a console, or nothing."""

    def __init__(self, console: Console, *, shown: bool) -> None:
        columns = TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.bar = Progress(*columns, console=console, disable=not shown, transient=True)
        self.task: TaskID | None = None

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def told(self, outcome: Outcome, total: int) -> None:
        """One more run of ``total`` has ended."""
        if self.task is None:
            self.task = self.bar.add_task("runs", total=total)
        self.bar.advance(self.task)
        if outcome.state == "failed":
            self.bar.console.print(Text(f"{outcome.name}: failed: {outcome.reason}", style="red"), soft_wrap=True)
        elif outcome.state == "finished" and not self.bar.disable:
            self.bar.console.print(Text(f"{outcome.name}: finished in {outcome.seconds:.0f} s"), soft_wrap=True)
