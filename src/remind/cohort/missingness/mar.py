"""Missing at random: with a probability that depends on columns that stay."""

import numpy as np
import polars as pl

from remind.cohort.check import LARGEST, PLAIN
from remind.cohort.cohort import Cohort
from remind.cohort.missingness.logistic import coded, draw, is_number, score, standardised
from remind.cohort.missingness.masked import Masked, Names, Remove, cells, removal
from remind.cohort.table import read_samples
from remind.errors import RemindError, unknown
from remind.modalities.spec import TabularModality
from remind.registry import Amount

MOST = 100  # categories; over more of them the strength spreads until nothing depends on the column


def mar(cohort: Cohort, seed: int, *, remove: Remove, given: Names, strength: Amount = 2.0) -> Masked:
    """Remove each modality from about its share of samples, more likely from some than from others by ``given``.

    ``given`` names columns of the sample table, those that the spec does not name included. Numbers are standardised,
    an empty cell says that it is empty. The coefficients of each modality are drawn, and have the norm ``strength``.
    """
    numbers, codes = _features(cohort, list(dict.fromkeys(given)), remove)

    def lose(rng: np.random.Generator, modality: str, having: np.ndarray, share: float) -> np.ndarray:
        return draw(rng, score(rng, numbers, codes, strength)[having], share)

    return removal(cohort, seed, remove, lose)


def _features(cohort: Cohort, given: list[str], remove: Remove) -> tuple[np.ndarray, list[tuple[np.ndarray, int]]]:
    """Numbers ``[n, f]`` and the categories of the columns given, as ``score`` wants them."""
    spec, table = cohort.spec, _table(cohort, given)
    removed = {c: name for name in remove if name in cohort.modalities for c in cells(cohort, name)}
    tables = [modality for modality in spec.modalities.values() if isinstance(modality, TabularModality)]
    categorical = {column for modality in tables for column in modality.categorical}
    numbers, codes = [], []
    for column in given:
        _allowed(cohort, column, removed)
        values = table[column]
        if not (is_number(values) or values.dtype in PLAIN):
            raise _refuse(cohort, column, "holds neither numbers nor text; name another.")
        if values.n_unique() < 2:
            raise _refuse(cohort, column, "is the same for every sample; name one that varies.")
        if is_number(values) and column not in categorical:
            if (values.cast(pl.Float64).abs() > LARGEST).any():
                raise _refuse(cohort, column, f"holds a number beyond {LARGEST:g}; mend the cell.")
            empty = values.is_null().to_numpy()
            numbers += [standardised(values), *([empty.astype(float)] if empty.any() else [])]
        elif values.n_unique() > MOST:
            raise _refuse(cohort, column, f"has more than {MOST} categories; name one with fewer.")
        else:
            codes.append(coded(values))
    return np.array(numbers).reshape(-1, len(cohort)).T, codes


def _table(cohort: Cohort, given: list[str]) -> pl.DataFrame:
    """The samples with the columns given, read from the folder if the spec does not name them."""
    samples, key = cohort.samples, cohort.spec.id
    if (cohort.folder / "cohort.yaml").is_file() and not set(given) <= set(samples.columns):
        stored, _ = read_samples(cohort.folder, cohort.spec)
        more = stored.select(key, *(column for column in stored.columns if column not in samples.columns))
        samples = samples.join(more, on=key, how="left", maintain_order="left")
    for column in given:
        if column not in samples.columns:
            raise RemindError(f"{cohort.spec.name}: 'given' names an {unknown('column', column, samples.columns)}")
    return samples


def _allowed(cohort: Cohort, column: str, removed: dict[str, str]) -> None:
    role = cohort.spec.columns().get(column)
    if role == "label":
        raise _refuse(cohort, column, "is the label; use the rule mnar, with 'given' label.")
    if role in ("id", "subject"):
        raise _refuse(cohort, column, f"is the {role}; name one that says something of the patient.")
    if column in removed:
        mend = f"belongs to modality {removed[column]!r}, which is to be removed; name one that stays, or use mnar."
        raise _refuse(cohort, column, mend)


def _refuse(cohort: Cohort, column: str, why: str) -> RemindError:
    return RemindError(f"{cohort.spec.name}: 'given' names the column {column!r}, which {why}")
