"""What each modality is worth to a trained model, and what the next one would add: exact Shapley values.

Letters: n samples, u sets of modalities, m modalities, g combinations, c classes, w ways to measure worth: two.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure

from remind.analysis.finding import Finding
from remind.analysis.subsets import subset_probability
from remind.analysis.trained import Trained, identities
from remind.cohort.cohort import Cohort
from remind.cohort.combination import Combination, distinct
from remind.engine.fitted import FittedModel
from remind.errors import RemindError
from remind.evaluation.intervals import ENOUGH, of_mean
from remind.evaluation.shapley import game
from remind.report.figures import COLOURS, MARKS
from remind.report.tables import brief

XLABELS = ("bits of information on the true class", "accuracy added")
KEYS = {"method": pl.String, "seed": pl.Int64, "combination": pl.String, "kind": pl.String, "modality": pl.String}
ESTIMATE = {"n": pl.Int64, "subjects": pl.Int64, "few": pl.Boolean}
WORTH = {name + end: pl.Float64 for name in ("bits", "accuracy") for end in ("", "_low", "_high")}
PATIENT = {
    "method": pl.String,
    "seed": pl.Int64,
    "id": pl.String,
    "combination": pl.String,
    "modality": pl.String,
    "bits": pl.Float64,
}

Told = Callable[[int, int], None]  # samples done, and how many there are


class Looked(NamedTuple):
    """Samples of one combination, and what each set of their modalities is worth to the model."""

    mask: Bool[np.ndarray, " m"]
    kind: str
    rows: Int[np.ndarray, " n"]
    weight: float  # how many samples of the combination each stands for
    column: Mapping[bytes, int]  # of each set
    worth: Float[np.ndarray, "w n u"]  # in bits, and in accuracy
    values: Float[np.ndarray, "w n m"]  # Shapley's; 0 for a modality that is missing

    def of(self, mask: Bool[np.ndarray, " m"]) -> Float[np.ndarray, "w n"]:
        """What a set is worth."""
        return self.worth[:, :, self.column[mask.tobytes()]]


def modality_values(
    cohort: Cohort,
    runs: Sequence[Trained],
    *,
    split: str = "test",
    most: int | None = 200,
    seed: int = 0,
    told: Told = lambda done, total: None,
) -> Finding:
    """The Shapley value of each modality: in each combination, in all samples that have it, and for each patient.

    A sample's modalities are removed, all subsets in turn where it has up to ten (beyond, those along 128 random
    orders). A set is worth ``log2 p`` of the true class, in bits, and whether the true class is the most probable; no
    modality at all is worth what the classes' shares in training are. The values of a sample add up to what all of its
    modalities are worth above that.

    ``next`` (see ``Finding.more``): for each combination and each modality it lacks, what having that too adds, in the
    mean over samples that have the combination's modalities, this one, and maybe others, which are left out. They may
    be other patients than those who lack it. ``patients``: the values of single samples, by id, in bits.

    Args:
        most: samples looked at of each combination, drawn at random; None: all.
        told: called with the number of samples done, of how many.

    Raises:
        RemindError: if the split has no sample, or none is to be looked at.
    """
    if most is not None and most < 1:
        raise RemindError("most: look at one sample of each combination at least, or at all with None.")
    values, following, patients = [], [], []
    for place, run in enumerate(runs):
        fitted, names = run.model(), {"method": run.method, "seed": run.seed}
        admitted = fitted.admit(cohort)
        looked = _look(
            fitted, admitted, split, most, seed, lambda n, of, place=place: told(place * of + n, len(runs) * of)
        )
        values += [names | line for line in _values(admitted, looked)]
        following += [names | line for line in _next(admitted, looked)]
        patients += [names | line for line in _patients(admitted, looked)]
    table = pl.DataFrame(values, KEYS | ESTIMATE | WORTH)
    more = {
        "next": pl.DataFrame(following, KEYS | ESTIMATE | WORTH),
        "patients": pl.DataFrame(patients, PATIENT),
    }
    title = f"{cohort.spec.name}: what each modality is worth, {split} split"
    says = _says(table, more["next"], cohort.modalities)
    return Finding("modalities", table, _figure(table, title), says, identities(runs), more)


def _look(fitted: FittedModel, cohort: Cohort, split: str, most: int | None, seed: int, told: Told) -> list[Looked]:
    """Every combination of the split, most frequent in training first."""
    rows, rng = cohort.rows(split), np.random.default_rng(seed)
    masks, which, sizes = distinct(cohort.available[rows])
    groups = fitted.groups.index(masks)
    order = sorted(range(len(masks)), key=lambda k: (groups[k] < 0, groups[k], masks[k].tolist()))
    share = np.bincount(cohort.target[cohort.rows("train")], minlength=len(cohort.classes)) + 1.0
    drawn = {k: rng.permutation(rows[which == k])[:most] for k in order}
    done, total, found = 0, sum(map(len, drawn.values())), []
    for k in order:
        group, chosen = int(groups[k]), np.sort(drawn[k])
        players = np.flatnonzero(masks[k])
        played = game(len(players), seed=seed)
        sets = np.zeros((len(played.sets), len(cohort.modalities)), dtype=bool)
        sets[:, players] = played.sets
        every = np.unique(np.concatenate([sets, *_steps(masks, masks[k])]), axis=0)  # the empty one first
        column = {one.tobytes(): place for place, one in enumerate(every)}
        worth = _worth(fitted, cohort, chosen, every, share / share.sum())
        values = np.zeros((len(worth), len(chosen), len(cohort.modalities)))
        values[:, :, players] = worth[:, :, [column[one.tobytes()] for one in sets]] @ played.weights
        found.append(Looked(masks[k], fitted.groups.kind(group), chosen, sizes[k] / len(chosen), column, worth, values))
        done += len(chosen)
        told(done, total)
    return found


def _steps(masks: Bool[np.ndarray, "g m"], mask: Bool[np.ndarray, " m"]) -> Iterator[Bool[np.ndarray, "_ m"]]:
    """Combinations that hold less than this one, and each with one more of its modalities."""
    for one in masks[~(masks & ~mask).any(axis=1) & (masks != mask).any(axis=1)]:
        yield one[None] | np.eye(len(mask), dtype=bool)[mask & ~one]
        yield one[None]


def _worth(
    fitted: FittedModel, cohort: Cohort, rows: np.ndarray, sets: np.ndarray, nothing: Float[np.ndarray, " c"]
) -> Float[np.ndarray, "w n u"]:
    """Bits and accuracy of each sample with each set; of the first one, which is empty, by the classes' shares."""
    target = cohort.target[rows]
    given = subset_probability(fitted, cohort, rows, sets[1:])
    p = np.concatenate([np.broadcast_to(nothing, (len(rows), 1, len(nothing))), given], axis=1)
    true = np.take_along_axis(p, target[:, None, None], axis=2)[:, :, 0]
    return np.stack([np.log2(true.clip(1e-300)), p.argmax(axis=2) == target[:, None]])


