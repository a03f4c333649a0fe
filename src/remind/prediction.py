"""Predictions one can act on: calibrated probabilities, a set of classes, and when not to trust them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from remind.api import finished_run, load_model
from remind.cohort.cohort import Cohort, unlabelled
from remind.cohort.spec import read_spec
from remind.cohort.survey import admit
from remind.cohort.table import Frame, as_polars, read_samples, read_table
from remind.engine.fitted import FittedModel
from remind.errors import RemindError
from remind.evaluation.intervals import ENOUGH
from remind.evaluation.trust import COVERAGE, Calibration
from remind.modalities.tabular import TabularTransform

UNSEEN, FEW = "never seen in training", "too few to judge"


def predict(
    run: str | Path,
    samples: str | Path | Frame | Cohort,
    *,
    coverage: float = COVERAGE,
    root: str | Path | None = None,
    unreadable: Literal["stop", "missing"] | None = None,
    quarantine: Path | None = None,
    told: Callable[[str], None] = lambda sentence: None,
) -> pl.DataFrame:
    """What a finished run's model says of samples, whatever they lack; one line each, in their order.

    Columns: ``id`` (the row's number, where the table has no ids); ``combination``; ``trained_on``, the training
    samples that had it; ``tested_on``, the test subjects that had it; ``prediction``; ``p_CLASS``, calibrated;
    ``set``, the classes that together hold the true one in ``coverage`` of cases, as far as ``held`` goes: in the
    combination itself, in rare ones together, in all, or in none; ``abstain``, true if the combination was never seen
    in training, or seen in fewer than ten test subjects, so that nobody knows how good the model is on it; ``reason``.

    Args:
        run: a finished run folder.
        samples: a cohort folder, a Parquet or CSV file, a table, or a cohort; labels are not needed and not read.
        coverage: how often the set is to hold the true class, between 0 and 1.
        root: where paths in cells start; by default the spec's ``root`` beside the file, or here for a table.
        unreadable: whether a file that cannot be read stops, or counts as missing; by default the run's own rule.
        quarantine: where such files are listed, if there are any.
        told: called with a sentence for each modality of which files count as missing.

    Raises:
        RemindError: if the run is not finished, the samples are not what its model takes, or no file of a modality
            can be read.
    """
    if not 0 < coverage < 1:
        raise RemindError(f"coverage {coverage:g} is none; give a share between 0 and 1, such as 0.9.")
    fitted, kept = load_model(run), finished_run(run).read_table("predictions")
    cohort, ids = _samples(samples, fitted, root)
    data = fitted.recipe.data
    before, rule = cohort.available, unreadable or data.unreadable
    cohort = admit(cohort, unreadable=rule, budget=1.0, quarantine=quarantine, workers=data.workers)
    _tell_lost(cohort, before, told)
    found = fitted.predictions(cohort, np.arange(len(cohort)))
    calibration = Calibration.fit(kept.filter(split="validation"), fitted.classes_, coverage=coverage)
    probability, sets = calibration.of(found)
    names, group = fitted.classes_, found["group"].to_numpy()
    tested = (
        kept.filter(split="test").group_by("combination").agg(tested_on=pl.col("subject").n_unique().cast(pl.Int64))
    )
    table = pl.DataFrame(
        {
            "id": ids,
            "combination": found["combination"],
            "trained_on": np.append(fitted.groups.counts, 0)[group],
            "prediction": [names[place] for place in probability.argmax(axis=1)],
            **{f"p_{name}": values for name, values in zip(names, probability.T, strict=True)},
            "set": [[name for name, inside in zip(names, row, strict=True) if inside] for row in sets],
            "held": [calibration.thresholds.by(one) for one in group.tolist()],
        }
    )
    table = table.join(tested, on="combination", how="left", maintain_order="left")
    table = table.with_columns(pl.col("tested_on").fill_null(0))
    reason = pl.when(pl.col("trained_on") == 0).then(pl.lit(UNSEEN))
    reason = reason.when(pl.col("tested_on") < ENOUGH).then(pl.lit(FEW))
    table = table.with_columns(reason=reason).with_columns(abstain=pl.col("reason").is_not_null())
    first = ("id", "combination", "trained_on", "tested_on", "abstain", "reason", "prediction", "set", "held")
    return table.select(*first, pl.exclude(first))


def write_predictions(table: pl.DataFrame, out: Path) -> None:
    """Write what ``predict`` gives, whole or not at all; in a CSV a set is a JSON list.

    Raises:
        RemindError: if the folder is not there or cannot be written.
    """
    staging = out.with_name(f".{out.name}.tmp")
    try:
        if out.suffix == ".parquet":
            table.write_parquet(staging)
        else:
            sets = pl.Series("set", [json.dumps(one, ensure_ascii=False) for one in table["set"].to_list()], pl.String)
            table.with_columns(sets).write_csv(staging)
        staging.replace(out)
    except OSError as error:
        raise RemindError(
            f"{out}: cannot be written ({error.strerror or 'no such folder'}); name another file with --out."
        ) from None
    finally:
        staging.unlink(missing_ok=True)


def summary(table: pl.DataFrame) -> dict[str, Any]:
    """Counts of what ``predict`` gives: samples, abstentions by reason, and each combination, most frequent first."""
    lines = table.group_by("combination", maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("n"), pl.col("trained_on", "tested_on", "reason").first()
    )
    return {
        "samples": table.height,
        "abstained": {reason: int((table["reason"] == reason).sum()) for reason in (UNSEEN, FEW)},
        "mean_set_size": float(table["set"].list.len().cast(pl.Float64).to_numpy().mean()),
        "combinations": lines.sort(-pl.col("n"), "combination").to_dicts(),
    }


def _tell_lost(cohort: Cohort, before: np.ndarray, told: Callable[[str], None]) -> None:
    """Say how many files count as missing; refuse, if those are all of a modality, as where paths start wrongly."""
    for place, name in enumerate(cohort.modalities):
        had, has = int(before[:, place].sum()), int(cohort.available[:, place].sum())
        if had > 1 and not has:
            raise RemindError(f"modality {name!r}: none of its {had} files can be read; are their paths from the root?")
        if has < had:
            told(
                f"modality {name!r}: {had - has} of {had} files cannot be read or hold nothing; they count as missing."
            )


def _samples(
    samples: str | Path | Frame | Cohort, fitted: FittedModel, root: str | Path | None
) -> tuple[Cohort, list[str]]:
    """The samples as a cohort without labels, in their own order, and what they are called."""
    if isinstance(samples, Cohort):
        return samples, samples.ids
    spec, file = fitted.spec, "the table"
    words = [c for one in fitted.transforms.values() if isinstance(one, TabularTransform) for c in one.categories]
    if not isinstance(samples, str | Path):
        table = as_polars(samples)
    elif (place := Path(samples)).is_dir():
        if (place / "cohort.yaml").is_file():
            spec = read_spec(place / "cohort.yaml")
        table, file = read_samples(place, spec, words)
        root = root or place / (spec.root or "")
    else:
        table, root, file = read_table(place, spec, words), root or place.parent / (spec.root or ""), place
    cohort = unlabelled(spec, table, root, str(file))
    return cohort, table[spec.id].cast(pl.String).to_list() if spec.id in table.columns else cohort.ids
