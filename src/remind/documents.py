"""What users write: YAML read safely, with one sentence for what is wrong, and words for nothing; files' checksums."""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from remind.errors import RemindError

NULL_WORDS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]  # of an empty cell, in a CSV


def read_json(path: Path) -> Any:
    """What we have written into a file before.

    Raises:
        RemindError: if it is not there, or not as it was written.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise RemindError(f"{path}: is missing or damaged; remove {path.parent} and make it again.") from None


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Document(BaseModel):
    """Frozen, and unknown keys are errors: a misspelt key must never be ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, which YAML would let the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise RemindError(f"key {key.value!r} stands twice on line {key.start_mark.line + 1}; name it once.")
            seen.add(getattr(key, "value", None) if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def read_yaml(text: str, place: object) -> Any:
    """The content of a YAML text; ``place`` is what an error calls it.

    Raises:
        RemindError: if it is not valid YAML, or a key stands twice.
    """
    try:
        return _Loader(text).get_single_data()
    except RemindError as error:
        raise RemindError(f"{place}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark and "\n" in text else ""
        raise RemindError(f"{place}:{where} is not valid YAML.") from None
    except (ValueError, RecursionError):
        raise RemindError(f"{place}: is not valid YAML; put in quotes what is no date or number.") from None
