"""Analyses that train suites: extreme missingness, the ablation, sensitivity. Their numbers are those of the runs."""

import json
import shutil
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from remind.analysis.ablation import ABLATIONS, ablation
from remind.analysis.extreme_missingness import extreme_missingness
from remind.analysis.sensitivity import SETTINGS, UNCHANGED, arms_of, sensitivity
from remind.api import fit
from remind.cohort.cohort import load
from remind.config import load_recipe
from remind.errors import RemindError
from remind.sources.synthetic import write
from remind.suite import compare
from remind.suite.plan import Job, Outcome

SEEDS = (0, 1)
METRICS = ("accuracy", "macro_f1", "macro_auroc")


def run_here(job, children):
    """A run of a suite in this process; that it is the same in one of its own is tested with ``compare``."""
    try:
        fit(job.cohort, job.method, seed=job.seed, recipe=job.recipe, out=job.out)
    except RemindError as error:
        return Outcome(job.name, "failed", str(error), 0.0)
    return Outcome(job.name, "finished", None, 0.0)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Suites without processes and without simple models beside."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Job, "run", run_here)
        patched.setattr(compare, "REFERENCES", {})
        yield


class Told:
    """What was told of each run."""

    def __init__(self):
        self.runs: dict[str, str] = {}
        self.totals: set[int] = set()

    def __call__(self, outcome, total):
        assert outcome.name not in self.runs
        self.runs[outcome.name] = outcome.state
        self.totals.add(total)


def times(place):
    """When each file of a run was written."""
    return {path: path.stat().st_mtime_ns for path in place.rglob("*seed*/*") if path.is_file()}


def line(table, metric="accuracy", **names) -> dict[str, Any]:
    """The one line of a table that these names are of."""
    return table.row(
        by_predicate=pl.all_horizontal(pl.col(k) == v for k, v in (names | {"metric": metric}).items()), named=True
    )


def same_scores(found, score):
    """Whether a line's mean, deviation and seeds are those of these values by seed."""
    values = [value for value in score.values() if value is not None]
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["std"] == pytest.approx(np.std(values, ddof=1))
    assert found["seeds"] == [int(seed) for seed in score]


def same_difference(found, said):
    assert {key: found[key] for key in ("difference", "low", "high", "p_holm", "verdict")} == {
        key: said.get(key) for key in ("difference", "low", "high", "p_holm", "verdict")
    }


@pytest.fixture(scope="module")
def extreme(folder, tiny, tmp_path_factory):
    out, told = tmp_path_factory.mktemp("extreme"), Told()
    settings = {"modalities": ("m2", "m3"), "share": 0.6, "seeds": SEEDS, "overrides": tiny}
    return out, extreme_missingness(folder, out, told=told, **settings), told, settings


def test_every_modality_has_a_suite_and_every_run_is_told_of(extreme):
    _, _, told, _ = extreme
    assert told.totals == {8}
    assert told.runs == {
        f"{place}/{method}-seed{seed}": "finished"
        for place in ("2-m2", "3-m3")
        for method in ("soft-moe", "remind")
        for seed in SEEDS
    }


def test_the_share_removed_is_exact_and_the_parts_are_all(extreme, cohort):
    out, found, *_ = extreme
    full = cohort.available.all(axis=1)
    for number, modality in ((2, "m2"), (3, "m3")):
        masked = load(out / f"{number}-{modality}" / "cohort")
        assert len(masked) == full.sum()
        assert (~masked.available).sum(axis=0).tolist() == [
            int(0.6 * full.sum() + 0.5) if name == modality else 0 for name in masked.modalities
        ]
        there = masked.available[masked.rows("test"), number - 1]
        for method in ("soft-moe", "remind"):
            sizes = {
                part: line(found.table, modality=modality, part=part, method=method)["n"]
                for part in ("overall", "available", "absent")
            }
            assert sizes == {"overall": len(there), "available": there.sum(), "absent": (~there).sum()}
        assert any(f"{(~masked.available).sum()} of {full.sum()} complete samples lose {modality};" in say
                   for say in found.says)  # fmt: skip


