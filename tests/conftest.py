"""Cohorts and recipes small enough for every test, the command line in this process, and what users get wrong."""

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest.mock import patch

import polars as pl
import pytest
import torch
import yaml

from remind.cohort.cohort import Cohort, load
from remind.sources.synthetic import write

torch.set_num_threads(1)  # models this small gain nothing from a second, and lose much where it is not free

TINY = (
    *("model.dim=16", "model.experts=4", "encoders.tabular.tokens=2"),
    *("train.epochs=2", "train.batch_size=64", "train.device=cpu"),
)
GRADES = {"column": "grade", "classes": ["none", "mild"]}
MODALITIES = {
    "labs": {"kind": "tabular", "columns": ["hba1c", "comment"]},
    "vitals": {"kind": "tabular", "columns": ["pulse"]},
}
CANARY = ("canary", "8642")  # in cells of every clinic; no message may show them


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """The folder of a simulated cohort: 300 samples, 4 modalities."""
    return write(tmp_path_factory.mktemp("cohort") / "synthetic", samples=300)


@pytest.fixture(scope="session")
def cohort(folder) -> Cohort:
    return load(folder)


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides that train in well under a second."""
    return TINY


class Done(NamedTuple):
    """What a command left: its exit code and its output."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


def process(*words: Any) -> Done:
    """``python -m remind WORDS`` in a process of its own."""
    command = [sys.executable, "-m", "remind", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def call(*words: Any) -> Done:
    """``remind WORDS`` in this process; an error that is not the user's comes through as it is."""
    from remind.cli import main

    if words[:2] in (("cohort", "make"), ("cohort", "mask")) or words[0] == "demo":
        return process(*words)  # Typer's Context is not of the type that Typer wants named; beartype objects
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = ["remind", *map(str, words)]
    with patch("sys.argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def remind() -> Callable[..., Done]:
    return call


@pytest.fixture(scope="session")
def remind_process() -> Callable[..., Done]:
    return process


def settings(overrides: Iterable[str]) -> list[str]:
    """Overrides as words of the command line."""
    return [word for override in overrides for word in ("-s", override)]


@pytest.fixture(scope="session")
def tiny_words() -> list[str]:
    return settings(TINY)


def clinic_table() -> pl.DataFrame:
    """Forty visits of twenty patients; ``labs`` and ``vitals``, at least one at every visit."""
    visits = range(40)
    return pl.DataFrame(
        {
            "visit": [f"{n:05d}" for n in visits],
            "patient": [f"p{n // 2:02d}" for n in visits],
            "grade": [("none", "mild")[n // 2 % 2] for n in visits],
            "hba1c": [None if n % 3 == 0 else 5 + n / 10 for n in visits],
            "comment": [None if n % 3 == 0 else f"canary {'ab'[n % 2]}" for n in visits],
            "pulse": [None if n % 6 == 1 else 86420 + n / 4 for n in visits],
        }
    )


def write_clinic(
    place: Path,
    *,
    table: Callable[[pl.DataFrame], pl.DataFrame] = lambda table: table,
    text: str | None = None,
    csv: bool = False,
    **spec: Any,
) -> Path:
    """A sound cohort folder, but for what ``table`` does to the samples, and the keys or the ``text`` of the spec."""
    document = {
        "name": "clinic",
        "id": "visit",
        "subject": "patient",
        "label": GRADES,
        "modalities": MODALITIES,
        **spec,
    }
    place.mkdir()
    written = yaml.safe_dump(document, sort_keys=False, allow_unicode=True) if text is None else text
    (place / "cohort.yaml").write_text(written, encoding="utf-8")
    if csv:
        table(clinic_table()).write_csv(place / "samples.csv")
    else:
        table(clinic_table()).write_parquet(place / "samples.parquet")
    return place


@pytest.fixture
def clinic(tmp_path) -> Callable[..., Path]:
    """Write a clinic: ``clinic()``, ``clinic(table=..., label=...)``, ``clinic("other", ...)``."""

    def at(folder: str = "clinic", /, **changes: Any) -> Path:
        return write_clinic(tmp_path / folder, **changes)

    return at


def at_row(number: int, **cells: Any) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Put other values into one row, counted from 1."""

    def change(table: pl.DataFrame) -> pl.DataFrame:
        here = pl.int_range(pl.len()) == number - 1
        new = {column: pl.when(here).then(pl.lit(value)).otherwise(pl.col(column)) for column, value in cells.items()}
        return table.with_columns(**new)

    return change


@pytest.fixture(scope="session")
def at() -> Callable[..., Callable[[pl.DataFrame], pl.DataFrame]]:
    return at_row


def with_split(*, torn: bool = False, empty: str = "") -> Callable[[pl.DataFrame], pl.DataFrame]:
    """A column ``part`` that divides the patients, or one that does not."""

    def change(table: pl.DataFrame) -> pl.DataFrame:
        parts = ["train"] * 24 + ["validation"] * 8 + ["test"] * 8
        parts = ["train" if part == empty else part for part in parts]
        if torn:
            parts[23] = "test"
        return table.with_columns(part=pl.Series(parts))

    return change


class Mistake(NamedTuple):
    """Something users get wrong, and what the error must name: the file, the row or the key, and the mend."""

    name: str
    said: tuple[str, ...]
    changes: Mapping[str, Any] = MappingProxyType({})
    damage: Callable[[Path], Any] = lambda folder: None

    def write(self, place: Path) -> Path:
        """The cohort that has it."""
        written = write_clinic(place, **self.changes)
        self.damage(written)
        return written


def _instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _csv(content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / "samples.parquet").unlink()
        (folder / "samples.csv").write_bytes(content)

    return damage


SPEC = "name: clinic\nid: visit\nlabel: {column: grade, classes: [none, mild]}\nmodalities:\n"
LABS = "  labs: {kind: tabular, columns: [hba1c]}\n"
PART = {"split": {"column": "part"}}
TABLE, YAML = "samples.parquet", "cohort.yaml"
MISTAKES = [
    # the table
    Mistake(
        "an unknown column",
        (TABLE, "label", "'garde'", "Did you mean 'grade'?"),
        {"label": {**GRADES, "column": "garde"}},
    ),
    Mistake(
        "a label outside the classes",
        (TABLE, "row 4:", "'grade'", "none, mild", "mend"),
        {"table": at_row(4, grade="canary")},
    ),
    Mistake("no label", (TABLE, "row 4:", "'grade'", "empty", "drop"), {"table": at_row(4, grade=None)}),
    Mistake(
        "a sample of nothing",
        (TABLE, "row 8:", "no modality", "drop"),
        {"table": at_row(8, hba1c=None, comment=None, pulse=None)},
    ),
    Mistake(
        "one id twice",
        (TABLE, "rows 3, 5:", "'visit'", "more than once", "keep one row"),
        {"table": at_row(5, visit="00002")},
    ),
    Mistake("no id", (TABLE, "row 6:", "'visit'", "empty"), {"table": at_row(6, visit=None)}),
    Mistake("no subject", (TABLE, "row 6:", "'patient'", "empty"), {"table": at_row(6, patient=None)}),
    Mistake(
        "an id that ends in a space",
        (TABLE, "row 7:", "'visit'", "white space", "strip"),
        {"table": at_row(7, visit="canary ")},
    ),
    Mistake(
        "ids with a decimal point",
        (TABLE, "'visit'", "decimal", "save it as"),
        {"table": lambda t: t.with_columns(pl.col("visit").cast(pl.Float64))},
    ),
    Mistake(
        "ids that are lists",
        (TABLE, "'visit'"),
        {"table": lambda t: t.with_columns(visit=pl.concat_list("visit", pl.lit("canary")))},
    ),
    Mistake(
        "an infinite number",
        (TABLE, "row 9:", "'pulse'", "infinite", "leave the cell empty"),
        {"table": at_row(9, pulse=float("inf"))},
    ),
    Mistake(
        "dates as inputs",
        (TABLE, "'vitals'", "'pulse'", "Date", "use numbers"),
        {"table": lambda t: t.with_columns(pulse=pl.lit("2020-01-01").str.to_date())},
    ),
    Mistake("no rows", (TABLE, "no rows"), {"table": lambda t: t.clear()}),
    Mistake("a file of other bytes", (TABLE, "cannot be read"), damage=lambda f: (f / TABLE).write_bytes(b"canary")),
    Mistake("half a file", (TABLE, "cannot be read"), damage=lambda f: (f / TABLE).write_bytes(b"PAR1" * 20)),
    Mistake("no table", (TABLE, "samples.csv", "needs one"), damage=lambda f: (f / TABLE).unlink()),
    Mistake("a folder for a table", (TABLE, "samples.csv"), damage=lambda f: _instead(f / TABLE)),
    Mistake("an empty CSV", ("samples.csv",), damage=_csv(b"")),
    Mistake("a CSV in Latin-1", ("samples.csv", "cannot be read"), damage=_csv(b"visit,grade\ncanary\xe9,none\n")),
    Mistake("a CSV with too long a row", ("samples.csv",), damage=_csv(b"visit,grade\n1,none\n2,mild,3,canary\n")),
    # the splits
    Mistake(
        "a subject in two splits",
        (TABLE, "rows 23, 24:", "'patient'", "two splits", "the same"),
        {"table": with_split(torn=True), **PART},
    ),
    Mistake(
        "an empty split",
        (TABLE, "'part'", "no sample in validation", "needs some"),
        {"table": with_split(empty="validation"), **PART},
    ),
    Mistake(
        "an unknown split",
        (TABLE, "row 2:", "'part'", "train, validation or test"),
        {"table": lambda t: at_row(2, part="canary")(with_split()(t)), **PART},
    ),
    Mistake(
        "a drawn test split without a sample",
        ("test split", "empty", "larger share"),
        {
            "table": lambda t: t.head(6),
            "split": {"train": 0.6, "validation": 0.39, "test": 0.01},
        },
    ),
    Mistake(
        "a drawn validation split without a sample",
        ("validation split", "empty", "larger share"),
        {
            "table": lambda t: t.head(6),
            "split": {"train": 0.6, "validation": 0.01, "test": 0.39},
        },
    ),
    # the spec
    Mistake("no spec", (YAML, "no such file", TABLE), damage=lambda f: (f / YAML).unlink()),
    Mistake("a folder for a spec", (YAML, "no such file"), damage=lambda f: _instead(f / YAML)),
    Mistake("broken YAML", (YAML, "line 3", "YAML"), {"text": "name: clinic\nid: [visit\nlabel: {\n"}),
    Mistake("an impossible date in the YAML", (YAML,), {"text": f"{SPEC}{LABS}subject: 2020-13-45\n"}),
    Mistake("an empty spec", (YAML,), {"text": ""}),
    Mistake("a list for a spec", (YAML,), {"text": "- visit\n"}),
    Mistake("a spec in UTF-16", (YAML, "UTF-8"), damage=lambda f: (f / YAML).write_text(SPEC, "utf-16")),
    Mistake(
        "a class that YAML reads as a boolean",
        (YAML, "label.classes.0", "YAML reads a bare", "quotes"),
        {"text": SPEC.replace("none", "no") + LABS},
    ),
    Mistake("a misspelt key", (YAML, "modalitis", "Did you mean 'modalities'?"), {"modalitis": {}}),
    Mistake(
        "a misspelt key of a modality",
        (YAML, "modalities.labs.colums", "Did you mean 'columns'?"),
        {"modalities": {"labs": {"kind": "tabular", "columns": ["hba1c"], "colums": []}}},
    ),
    Mistake(
        "a misspelt key of the split",
        (YAML, "split.trian", "Did you mean 'train'?"),
        {"split": {"trian": 0.7}},
    ),
    Mistake(
        "an unknown kind",
        (YAML, "modalities.labs.kind", "'tabula'", "Did you mean 'tabular'?"),
        {"modalities": {"labs": {"kind": "tabula", "columns": ["hba1c"]}}},
    ),
    Mistake("one modality twice", (YAML, "labs", "twice"), {"text": f"{SPEC}{LABS}{LABS.replace('hba1c', 'pulse')}"}),
    Mistake(
        "the label as an input",
        (YAML, "'labs'", "'grade'", "the label"),
        {"modalities": {"labs": {"kind": "tabular", "columns": ["hba1c", "grade"]}}},
    ),
    Mistake(
        "the subject as an input",
        (YAML, "'labs'", "'patient'", "the subject"),
        {"modalities": {"labs": {"kind": "tabular", "columns": ["patient"]}}},
    ),
    Mistake(
        "a modality with a plus in its name",
        (YAML, "'a+b'"),
        {"modalities": {"a+b": {"kind": "tabular", "columns": ["hba1c"]}}},
    ),
    Mistake(
        "a column listed twice",
        (YAML, "modalities.labs", "twice"),
        {"modalities": {"labs": {"kind": "tabular", "columns": ["hba1c", "hba1c"]}}},
    ),
    Mistake(
        "a category that is no column",
        (YAML, "modalities.labs", "'sex'"),
        {"modalities": {"labs": {"kind": "tabular", "columns": ["hba1c"], "categorical": ["sex"]}}},
    ),
    Mistake("no modalities", (YAML, "modalities"), {"modalities": {}}),
    Mistake("one class", (YAML, "label.classes"), {"label": {"column": "grade", "classes": ["none"]}}),
    Mistake("a class twice", (YAML, "label", "twice"), {"label": {"column": "grade", "classes": ["none", "none"]}}),
    Mistake(
        "shares that do not sum to 1",
        (YAML, "split", "sum to 1"),
        {"split": {"train": 0.7, "validation": 0.2, "test": 0.2}},
    ),
    Mistake("a word for a share", (YAML, "split.train", "number"), {"split": {"train": "most"}}),
    Mistake("a word for a split", (YAML, "split"), {"split": "random"}),
]


@pytest.fixture(params=MISTAKES, ids=lambda mistake: mistake.name.replace(" ", "-"))
def mistake(request) -> Mistake:
    """Each thing users get wrong."""
    return request.param
