"""The one error a user sees, and how its sentence is written."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel, ValidationError


class RemindError(Exception):
    """A mistake in what we were given: one sentence that names the thing, the place and the mend. Exit code 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for "there is no such name": names it, guesses what was meant, lists what there is."""
    options = sorted(known)
    guess = get_close_matches(name, options, n=1)
    hint = f" Did you mean {guess[0]!r}?" if guess else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(options) or 'none'}."


def install(extra: str) -> str:
    """How an extra of this package is installed; the name alone may be another package's on an index."""
    return f'install the extra {extra!r}, in the repository with: pip install -e ".[{extra}]"'


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
        key = ".".join(str(part) for part in _untagged(schema, item["loc"]))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = _keys(schema, item["loc"][:-1])
            guess = get_close_matches(str(item["loc"][-1]), known, n=1)
            message = "there is no such key" + (f". Did you mean {guess[0]!r}?" if guess else "")
            message += f" Known: {', '.join(known)}" if known else ""
        context = item.get("ctx", {})
        if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
            expected = [option.strip("' ") for option in context.get("expected_tags", "").split(",") if option]
            given = context.get("tag")
            message = (
                "there is no 'kind'; every modality needs one" if given is None else unknown("kind", given, expected)
            )
            message, key = message.removesuffix("."), f"{key}.kind"
        message = re.sub(r" or instance of \w+", "", message)
        if not message.startswith("YAML"):
            message = message[0].lower() + message[1:]
        findings.append((f"{key}: " if key else "") + message)
    return RemindError(f"{place}: " + "; ".join(findings) + ".")


def _keys(schema: Any, path: tuple) -> list[str]:
    """The keys a schema has at the end of a path; none where there are none to be named."""
    for part in path:
        schema, _ = _step(schema, part)
    found = [option for option in (schema, *get_args(schema)) if _is_model(option)]
    return list(found[0].model_fields) if found else []


def _untagged(schema: Any, path: tuple) -> list[Any]:
    """A path as the user wrote it: without the tags by which one of several schemas was chosen."""
    kept = []
    for part in path:
        schema, tag = _step(schema, part)
        kept += [] if tag else [part]
    return kept


def _step(schema: Any, part: Any) -> tuple[Any, bool]:
    """What stands under one part of a path, and whether that part is a tag."""
    if get_origin(schema) is Annotated:
        schema = get_args(schema)[0]
    options = [option for option in get_args(schema) if _is_model(option)]
    if get_origin(schema) is not dict and len(options) > 1:
        tagged = {option.model_fields["kind"].annotation: option for option in options if "kind" in option.model_fields}
        for literal, option in tagged.items():
            if part in get_args(literal):
                return option, True
    if get_origin(schema) is not dict and options:
        schema = options[0]
    if _is_model(schema):
        field = schema.model_fields.get(str(part))
        return (field.annotation if field else None), False
    if get_origin(schema) is dict:
        return get_args(schema)[1], False
    return None, False


def _is_model(schema: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(schema, type) and issubclass(schema, BaseModel)
