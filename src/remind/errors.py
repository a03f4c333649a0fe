"""The one error a user sees, and how its sentence is written."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError


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


def explain(place: str, error: ValidationError, schema: type[BaseModel] | None = None) -> RemindError:
    """Turn pydantic's findings into one line: the file, the keys, what is wrong with each."""
    findings = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = _keys(schema, item["loc"][:-1])
            guess = get_close_matches(str(item["loc"][-1]), known, n=1)
            message = "there is no such key" + (f". Did you mean {guess[0]!r}?" if guess else "")
            message += f" Known: {', '.join(known)}" if known else ""
        message = re.sub(r" or instance of \w+", "", message)
        if not message.startswith("YAML"):
            message = message[0].lower() + message[1:]
        findings.append((f"{key}: " if key else "") + message)
    return RemindError(f"{place}: " + "; ".join(findings) + ".")


def _keys(schema: Any, path: tuple) -> list[str]:
    """The keys a schema has at the end of a path; none where there are none to be named."""
    for part in path:
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            field = schema.model_fields.get(str(part))
            schema = field.annotation if field else None
        elif get_origin(schema) is dict:
            schema = get_args(schema)[1]
        inner = [option for option in get_args(schema) if isinstance(option, type) and issubclass(option, BaseModel)]
        if get_origin(schema) is not dict and inner:
            schema = inner[0]
    return list(schema.model_fields) if isinstance(schema, type) and issubclass(schema, BaseModel) else []
