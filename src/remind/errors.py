"""The one error a user sees, and how its sentence is written."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
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
    for part in path:
        if schema is None:
            return []
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            field = schema.model_fields.get(str(part))
            schema = field.annotation if field else None
        args = [a for a in get_args(schema) if isinstance(a, type) and issubclass(a, BaseModel)]
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            continue
        if get_origin(schema) is dict:
            schema = get_args(schema)  # one more step
            continue
        if isinstance(schema, tuple):
            schema = schema[1]
            continue
        schema = args[0] if args else None
    return list(schema.model_fields) if isinstance(schema, type) and issubclass(schema, BaseModel) else []


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise RemindError(f"key {key.value!r} stands twice on line {key.start_mark.line + 1}")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, place: Any) -> Any:
    try:
        return _Loader(text).get_single_data()
    except RemindError as error:
        raise RemindError(f"{place}: {error}; name each once.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark and "\n" in text else ""
        raise RemindError(f"{place}{':' if where or '/' in str(place) else ''}{where} is not valid YAML.") from None
    except (ValueError, RecursionError):
        raise RemindError(f"{place}: is not valid YAML; put what is no date in quotes.") from None
