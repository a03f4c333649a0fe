"""The table of samples: read from disk, written to disk, and what its nulls say."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl
import yaml

from remind.cohort.spec import CohortSpec
from remind.documents import NULL_WORDS
from remind.errors import RemindError
from remind.modalities.spec import Modality


@runtime_checkable
class Frame(Protocol):
    """A table in memory: polars', pandas', or any other that speaks Arrow."""

    def __len__(self) -> int: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


def as_polars(table: Frame) -> pl.DataFrame:
    """The table as polars has it; NaN becomes null.

    Raises:
        RemindError: if it is not such a table, or a library it needs for that is not installed.
    """
    try:
        frame = pl.DataFrame(table)
    except ImportError:
        raise RemindError("a pandas table needs pyarrow to be read: pip install pyarrow.") from None
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise RemindError(f"the table cannot be read ({type(error).__name__}); pass one of polars or pandas.") from None
    return frame.with_columns(pl.selectors.float().fill_nan(None))


def read_samples(folder: Path, spec: CohortSpec, text: Iterable[str] = ()) -> tuple[pl.DataFrame, Path]:
    """The table of samples in a folder, and the file it is from; see ``read_table``.

    Raises:
        RemindError: if there is no table, or it cannot be read.
    """
    parquet, csv = folder / "samples.parquet", folder / "samples.csv"
    place = parquet if parquet.is_file() else csv
    if not place.is_file():
        raise RemindError(f"{parquet}: no such file, and no samples.csv either; a cohort needs one of them.")
    return read_table(place, spec, text), place


def read_table(place: Path, spec: CohortSpec, text: Iterable[str] = ()) -> pl.DataFrame:
    """A Parquet or CSV file of samples. NaN becomes null; ids, labels and categories in a CSV stay text.

    ``text`` are other columns of which it is known that they hold words, though all of them may read as numbers.

    Raises:
        RemindError: if it is not there or cannot be read.
    """
    try:
        if place.suffix == ".parquet":
            frame = pl.read_parquet(place.read_bytes())
        else:
            words = [c for m in spec.modalities.values() if m.kind != "tabular" for c in m.cells()]
            codes = [c for m in spec.modalities.values() if m.kind == "tabular" for c in m.categorical]
            named = (spec.id, spec.subject_column, spec.label.column, *words, *codes, *text)
            as_text = dict.fromkeys(named, pl.String)
            frame = pl.read_csv(
                place.read_bytes(),  # not the path, in which polars would read * and [ as patterns
                null_values=NULL_WORDS,
                infer_schema_length=None,
                schema_overrides=as_text,
                raise_if_empty=False,
            )
    except FileNotFoundError:
        raise RemindError(f"{place}: no such file.") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise RemindError(f"{place}: cannot be read as a table ({type(error).__name__}).") from None
    return frame.with_columns(pl.selectors.float().fill_nan(None))


def write_cohort(
    out: Path, spec: Mapping[str, Any], samples: pl.DataFrame, beside: Mapping[str, pl.DataFrame | str] | None = None
) -> Path:
    """Write a cohort folder, whole or not at all.

    ``beside`` holds further files: a table for a ``.parquet`` name, text for any other.

    Raises:
        RemindError: if the folder is there already.
    """
    with new_folder(out) as folder:
        fill_cohort(folder, spec, samples, beside)
    return out


def fill_cohort(
    folder: Path, spec: Mapping[str, Any], samples: pl.DataFrame, beside: Mapping[str, pl.DataFrame | str] | None = None
) -> None:
    """Write a cohort's files into a folder that is there; see ``write_cohort``."""
    CohortSpec.model_validate(spec)
    text = yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True)
    (folder / "cohort.yaml").write_text(text, encoding="utf-8")
    samples.write_parquet(folder / "samples.parquet")
    for name, content in (beside or {}).items():
        if isinstance(content, str):
            (folder / name).write_text(content, encoding="utf-8")
        else:
            content.write_parquet(folder / name)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder under a temporary name, to be filled; it becomes ``out`` at the end, or nothing is left of it.

    Raises:
        RemindError: if there is such a folder already.
    """
    if out.exists():
        raise RemindError(f"{out}: is there already; name another folder or remove this one.")
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield staging
        staging.chmod(0o755)
        os.replace(staging, out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def availability(spec: CohortSpec, samples: pl.DataFrame) -> np.ndarray:
    """Which modalities each sample has, ``bool [n, m]``: one is missing if all its cells are null, or blank text."""
    masks = [
        np.any([is_given(modality, samples[column]).to_numpy() for column in modality.cells()], axis=0)
        for modality in spec.modalities.values()
    ]
    return np.stack(masks, axis=1).reshape(samples.height, len(spec.modalities))


def is_given(modality: Modality, cells: pl.Series) -> pl.Series:
    """Which cells of a column hold something: blank text does not."""
    if modality.kind == "text" and cells.dtype == pl.String:
        return (cells.str.strip_chars() != "").fill_null(False)
    return cells.is_not_null()


def labels(spec: CohortSpec, samples: pl.DataFrame) -> pl.Series:
    """Class index of each sample, Int64; null where the label is null or is not among the classes."""
    column = samples[spec.label.column].cast(pl.String).str.strip_chars()
    if not column.is_in(spec.label.classes).all():  # 1.0 is class "1"; 1.5 is no class
        number = column.cast(pl.Float64, strict=False)
        whole = number.cast(pl.Int64, strict=False)
        named = column.is_in(spec.label.classes) | (whole.cast(pl.Float64) != number)
        column = pl.select(pl.when(named.fill_null(True)).then(column).otherwise(whole.cast(pl.String))).to_series()
    place = {name: index for index, name in enumerate(spec.label.classes)}
    return column.replace_strict(place, default=None, return_dtype=pl.Int64)
