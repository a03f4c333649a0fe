"""Training as it happens: a bar, and the table of groups."""

from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from remind.engine.watch import GroupProgress
from remind.report.tables import PLAIN, brief

MOST = 8  # groups shown


class LiveTable:
    """A progress bar with the validation accuracy and the weight of the most frequent groups.

    On anything but a terminal it prints one line an epoch instead.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self.live: Live | None = None
        self.counts: dict[str, TaskID] = {}

    def begin(self, title: str, steps: int) -> None:
        """Show the bar."""
        self.title = title
        self.task = self.bar.add_task(title, total=steps)
        self._show()

    def note(self, sentence: str) -> None:
        """Say it above the bar."""
        self.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def opening(self, done: int, total: int) -> None:
        """Show how many files are open."""
        self._count("opening files", done, total)

    def encoding(self, modality: str, done: int, total: int) -> None:
        """Show how many inputs are encoded."""
        self._count(f"encoding {modality}", done, total)

    def _count(self, what: str, done: int, total: int) -> None:
        """A task of the bar while it lasts; the bar may not be on the screen yet."""
        task = self.counts.get(what)
        if task is None:
            task = self.counts[what] = self.bar.add_task(what, total=total)
            self._show()
        self.bar.update(task, completed=done)
        if done == total:
            self.bar.remove_task(self.counts.pop(what))

    def _show(self) -> None:
        if self.live is None and self.console.is_terminal:
            self.live = Live(self.bar, console=self.console, transient=True, refresh_per_second=4)
            self.live.start()

    def step(self, done: int) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=done)

    def epoch(self, row: dict[str, Any], groups: GroupProgress) -> None:
        """Show the epoch's validation."""
        if self.live:
            self.live.update(Group(self.bar, groups_table(row, groups)))
        else:
            self.console.print(
                f"{self.title}: {row['stage']} epoch {row['epoch']}, train loss {row['train_loss']:.4f}, "
                f"validation loss {row['validation_loss']:.4f}, accuracy {row['validation_accuracy']:.3f}, "
                f"gate open {row['gate_open']:.0%}",
                highlight=False,
                soft_wrap=True,
            )

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self.live:
            self.live.stop()


def groups_table(row: dict[str, Any], groups: GroupProgress) -> Table:
    """The most frequent groups, each with its validation accuracy and weight."""
    title = (
        f"{row['stage']}, epoch {row['epoch']}: validation loss {row['validation_loss']:.4f}, "
        f"accuracy {row['validation_accuracy']:.3f}, gate open {row['gate_open']:.0%}"
    )
    table = Table(title=title, **PLAIN)
    for heading in ("combination", "n", "accuracy", "weight"):
        table.add_column(heading, justify="left" if heading == "combination" else "right")
    for place in range(min(MOST, len(groups.labels))):
        accuracy = f"{groups.accuracy[place]:.3f}" if groups.size[place] else "-"
        weight = "-" if groups.weights is None else f"{groups.weights[place]:.3f}"
        table.add_row(Text(brief(groups.labels[place], groups.modalities)), str(groups.size[place]), accuracy, weight)
    if len(groups.labels) > MOST:
        table.add_row(f"and {len(groups.labels) - MOST} more", str(groups.size[MOST:].sum()), "", "")
    return table