def _values(cohort: Cohort, looked: Sequence[Looked]) -> Iterator[dict[str, Any]]:
    """A line for each combination and modality it has; then one for each modality, over all samples that have it."""
    for one in looked:
        for place in np.flatnonzero(one.mask).tolist():
            yield _of(cohort, one) | _line(cohort, place, [one], [one.values[:, :, place]])
    for place in range(len(cohort.modalities)):
        if having := [one for one in looked if one.mask[place]]:
            own = {"combination": "overall", "kind": None}
            yield own | _line(cohort, place, having, [one.values[:, :, place] for one in having])


def _next(cohort: Cohort, looked: Sequence[Looked]) -> Iterator[dict[str, Any]]:
    """A line for each combination and modality that it lacks and some richer combination has."""
    for one in looked:
        for place in np.flatnonzero(~one.mask).tolist():
            then = one.mask | (np.arange(len(one.mask)) == place)
            if having := [other for other in looked if not (then & ~other.mask).any()]:
                yield _of(cohort, one) | _line(
                    cohort, place, having, [other.of(then) - other.of(one.mask) for other in having]
                )


def _of(cohort: Cohort, one: Looked) -> dict[str, Any]:
    return {"combination": Combination.of(one.mask).label(cohort.modalities), "kind": one.kind}


