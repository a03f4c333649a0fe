"""What a rule leaves of a cohort, what rules have in common, and the new cohort's folder.

Letters: ``n`` samples and ``m`` modalities of the cohort that is there.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import polars as pl
from pydantic import BeforeValidator, Field

from remind.cohort.cohort import Cohort
from remind.cohort.combination import Combination, distinct
from remind.cohort.spec import CohortSpec
from remind.cohort.splits import SPLITS
from remind.cohort.table import write_cohort
from remind.errors import RemindError, unknown
from remind.modalities.spec import FileModality


def _listed(given: Any) -> Any:
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


def _paired(given: Any) -> Any:
    if not isinstance(given, str) or "=" not in given:
        return given
    pairs = [pair.partition("=") for pair in given.split(",")]
    return {name.strip(): number.strip() for name, _, number in pairs}


# Types of settings: names as a list or as ``a,b,c``; numbers by name as a mapping or as ``a=0.3,b=0.5``.
Names = Annotated[list[str], Field(min_length=1), BeforeValidator(_listed)]
Remove = Annotated[dict[str, Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1), BeforeValidator(_paired)]
Shares = Annotated[dict[str, float] | str, BeforeValidator(_paired)]

STREAMS = 1 << 20  # the first of our spawn keys: no seed draws here what it draws in the simulator
REMOVE, SPARE, ASSIGN = range(3)  # independent streams of one seed


class Masked(NamedTuple):
    """What a rule leaves. A sample that keeps nothing leaves the cohort, and so does a modality that is not listed."""

    keep: np.ndarray  # bool [n, m], never where there was nothing
    modalities: tuple[str, ...]  # of the new cohort, in its order
    split: np.ndarray  # int64 [n], an index into SPLITS


def generator(seed: int, *stream: int) -> np.random.Generator:
    """A stream of the seed's."""
    if seed < 0:
        raise RemindError(f"the seed is {seed}; it must be at least 0.")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS, *stream)))


def cells(cohort: Cohort, modality: str) -> list[str]:
    """The columns a modality is read from; it is missing if all of them are null."""
    return cohort.spec.modalities[modality].cells()


def place(cohort: Cohort, modality: str) -> int:
    """Where a modality stands in the cohort's order.

    Raises:
        RemindError: if the cohort has no such modality.
    """
    if modality not in cohort.modalities:
        raise RemindError(f"{cohort.spec.name}: {unknown('modality', modality, cohort.modalities)}")
    return cohort.modalities.index(modality)


def members(cohort: Cohort, combination: str) -> np.ndarray:
    """The mask ``bool [m]`` of a combination written ``labs+text``, in any order."""
    mask = np.zeros(len(cohort.modalities), dtype=bool)
    mask[[place(cohort, name.strip()) for name in combination.split("+")]] = True
    return mask


Lose = Callable[[np.random.Generator, str, np.ndarray, float], np.ndarray]


def removal(cohort: Cohort, seed: int, remove: Mapping[str, float], lose: Lose) -> Masked:
    """Remove modalities where ``lose`` says so, asked ``lose(rng, modality, having [k], share) -> bool [k]``.

    ``having`` are the numbers of the rows that have the modality. What becomes of one modality does not depend on which
    others are removed as well.
    """
    keep = cohort.available.copy()
    for modality, share in remove.items():
        column = place(cohort, modality)
        having = np.flatnonzero(keep[:, column])
        if not len(having):
            raise RemindError(f"{cohort.spec.name}: no sample has modality {modality!r}; there is nothing to remove.")
        keep[having[lose(generator(seed, REMOVE, column), modality, having, share)], column] = False
    return Masked(_spare(generator(seed, SPARE), cohort.available, keep), cohort.modalities, cohort.split)


