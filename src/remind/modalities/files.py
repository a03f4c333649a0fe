"""Cells that are paths: resolved inside their root, decoded when they are asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from remind.errors import RemindError
from remind.modalities import Cells
from remind.reading import Unreadable

Decode = Callable[[Path], Any]


def within(root: Path, cell: str) -> Path:
    """The file a cell names.

    Raises:
        Unreadable: if the path, or a link on it, leads outside the root.
    """
    named = PurePosixPath(cell)
    if named.is_absolute() or ".." in named.parts:
        raise Unreadable("leads outside the cohort's folder")
    path = root / named
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):  # a name that cannot be, or links in a circle
        raise Unreadable("has no path that can be followed") from None
    if not inside:
        raise Unreadable("is a link that leads outside the cohort's folder")
    return path


@dataclass(frozen=True)
class FileReader:
    """Decodes the files of some samples and stacks what they hold."""

    cells: Cells
    decode: Decode
    stack: Callable[[list[Any]], Any]

    def __call__(self, places: Sequence[int]) -> Any:
        """Read these samples.

        Raises:
            RemindError: if a file cannot be read; names the sample and the reason. Nothing is put in its place.
        """
        return self.stack([self._one(int(place)) for place in places])

    def _one(self, place: int) -> Any:
        cell = self.cells.frame[self.cells.frame.columns[0]][place]
        try:
            return self.decode(within(self.cells.root, cell))
        except Unreadable as reason:
            raise RemindError(
                f"modality {self.cells.name!r} of sample {self.cells.ids[place]}: its file {reason}; mend it, or let "
                "'remind cohort check' list all such files."
            ) from None