def _line(
    cohort: Cohort, place: int, looked: Sequence[Looked], gains: Sequence[Float[np.ndarray, "w _"]]
) -> dict[str, Any]:
    """The mean gain, with its interval; no number where subjects are too few to judge."""
    rows = np.concatenate([one.rows for one in looked])
    weight = np.concatenate([np.full(len(one.rows), one.weight) for one in looked])
    subjects = cohort.subjects[rows]
    count = len(np.unique(subjects))
    line = {"modality": cohort.modalities[place], "n": len(rows), "subjects": count, "few": count < ENOUGH}
    if count < ENOUGH:
        return line | dict.fromkeys(WORTH)
    ends = of_mean(np.concatenate(gains, axis=1).T, subjects, weight)
    means = zip(("bits", "accuracy"), *ends, strict=True)
    return line | {
        name + end: float(value)
        for name, *three in means
        for end, value in zip(("", "_low", "_high"), three, strict=True)
    }


def _patients(cohort: Cohort, looked: Sequence[Looked]) -> Iterator[dict[str, Any]]:
    """A line for each sample and modality it has."""
    for one in looked:
        label = Combination.of(one.mask).label(cohort.modalities)
        for number, row in enumerate(one.rows.tolist()):
            for place in np.flatnonzero(one.mask).tolist():
                bits = float(one.values[0, number, place])
                named = {"id": cohort.ids[row], "combination": label, "modality": cohort.modalities[place]}
                yield named | {"bits": bits}


def _says(table: pl.DataFrame, following: pl.DataFrame, modalities: Sequence[str]) -> list[str]:
    """Of each run: modalities by worth, and the step from one combination that adds most."""
    says = [
        "Bits are of the true class's probability, above what the classes' shares say; means over patients. Most sets "
        "of modalities that are left were never seen in training, so a value is of the modality to this model, not of "
        "the modality as such; below 0, the model is better off without it."
    ]
    for (method, seed), lines in table.filter(combination="overall", few=False).group_by(
        "method", "seed", maintain_order=True
    ):
        ranked = lines.sort("bits", descending=True)
        listed = [f"{line['modality']} {_interval(line, 'bits')}" for line in ranked.iter_rows(named=True)]
        says.append(f"{method}, seed {seed}: {'; '.join(listed)}.")
        judged = following.filter(method=method, seed=seed, few=False)
        steps = judged.filter(pl.col("bits_low") > 0)
        if steps.height:
            best = steps.sort("bits", descending=True).row(0, named=True)
            says.append(
                f"{method}, seed {seed}: the next modality that adds most is {best['modality']}, for those with "
                f"{brief(best['combination'], modalities)}: {_interval(best, 'bits')} bits, seen in {best['subjects']} "
                f"patients who have it; the most of {len(judged)} steps, so in part luck."
            )
    return says


def _interval(line: Mapping[str, Any], name: str) -> str:
    return f"{line[name]:+.3f} [{line[f'{name}_low']:+.3f}, {line[f'{name}_high']:+.3f}]"


def _figure(table: pl.DataFrame, title: str) -> Figure:
    """Overall values with their intervals, in bits and in accuracy; a colour a method, of its first run."""
    lines = table.filter(combination="overall", few=False).unique(
        ["method", "modality"], keep="first", maintain_order=True
    )
    worth = lines.group_by("modality", maintain_order=True).agg(pl.mean("bits")).sort("bits", descending=True)
    names, methods = worth["modality"].to_list(), lines["method"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(7.6, 1.3 + 0.34 * max(len(names), 1)), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False)
    for axes, what, words in zip(figure.subplots(1, 2, sharey=True), ("bits", "accuracy"), XLABELS, strict=True):
        for line in lines.iter_rows(named=True):
            number = methods.index(line["method"])
            y = names.index(line["modality"]) + 0.5 * ((number + 0.5) / len(methods) - 0.5)
            spread = [[line[what] - line[f"{what}_low"]], [line[f"{what}_high"] - line[what]]]
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number % len(MARKS)], "markersize": 5}
            label = line["method"] if line["modality"] == names[0] else None
            axes.errorbar(line[what], y, xerr=spread, linestyle="none", capsize=2, elinewidth=1.2, label=label, **style)
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.set_xlabel(words, fontsize=8.5)
        axes.tick_params(labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", linewidth=0.4, alpha=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
    if names:
        figure.axes[0].set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
        figure.axes[0].set_ylim(len(names) - 0.5, -0.5)
    if len(methods) > 1:
        figure.axes[1].legend(frameon=False, fontsize=8)
    return figure
