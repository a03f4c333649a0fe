"""Files to arrays: one function a kind of file. Knows nothing of cohorts.

A file is told by its first bytes, never by its suffix; a size it claims is judged before memory is asked for; and a
file that is not sound from end to end is refused, never read in part.
"""

from typing import NamedTuple


class Unreadable(Exception):
    """Why a file cannot be read, in a few words that read after its name. Says nothing of what the file holds."""


class Window(NamedTuple):
    """The values to show: ``center - width / 2`` becomes 0, ``center + width / 2`` becomes 1; ``width`` is above 0."""

    center: float
    width: float