def _spare(rng: np.random.Generator, available: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Give each sample that would keep nothing one of its modalities back, drawn at random."""
    emptied = np.flatnonzero(~keep.any(axis=1))
    chance = np.where(available[emptied], rng.random((len(emptied), available.shape[1])), -1.0)
    keep[emptied, chance.argmax(axis=1)] = True
    return keep


def write_masked(
    cohort: Cohort, out: Path, masked: Masked, *, rule: str, seed: int, settings: Mapping[str, Any]
) -> Path:
    """Write what is left as a cohort folder that brings its split in a column, with ``mask.json`` beside it.

    The new table holds the columns that the spec names, and no other.

    Raises:
        RemindError: if two modalities share a column of one that is removed, a split would be left without a sample,
            or the folder is there already.
    """
    _unshared(cohort, masked)
    stays = masked.keep.any(axis=1)
    for index, name in enumerate(SPLITS):
        if not (masked.split[stays] == index).any():
            raise RemindError(
                f"{cohort.spec.name}: rule {rule!r} leaves no sample in the {name} split; ask for less, or give that "
                "split more samples."
            )
    spec = cohort.spec.model_dump(mode="json", exclude_unset=True)
    spec["name"] += f"-{rule}"
    spec["modalities"] = {name: spec["modalities"][name] for name in masked.modalities}
    spec["split"] = {"column": _split_column(cohort, masked.modalities)}
    if any(isinstance(modality, FileModality) for modality in cohort.spec.modalities.values()):
        spec["root"] = str(cohort.root.resolve())
    checked = CohortSpec.model_validate(spec)
    nulls = {
        column: pl.when(pl.lit(pl.Series(masked.keep[:, place(cohort, name)]))).then(pl.col(column))
        for name in masked.modalities
        for column in cells(cohort, name)
    }
    split = pl.Series(np.array(SPLITS)[masked.split])
    samples = cohort.samples.with_columns(**nulls).with_columns(split.alias(spec["split"]["column"]))
    samples = samples[np.flatnonzero(stays)].select(reversed(checked.columns()))
    report = {
        "rule": rule,
        "settings": dict(settings),
        "seed": seed,
        "source": {"name": cohort.spec.name, "fingerprint": cohort.fingerprint},
        "dropped": int((~stays).sum()),
        "removed": {name: _removed(cohort, masked, name) for name in masked.modalities},
        "before": _frequencies(cohort),
        "after": _frequencies(Cohort(checked, samples)),
    }
    return write_cohort(out, spec, samples, {"mask.json": json.dumps(report, indent=1)})


def _unshared(cohort: Cohort, masked: Masked) -> None:
    for name in masked.modalities:
        column = place(cohort, name)
        if (masked.keep[:, column] == cohort.available[:, column]).all():
            continue
        for other in sorted(set(masked.modalities) - {name}):
            if common := set(cells(cohort, name)) & set(cells(cohort, other)):
                first, second = sorted((name, other))
                raise RemindError(
                    f"{cohort.spec.name}: modalities {first!r} and {second!r} share the column {min(common)!r}; "
                    "one cannot be removed without the other: give each columns of its own."
                )


def _split_column(cohort: Cohort, modalities: tuple[str, ...]) -> str:
    spec, name = cohort.spec, "split"
    taken = {column for modality in modalities for column in cells(cohort, modality)}
    while name in taken | {spec.id, spec.subject_column, spec.label.column}:
        name += "_"
    return name


def _frequencies(cohort: Cohort) -> list[dict[str, Any]]:
    """How often each combination occurs, the most frequent first."""
    masks, _, counts = distinct(cohort.available)
    lines = [
        {"combination": Combination.of(mask).label(cohort.modalities), "n": int(n), "share": int(n) / len(cohort)}
        for mask, n in zip(masks, counts, strict=True)
    ]
    return sorted(lines, key=lambda line: (-line["n"], line["combination"]))


def _removed(cohort: Cohort, masked: Masked, modality: str) -> dict[str, int | float]:
    """How many of the samples that stay had it, and lost it."""
    column = place(cohort, modality)
    had = cohort.available[:, column] & masked.keep.any(axis=1)
    lost = int((had & ~masked.keep[:, column]).sum())
    return {"had": int(had.sum()), "lost": lost, "share": lost / max(int(had.sum()), 1)}
