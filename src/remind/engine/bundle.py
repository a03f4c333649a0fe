"""Tensors and plain data in one folder: written whole or not at all, checked before use, never unpickled."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from remind.documents import digest
from remind.errors import RemindError

TENSORS, DOCUMENT, SUMS = "tensors.safetensors", "document.json", "SHA256SUMS"


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it."""
    staging = path.with_name(f".{path.name}.tmp")
    with staging.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staging, path)


def write_bundle(folder: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write a bundle, keeping the one it replaces as ``<folder>.previous``: at every instant one of them is whole."""
    staging, previous = _beside(folder, "tmp"), _beside(folder, "previous")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, staging / TENSORS)
    except SafetensorError as error:
        raise RemindError(f"{folder}: cannot be written ({error}); make room, then run the same command.") from None
    (staging / DOCUMENT).write_text(json.dumps(document, indent=1), encoding="utf-8")
    sums = format_sums({name: digest(staging / name) for name in (TENSORS, DOCUMENT)})
    (staging / SUMS).write_text(sums, encoding="utf-8")
    for name in (TENSORS, DOCUMENT, SUMS):
        with (staging / name).open("rb") as file:
            os.fsync(file.fileno())
    if folder.exists():
        try:
            read_bundle(folder)
        except RemindError:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(folder, previous)
    os.replace(staging, folder)


def read_bundle(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the document of a bundle whose checksums hold.

    Raises:
        RemindError: if a file is missing or damaged; names it.
    """
    _refuse_damaged(folder, TENSORS)
    try:
        return load_file(folder / TENSORS), read_document(folder)
    except SafetensorError:
        raise _no_checkpoint(folder) from None


def read_document(folder: Path) -> dict[str, Any]:
    """The document of a bundle, without its tensors.

    Raises:
        RemindError: if it is missing or damaged.
    """
    _refuse_damaged(folder, DOCUMENT)
    try:
        return json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise _no_checkpoint(folder) from None


def _refuse_damaged(folder: Path, name: str) -> None:
    path = folder / name
    if not (folder / SUMS).is_file():
        raise RemindError(f"{folder}: is not a checkpoint; it holds no {SUMS}.")
    if not path.is_file():
        raise RemindError(f"{path}: is missing; the checkpoint is not whole.")
    if digest(path) != read_sums(folder).get(name):
        raise RemindError(f"{path}: is damaged, its checksum does not hold; restore the file or train again.")


def _no_checkpoint(folder: Path) -> RemindError:
    return RemindError(f"{folder}: its files are not what a checkpoint holds.")


def newest_bundle(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The bundle, or the one before it where the newest is damaged; None where there has never been any.

    Raises:
        RemindError: if there is one and none is whole.
    """
    found = [place for place in (folder, _beside(folder, "previous")) if place.exists()]
    problem: RemindError | None = None
    for place in found:
        try:
            return read_bundle(place)
        except RemindError as error:
            problem = problem or error
    if problem:
        raise problem
    return None


def format_sums(sums: Mapping[str, str]) -> str:
    """Checksums by file name, as ``sha256sum`` writes them."""
    return "".join(f"{value}  {name}\n" for name, value in sums.items())


def read_sums(folder: Path) -> dict[str, str]:
    """The checksums in a folder's ``SHA256SUMS``, by file name; none where it has no such file."""
    path = folder / SUMS
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return {name: value for value, _, name in (line.partition("  ") for line in lines)}


def remove_bundle(folder: Path) -> None:
    """Remove a bundle and what was kept beside it."""
    for place in (folder, _beside(folder, "previous"), _beside(folder, "tmp")):
        shutil.rmtree(place, ignore_errors=True)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f"{folder.name}.{what}")
