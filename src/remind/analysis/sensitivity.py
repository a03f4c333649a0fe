"""How much REMIND's settings matter: one is changed at a time (Table 16)."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from remind.analysis.finding import Finding
from remind.analysis.suites import dot_panels, in_words, one_of, paired, parts_of, score_lines, score_table
from remind.analysis.trained import train_on
from remind.cohort.cohort import load
from remind.config import Recipe, load_recipe
from remind.evaluation.comparison import Run, compare_runs
from remind.fusions import FUSIONS
from remind.objectives import OBJECTIVES
from remind.suite.compare import on_test
from remind.suite.progress import Told

UNCHANGED = "recipe"
EXPERTS = "fusions.remind.experts"  # what counts, wherever the recipe sets it
# By the name a setting goes by: its key, and the values it takes. That of the recipe is always one of them.
SETTINGS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "step size": ("objectives.group_dro.step_size", (0.5, 0.1, 0.02)),
    "experts": (EXPERTS, ()),  # half and double of the recipe's
    "imputation": ("fusions.remind.imputation", ("group", "none")),
    "imputation start": ("fusions.remind.imputation_start", ("normal", "zeros")),
    "residual init": ("fusions.remind.residual_init", ("zeros", "sinusoidal")),
    "gate": ("fusions.remind.gate", ("joint", "expert", "kl", "always", "off")),
}


class Arm(NamedTuple):
    """A value of a setting, and the suite that is trained with it."""

    setting: str
    value: str
    suite: str
    recipe: Recipe


def sensitivity(
    cohort: Path,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 42),
    recipe: str | Path | Recipe | None = None,
    overrides: Iterable[str] = (),
    jobs: int = 1,
    told: Told = lambda outcome, total: None,
) -> Finding:
    """REMIND with one setting changed at a time, each change a suite of its own in ``out``, beside the recipe's.

    The recipe's own value of every setting is one suite, trained once. A threshold of the gate that the recipe sets
    stays when the gate is changed. Holm's correction is for all changes together.

    Raises:
        RemindError: for anything wrong with what is given, or if a run fails.
    """
    settings = load_recipe(recipe, overrides)
    arms = arms_of(settings)
    suites = {UNCHANGED: settings} | {arm.suite: arm.recipe for arm in arms}
    trained = {
        name: train_on(
            cohort,
            ["remind"],
            seeds,
            recipe=changed,
            overrides=(),
            out=out / name,
            jobs=jobs,
            told=one_of(len(suites), name, told),
        )[1]
        for name, changed in suites.items()
    }
    runs = [Run(name, run.seed, on_test(run.folder)) for name, found in trained.items() for run in found]
    loaded, groups = load(cohort), trained[UNCHANGED][0].model().groups
    parts = parts_of(compare_runs(runs, groups, loaded.classes, reference=UNCHANGED))
    table = score_table(
        [
            line | {"recipe": arm.suite == UNCHANGED}
            for arm in arms
            for part in ("overall", "tail")
            if part in parts
            for line in score_lines(parts[part], arm.suite, setting=arm.setting, value=arm.value, part=part)
        ],
        setting=pl.String,
        value=pl.String,
        recipe=pl.Boolean,
        part=pl.String,
    )
    says = [paired(seeds, "the recipe")]
    for arm in arms:
        if arm.suite != UNCHANGED:
            changed = table.filter(pl.col("setting") == arm.setting, pl.col("value") == arm.value)
            says.append(f"{arm.setting} {arm.value}: {in_words(changed)}")
    drawn = table.with_columns(pl.when("recipe").then(pl.col("value") + " (recipe)").otherwise("value").alias("value"))
    title = f"{loaded.spec.name}: REMIND with one setting changed"
    figure = dot_panels(drawn, panel="setting", row="value", series="part", title=title)
    return Finding("sensitivity", table, figure, says)


def arms_of(recipe: Recipe) -> list[Arm]:
    """Every value of every setting, the recipe's own among them."""
    arms = []
    for setting, (key, values) in SETTINGS.items():
        now = _as_it_is(recipe, key)
        tried = (max(1, now // 2), now, 2 * now) if key == EXPERTS else values
        for value in dict.fromkeys((*tried, now)):
            if value == now:
                arms.append(Arm(setting, str(value), UNCHANGED, recipe))
            else:
                changed = load_recipe(recipe, [f"{key}={json.dumps(value)}"])
                arms.append(Arm(setting, str(value), f"{setting} {value}".replace(" ", "-"), changed))
    return arms


def _as_it_is(recipe: Recipe, key: str) -> Any:
    """What a recipe has for a setting of REMIND's, its default included."""
    section, component, name = key.split(".")
    of_fusion = section == "fusions"
    given = recipe.fusion_settings(component) if of_fusion else recipe.objectives.get(component, {})
    registry = FUSIONS if of_fusion else OBJECTIVES
    return registry.check(component, given).get(name, registry.settings(component)[name].default)
