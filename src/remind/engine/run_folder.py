"""A run on disk: one method, one cohort, one seed. Claimed by one process, resumed by the same command."""

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import torch
import yaml
from filelock import FileLock, Timeout

from remind.documents import digest
from remind.engine.bundle import (
    SUMS,
    format_sums,
    newest_bundle,
    read_sums,
    remove_bundle,
    write_bundle,
    write_text,
)
from remind.errors import RemindError

LIBRARIES = ("remind", "torch", "lightning-fabric", "numpy", "polars", "scikit-learn")


class RunFolder:
    """Paths and contents of a run folder; every file appears whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "checkpoint" / "model"  # the selected model: there only when the run is finished
        self.quarantine = path / "quarantine.csv"  # files that cannot be read, if there are any
        self.last = path / "checkpoint" / "last"  # where training stands

    @property
    def finished(self) -> bool:
        """Whether training is over."""
        return self.model.exists() and (self.path / "predictions.parquet").exists()

    @contextmanager
    def claimed(self, config: Mapping[str, Any]) -> Iterator[None]:
        """Hold the folder for one process, to train this configuration into it.

        Raises:
            RemindError: if the folder cannot be made, or another process holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RemindError(f"{self.path}: cannot be made ({error.strerror}).") from None
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RemindError(f"{self.path}: another process is training into this folder; wait for it.") from None
        try:
            remove_bundle(self.model)  # of a run that was killed between its model and its predictions
            write_text(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
            write_text(self.path / "environment.json", json.dumps(environment(), indent=1))
            yield
        finally:
            lock.release()

    def refuse_strangers(self) -> None:
        """Nothing, if the folder is free or is a run's.

        Raises:
            RemindError: if it is something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RemindError(f"{self.path}: is a file; name a folder for the run.")
        own = {".lock", ".config.yaml.tmp", self.quarantine.name, f".{self.quarantine.name}.tmp"}
        there = {place.name for place in self.path.iterdir()} if self.path.exists() else set()
        if "config.yaml" not in there and there - own:
            raise RemindError(f"{self.path}: is not empty and is not a run; name another folder.")

    def refuse_other(self, config: Mapping[str, Any]) -> None:
        """Nothing, if the folder is free or belongs to this configuration, as far as it is known.

        Raises:
            RemindError: if it is another run's; names what differs.
        """
        if not (self.path / "config.yaml").exists():
            return
        there = {key: value for key, value in self.config().items() if key in config}
        if differences := sorted(_differences(there, config)):
            listed = "; ".join(differences[:3]) + ("; and more" if len(differences) > 3 else "")
            raise RemindError(f"{self.path}: holds another run ({listed}); name another folder or remove this one.")

    def config(self) -> dict[str, Any]:
        """What the run was asked to be."""
        path = self.path / "config.yaml"
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            raise RemindError(f"{path}: is missing or unreadable; {self.path} is not a run folder.") from None
        if not isinstance(config, dict):
            raise RemindError(f"{path}: is not a run's configuration.")
        return config

    def checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Where training stood, or None at its beginning."""
        return newest_bundle(self.last)

    def save_checkpoint(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Write down where training stands."""
        write_bundle(self.last, tensors, state)

    def drop_checkpoint(self) -> None:
        """Training is over; where it stood is of no more use."""
        remove_bundle(self.last)

    def write_table(self, name: str, table: pl.DataFrame) -> None:
        """Write ``<name>.parquet``, and its checksum into ``SHA256SUMS``."""
        path = self.path / f"{name}.parquet"
        staging = path.with_name(f".{path.name}.tmp")
        table.write_parquet(staging)
        write_text(self.path / SUMS, format_sums(read_sums(self.path) | {path.name: digest(staging)}))
        staging.replace(path)

    def read_table(self, name: str) -> pl.DataFrame:
        """Read ``<name>.parquet``.

        Raises:
            RemindError: if it is not there, or its checksum does not hold.
        """
        path = self.path / f"{name}.parquet"
        if not path.is_file() or digest(path) != read_sums(self.path).get(path.name):
            raise RemindError(f"{path}: is missing or damaged; remove the run and train it again.")
        return pl.read_parquet(path.read_bytes())

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write ``<name>.json``."""
        write_text(self.path / f"{name}.json", json.dumps(document, indent=1, allow_nan=False))

    def read_json(self, name: str) -> dict[str, Any]:
        """Read ``<name>.json``.

        Raises:
            RemindError: if it is not there or damaged.
        """
        path = self.path / f"{name}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise RemindError(f"{path}: is missing or damaged; train the run again to its end.") from None


def environment() -> dict[str, Any]:
    """What the run runs on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **{name: version(name) for name in LIBRARIES},
    }


def _differences(there: Any, asked: Any, path: str = "") -> Iterator[str]:
    if isinstance(there, Mapping) and isinstance(asked, Mapping):
        for key in there.keys() | asked.keys():
            yield from _differences(there.get(key), asked.get(key), f"{path}.{key}" if path else str(key))
    elif there != asked:
        yield f"{path}: {there} there, {asked} asked"
