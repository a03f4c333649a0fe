"""The one error a user sees, and how its sentence is written."""

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import ValidationError


class RemindError(Exception):
    """A mistake in what we were given: one sentence that names the thing, the place and the mend. Exit code 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for "there is no such name": names it, guesses what was meant, lists what there is."""
    options = sorted(known)
    guess = get_close_matches(name, options, n=1)
    hint = f" Did you mean {guess[0]!r}?" if guess else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(options) or 'none'}."


def rows(numbers: Iterable[int], *, shown: int = 5) -> str:
    """Name data rows as a spreadsheet user counts them (the first is 1): ``rows 3, 7, 9 and 12 more``."""
    listed = [number + 1 for number in numbers]
    head = ", ".join(str(number) for number in listed[:shown])
    rest = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return f"row{'s' if len(listed) > 1 else ''} {head}{rest}"


def explain(place: str, error: ValidationError) -> RemindError:
    """Turn pydantic's findings into one sentence a line: the file, the key, what is wrong with it."""
    findings = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "there is no such key"
        findings.append((f"{key}: " if key else "") + message[0].lower() + message[1:])
    return RemindError(f"{place}: " + "; ".join(findings) + ".")