def test_extreme_scores_are_those_of_the_suites(extreme):
    out, found, *_ = extreme
    assert found.table.height == 2 * 3 * 2 * 3
    for place, modality, without in (("2-m2", "m2", "m1+m3+m4"), ("3-m3", "m3", "m1+m2+m4")):
        suite = out / place / "suite"
        rows = {row["row"]: row for row in json.loads((suite / "comparison.json").read_text())["rows"]}
        for method in ("soft-moe", "remind"):
            runs = {seed: json.loads((suite / f"{method}-seed{seed}/metrics.json").read_text()) for seed in SEEDS}
            for part, name in (("overall", "overall"), ("available", "m1+m2+m3+m4"), ("absent", without)):
                for metric in METRICS:
                    here = line(found.table, metric, modality=modality, part=part, method=method)
                    own = {
                        seed: metrics["overall"][metric]
                        if part == "overall"
                        else next(one[metric] for one in metrics["combinations"] if one["combination"] == name)
                        for seed, metrics in runs.items()
                    }
                    same_scores(here, own)
                    same_difference(here, rows[name]["differences"].get(method, {}).get(metric, {}))
                    assert (here["verdict"] is None) or method == "soft-moe"


def test_the_same_extreme_call_trains_nothing(extreme, folder):
    out, found, _, settings = extreme
    before, told = times(out), Told()
    again = extreme_missingness(folder, out, told=told, **settings)
    assert set(told.runs.values()) == {"there"}
    assert times(out) == before
    assert again.table.equals(found.table)
    assert again.says == found.says


def test_a_run_that_fails_is_named(extreme, folder, tmp_path):
    out, _, _, settings = extreme
    place = shutil.copytree(out / "2-m2", tmp_path / "2-m2") / "suite" / "soft-moe-seed2"
    place.mkdir()
    (place / "thesis.txt").write_text("mine")
    alone = {"modalities": ["m2"], "methods": ["soft-moe"], "seeds": (0, 2)}
    with pytest.raises(RemindError, match=r"2-m2/suite/soft-moe-seed2: .*is not empty and is not a run"):
        extreme_missingness(folder, tmp_path, **settings | alone)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"share": 0.5}, r"2-m2.cohort: was masked with share 0.6, not 0.5; name another folder"),
        ({"modalities": ["m1", "m7"]}, "unknown modality 'm7'"),
        ({"modalities": []}, "at least one modality"),
        ({"modalities": ["m1", "m1"]}, "none twice"),
        ({"methods": ["remynd"], "modalities": ["m1"]}, "Did you mean 'remind'"),
        ({"seeds": (0, 0), "modalities": ["m1"]}, "none twice"),
        ({"overrides": ["train.lr=-1"], "modalities": ["m1"]}, "train.lr"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(extreme, folder, changed, said):
    out, _, _, settings = extreme
    before = sorted(out.rglob("*"))
    with pytest.raises(RemindError, match=said):
        extreme_missingness(folder, out, **settings | changed)
    assert sorted(out.rglob("*")) == before


def test_a_masking_of_another_cohort_or_a_damaged_one_is_refused(extreme, tiny, tmp_path):
    out, _, _, settings = extreme
    other = write(tmp_path / "other", samples=300, seed=1)
    with pytest.raises(RemindError, match="was made of another cohort"):
        extreme_missingness(other, out, **settings)
    (tmp_path / "out" / "2-m2" / "cohort").mkdir(parents=True)
    with pytest.raises(RemindError, match=r"mask\.json: is missing or damaged"):
        extreme_missingness(other, tmp_path / "out", **settings)


def test_without_complete_samples_there_is_nothing_to_remove(tiny, tmp_path):
    cohort = write(tmp_path / "c", samples=100, modalities=2, shares={"m1": 0.5, "m2": 0.5})
    with pytest.raises(RemindError, match="no sample has every modality"):
        extreme_missingness(cohort, tmp_path / "out", seeds=SEEDS, overrides=tiny)
    assert not (tmp_path / "out").exists()


def test_a_modality_may_be_called_anything(tiny, tmp_path):
    """Names that are no folders, or alike as such; one seed, one method, and nobody left who has the modality."""
    names = ["a\\b:*", "a$b$*", "\u00e9" * 300]
    place = write(tmp_path / "c", samples=120, modalities=3, available=[0.9, 0.9, 0.9])
    spec = yaml.safe_load((place / "cohort.yaml").read_text())
    spec["modalities"] = dict(zip(names, spec["modalities"].values(), strict=True))
    (place / "cohort.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    found = extreme_missingness(place, tmp_path / "out", share=1.0, methods=["soft-moe"], seeds=(3,), overrides=tiny)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1-a_b__", "2-a_b__", "3-" + "_" * 40]
    assert found.table["modality"].unique(maintain_order=True).to_list() == names
    assert found.table["part"].unique(maintain_order=True).to_list() == ["overall", "absent"]
    assert found.table["difference"].null_count() == found.table["std"].null_count() == found.table.height
    assert found.table["seeds"].to_list() == [[3]] * found.table.height
    assert len(found.says) == 1
    assert found.save(tmp_path / "found")[2].stat().st_size > 5000


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A cohort of three modalities: few combinations to be judged."""
    return write(tmp_path_factory.mktemp("few") / "c", samples=300, modalities=3)


@pytest.fixture(scope="module")
def ablated(few, tiny, tmp_path_factory):
    out, told = tmp_path_factory.mktemp("ablation") / "suite", Told()
    return out, ablation(few, out, seeds=SEEDS, overrides=tiny, told=told), told


def test_ablation_scores_are_those_of_the_suite(ablated):
    out, found, told = ablated
    assert told.totals == {8}
    rows = json.loads((out / "comparison.json").read_text())["rows"]
    rows = {row["row"]: row for row in rows if row["kind"] is None and row["row"] != "worst"}
    assert found.table["part"].unique(maintain_order=True).to_list() == list(rows)
    assert found.table.height == len(rows) * len(ABLATIONS) * len(METRICS)
    for method in ABLATIONS:
        runs = {seed: json.loads((out / f"{method}-seed{seed}/metrics.json").read_text()) for seed in SEEDS}
        for part, row in rows.items():
            for metric in METRICS:
                here = line(found.table, metric, part=part, method=method)
                assert here["n"] == row["n"]
                same_scores(here, {seed: metrics[part][metric] for seed, metrics in runs.items()})
                same_difference(here, row["differences"].get(method, {}).get(metric, {}))


def test_what_the_ablation_says_is_what_its_table_holds(ablated):
    _, found, _ = ablated
    assert found.says[0].startswith("Seeds 0, 1; differences to REMIND")
    assert [say.partition(":")[0] for say in found.says[1:]] == [arm for arm in ABLATIONS.values() if arm != "REMIND"]
    for method, say in zip([name for name in ABLATIONS if name != "remind"], found.says[1:], strict=True):
        for part in ("tail", "overall"):
            here = line(found.table, part=part, method=method)
            verdict = "a tie" if here["verdict"] == "tie" else here["verdict"]
            interval = f"[{here['low']:+.3f}, {here['high']:+.3f}]"
            assert f"{part} accuracy {here['difference']:+.3f} {interval}, {verdict}" in say


def test_the_same_ablation_trains_nothing(ablated, few, tiny):
    out, found, _ = ablated
    before, told = times(out), Told()
    again = ablation(few, out, seeds=SEEDS, overrides=tiny, told=told)
    assert set(told.runs.values()) == {"there"}
    assert times(out) == before
    assert again.table.equals(found.table)


@pytest.fixture(scope="module")
def swept(few, tiny, tmp_path_factory):
    """A recipe that sets two of the settings, one to a value that is not among those tried."""
    out, told = tmp_path_factory.mktemp("sensitivity"), Told()
    overrides = [*tiny, "objectives.group_dro.step_size=0.05", "fusions.remind.gate=always"]
    return out, sensitivity(few, out, seeds=SEEDS, overrides=overrides, told=told), told, overrides


def leaves(document, path=""):
    """A nested mapping as keys with dots."""
    if not isinstance(document, dict):
        return {path: document}
    return {key: value for name, one in document.items() for key, value in leaves(one, f"{path}.{name}").items()}


@pytest.mark.slow
def test_the_recipe_is_trained_once_and_every_arm_changes_one_setting(swept):
    out, _, told, _ = swept
    suites = sorted(path.name for path in out.iterdir())
    changes = {
        "step-size": ("0.5", "0.1", "0.02"),
        "experts": ("2", "8"),
        "imputation": ("none",),
        "imputation-start": ("zeros",),
        "residual-init": ("sinusoidal",),
        "gate": ("joint", "expert", "kl", "off"),
    }
    arms = [f"{setting}-{value}" for setting, values in changes.items() for value in values]
    assert suites == sorted([UNCHANGED, *arms])
    assert told.runs == {f"{suite}/remind-seed{seed}": "finished" for suite in suites for seed in SEEDS}
    assert told.totals == {len(suites) * len(SEEDS)}
    keys = {setting.replace(" ", "-"): key for setting, (key, _) in SETTINGS.items()}
    for suite in arms:
        for seed in SEEDS:
            own, base = (
                leaves(yaml.safe_load((out / name / f"remind-seed{seed}/config.yaml").read_text())["recipe"])
                for name in (suite, UNCHANGED)
            )
            changed = {key for key in own if own[key] != base.get(key)}
            setting, _, value = suite.rpartition("-")
            assert changed == {"." + keys[setting]}
            assert base.keys() - own.keys() <= {".fusions.remind", ".objectives.group_dro"}  # empty before
            assert str(own["." + keys[setting]]) == value


@pytest.mark.slow
def test_of_every_setting_one_value_is_the_recipes(swept):
    _, found, *_ = swept
    values = found.table.filter("recipe").group_by("setting").agg(pl.col("value").unique())
    assert {row["setting"]: row["value"] for row in values.iter_rows(named=True)} == {
        "step size": ["0.05"],
        "experts": ["4"],
        "imputation": ["group"],
        "imputation start": ["normal"],
        "residual init": ["zeros"],
        "gate": ["always"],
    }
    assert found.table.filter("recipe")["difference"].is_null().all()
    arms = arms_of(load_recipe(None, ["model.experts=1", "fusions.remind.experts=6"]))
    assert [(arm.value, arm.suite) for arm in arms if arm.setting == "experts"] == [
        ("3", "experts-3"),
        ("6", UNCHANGED),
        ("12", "experts-12"),
    ]


@pytest.mark.slow
def test_sensitivity_scores_are_those_of_the_runs_and_differences_are_paired(swept, few):
    """Against a loop over seeds and samples; the tail by the shares in training."""
    out, found, *_ = swept
    arms = {arm.suite: arm for arm in arms_of(load_recipe(None, swept[3]))}
    cohort = load(few)
    tail = {name for name, rare in zip(cohort.groups.labels(), cohort.groups.tail, strict=True) if rare}
    for suite, arm in arms.items():
        runs = {seed: json.loads((out / suite / f"remind-seed{seed}/metrics.json").read_text()) for seed in SEEDS}
        for part in ("overall", "tail"):
            for metric in METRICS:
                here = line(found.table, metric, setting=arm.setting, value=arm.value, part=part)
                same_scores(here, {seed: metrics[part][metric] for seed, metrics in runs.items()})
    for part in ("overall", "tail"):
        gains = []
        for seed in SEEDS:
            right: dict[str, dict[str, bool]] = {}
            for suite in ("experts-8", UNCHANGED):
                table = pl.read_parquet(out / suite / f"remind-seed{seed}" / "predictions.parquet")
                classes = [name for name in table.columns if name.startswith("p_")]
                right[suite] = {
                    row["id"]: int(np.argmax([row[name] for name in classes])) == row["target"]
                    for row in table.iter_rows(named=True)
                    if row["split"] == "test" and (part == "overall" or row["combination"] in tail)
                }
            gains += [right["experts-8"][one] - right[UNCHANGED][one] for one in right[UNCHANGED]]
        here = line(found.table, setting="experts", value="8", part=part)
        assert here["difference"] == pytest.approx(np.mean(gains))
        assert here["n"] == len(gains) / len(SEEDS)
        assert here["low"] <= here["difference"] <= here["high"]
    assert sum(say.startswith("experts 8: overall accuracy") for say in found.says) == 1


@pytest.mark.slow
def test_the_same_sweep_trains_nothing_and_another_recipe_needs_another_folder(swept, few, tmp_path):
    out, found, _, overrides = swept
    before, told = times(out), Told()
    again = sensitivity(few, out, seeds=SEEDS, overrides=overrides, told=told)
    assert set(told.runs.values()) == {"there"}
    assert times(out) == before
    assert again.table.equals(found.table)
    assert [path.name for path in again.save(tmp_path)] == [
        f"sensitivity.{kind}" for kind in ("parquet", "json", "png", "svg")
    ]
    with pytest.raises(RemindError, match="other settings"):
        sensitivity(few, out, seeds=SEEDS, overrides=[*overrides, "train.lr=0.5"])
