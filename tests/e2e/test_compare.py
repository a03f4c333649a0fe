"""``remind compare`` end to end: runs side by side, what fails, what is there already, and the tables it writes."""

import csv
import io
import json
import shlex
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
import yaml

from remind.api import fit
from remind.config import load_recipe
from remind.engine.fitted import FittedModel
from remind.errors import RemindError
from remind.evaluation.report import evaluate_predictions
from remind.report.comparison import METRICS, comparison_files, lines, markdown
from remind.report.paper import paper_figures
from remind.sources.synthetic import write
from remind.suite.compare import compare
from remind.suite.plan import Children, Job


def bits(place):
    return {path.relative_to(place): path.read_bytes() for path in sorted(place.rglob("*.safetensors"))}


@pytest.fixture(scope="module")
def suite(folder, tiny, tmp_path_factory):
    """Two methods under two seeds, two at a time."""
    out, told = tmp_path_factory.mktemp("suite") / "s", []
    result = compare(
        folder,
        ["soft-moe", "remind"],
        (0, 1),
        overrides=tiny,
        out=out,
        jobs=2,
        replicates=200,
        told=lambda outcome, total: told.append((outcome, total)),
    )
    return out, result, told


def test_every_run_is_trained_and_told_of(suite):
    out, result, told = suite
    names = {f"{method}-seed{seed}" for method in ("soft-moe", "remind") for seed in (0, 1)}
    assert {outcome.name for outcome, _ in told} == names
    assert {outcome.state for outcome, _ in told} == {"finished"}
    assert {total for _, total in told} == {4}
    assert result["failed"] == {}
    assert result["methods"] == ["soft-moe", "remind", "logistic-regression", "gradient-boosting"]
    assert json.loads((out / "comparison.json").read_text()) == result | {"failed": []}
    for name in names:
        method, seed = name.split("-seed")
        recipe = yaml.safe_load((out / name / "config.yaml").read_text())["recipe"]
        assert (recipe["method"], recipe["seed"]) == (method, int(seed))


def test_the_scores_are_those_of_the_runs(suite):
    out, result, _ = suite
    for row in result["rows"]:
        for method in ("soft-moe", "remind"):
            for seed in (0, 1):
                metrics = json.loads((out / f"{method}-seed{seed}" / "metrics.json").read_text())
                whole = row["row"] if row["kind"] is None else None
                found = metrics[whole] if whole else None
                if found is None:
                    found = next(line for line in metrics["combinations"] if line["combination"] == row["row"])
                for metric in METRICS:
                    assert row["scores"][method][metric]["seeds"].get(str(seed)) == found[metric]


def test_a_run_of_a_suite_is_the_run_that_train_makes(suite, folder, tiny_words, remind, tmp_path):
    out, *_ = suite
    done = remind("train", folder, "-m", "remind", "--seed", 1, "--out", tmp_path / "alone", *tiny_words)
    assert done.code == 0, done.said
    assert bits(tmp_path / "alone") == bits(out / "remind-seed1")


def test_the_same_call_trains_nothing_again_and_says_the_same(suite, folder, tiny):
    out, result, _ = suite
    before, told = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}, []
    again = compare(
        folder,
        ["soft-moe", "remind"],
        (0, 1),
        overrides=tiny,
        out=out,
        replicates=200,
        told=lambda o, _: told.append(o),
    )
    assert again == result
    assert {outcome.state for outcome in told} == {"there"}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before


def test_a_method_and_a_seed_can_be_added(suite, folder, tiny, tmp_path):
    out, *_ = suite
    place = shutil.copytree(out, tmp_path / "more")
    told = []
    more = compare(folder, ["remind", "group-dro"], (1,), overrides=tiny, out=place, told=lambda o, _: told.append(o))
    assert {o.name: o.state for o in told} == {"remind-seed1": "there", "group-dro-seed1": "finished"}
    assert more["methods"][:2] == ["remind", "group-dro"]
    assert more["seeds"] == [1]


def test_other_settings_need_another_folder(suite, folder, tiny):
    out, *_ = suite
    with pytest.raises(RemindError, match="other settings"):
        compare(folder, ["remind"], (0,), overrides=[*tiny, "train.lr=0.5"], out=out)
    with pytest.raises(RemindError, match="not a suite"):
        compare(folder, ["remind"], (0,), overrides=tiny, out=out / "remind-seed0")


def test_runs_of_a_cohort_that_has_changed_are_not_compared(suite, folder, tiny, tmp_path):
    out, *_ = suite
    changed = shutil.copytree(folder, tmp_path / "cohort")
    table = pl.read_parquet(changed / "samples.parquet")
    table.with_columns(pl.col(pl.Float32, pl.Float64) + 1).write_parquet(changed / "samples.parquet")
    place = shutil.copytree(out, tmp_path / "suite")
    with pytest.raises(RemindError, match=r"no run finished.*holds another run"):
        compare(changed, ["soft-moe", "remind"], (0,), overrides=tiny, out=place)


def test_a_run_that_fails_is_told_and_the_others_go_on(folder, tiny_words, remind, tmp_path):
    """The folder of one run is a stranger's; the seeds' other runs end, and the exit code says that not all is well."""
    (tmp_path / "s" / "soft-moe-seed0").mkdir(parents=True)
    words = ("compare", folder, "-m", "soft-moe,remind", "--seeds", "0,1", "--out", tmp_path / "s", *tiny_words)
    done = remind(*words)
    assert done.code == 2
    assert "not a suite" in done.err
    shutil.rmtree(tmp_path / "s")
    first = remind("compare", folder, "-m", "remind", "--seeds", "0", "--out", tmp_path / "s", *tiny_words)
    assert first.code == 0, first.said
    (tmp_path / "s" / "soft-moe-seed0").mkdir()
    (tmp_path / "s" / "soft-moe-seed0" / "thesis.txt").write_text("mine")
    done = remind(*words)
    assert done.code == 1
    assert "soft-moe-seed0: failed:" in done.out
    assert "is not empty and is not a run" in done.out
    result = json.loads((tmp_path / "s" / "comparison.json").read_text())
    assert result["failed"] == ["soft-moe-seed0"]
    assert result["rows"][-1]["scores"]["soft-moe"]["accuracy"]["seeds"].keys() == {"1"}
    assert result["rows"][-1]["scores"]["remind"]["accuracy"]["seeds"].keys() == {"0", "1"}
    text = (tmp_path / "s" / "comparison.md").read_text()
    assert "- soft-moe-seed0" in text
    assert "is not empty" not in text  # reasons may name samples; they are for the terminal
    assert "(1 of 2 seeds)" in text
    assert "thesis.txt" in {path.name for path in (tmp_path / "s" / "soft-moe-seed0").iterdir()}


def test_a_run_that_is_killed_is_told_and_goes_on_when_asked_again(folder, tiny, tmp_path, monkeypatch):
    """One of two runs is killed at its fifth step; the other ends, and the next call takes the first up there."""
    job = {"cohort": str(folder), "out": str(tmp_path / "s" / "remind-seed0"), "moment": "step", "count": 5}
    overrides = [*tiny, "train.checkpoint_every=2", "train.threads=1"]
    job |= {"overrides": [*overrides, "method=remind", "seed=0"]}
    killer = f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import killed; "
    killer += f"killed.train(json.loads({json.dumps(job)!r}))"
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
if echo "$*" | grep -q remind-seed0 && mkdir {tmp_path}/once 2> /dev/null; then
    exec {sys.executable} -c {shlex.quote(killer)}
fi
exec {sys.executable} "$@"
"""
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    settings = {"overrides": overrides, "replicates": 200}
    result = compare(folder, ["soft-moe", "remind"], (0,), out=tmp_path / "s", jobs=2, **settings)
    reason = "its process was ended by signal 9; run the same command to go on."
    assert result["failed"] == {"remind-seed0": reason}
    assert result["methods"][0] == "soft-moe"
    assert (tmp_path / "s" / "remind-seed0" / "checkpoint" / "last").exists()
    again = compare(folder, ["soft-moe", "remind"], (0,), out=tmp_path / "s", **settings)
    assert again["failed"] == {}
    whole = load_recipe(None, overrides, method="remind", seed=0)
    fit(folder, recipe=whole, out=tmp_path / "whole")
    assert bits(tmp_path / "s" / "remind-seed0") == bits(tmp_path / "whole")


def test_what_is_compared_is_checked_before_anything_is_trained(folder, tiny, tmp_path):
    for settings, said in (
        ({"reference": "remynd"}, "Did you mean 'remind'"),
        ({"on": "slurm"}, "unknown place"),
        ({"jobs": 0}, "at least one"),
        ({"replicates": 50}, "told from chance"),
        ({"methods": "remynd"}, "unknown method 'remynd'"),
    ):
        with pytest.raises(RemindError, match=said):
            compare(
                folder, **{"methods": ["remind"], "seeds": (0,), "overrides": tiny, "out": tmp_path / "s"} | settings
            )
    assert not (tmp_path / "s").exists()


def test_a_finished_run_that_is_damaged_is_told_and_the_others_are_compared(suite, folder, tiny, tmp_path):
    out, *_ = suite
    place = shutil.copytree(out, tmp_path / "s")
    (place / "remind-seed1" / "predictions.parquet").write_bytes(b"PAR1")
    other = yaml.safe_load((place / "soft-moe-seed1" / "config.yaml").read_text())
    other["recipe"]["train"]["epochs"] = 1  # trained by hand into this folder, say
    (place / "soft-moe-seed1" / "config.yaml").write_text(yaml.safe_dump(other))
    result = compare(folder, ["soft-moe", "remind"], (0, 1), overrides=tiny, out=place, replicates=200)
    assert result["failed"].keys() == {"remind-seed1", "soft-moe-seed1"}
    assert "damaged" in result["failed"]["remind-seed1"]
    assert "train.epochs" in result["failed"]["soft-moe-seed1"]
    assert result["seeds"] == [0]


def test_whatever_ends_a_suite_ends_its_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text(f"#!/bin/sh\necho begun >> {tmp_path}/log\nexec sleep 60\n")
    (tmp_path / "python").chmod(0o755)
    jobs = [Job(tmp_path, "remind", seed, tmp_path, tmp_path / f"remind-seed{seed}", 1) for seed in range(3)]
    children = Children()
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(job.run, children) for job in jobs[:2]]
        while not (tmp_path / "log").exists() or (tmp_path / "log").read_text().count("begun") < 2:
            time.sleep(0.05)
        begun = time.monotonic()
        children.end()
        late = jobs[2].run(children)
        outcomes = [one.result() for one in running]
    assert time.monotonic() - begun < 20
    assert [one.reason for one in outcomes] == [
        "its process was ended by signal 15; run the same command to go on."
    ] * 2
    assert late.reason == "was not begun."
    assert (tmp_path / "log").read_text().count("begun") == 2


@pytest.mark.slow
def test_on_ray_the_runs_are_those_of_this_machine(suite, folder, tiny, tmp_path):
    pytest.importorskip("ray")
    out, result, _ = suite
    told = []
    found = compare(
        folder,
        ["soft-moe", "remind"],
        (0, 1),
        overrides=tiny,
        out=tmp_path / "ray",
        on="ray",
        replicates=200,
        told=lambda outcome, _: told.append(outcome),
    )
    assert found == result
    assert {outcome.state for outcome in told} == {"finished"}
    for name in ("soft-moe-seed0", "remind-seed1"):
        assert bits(tmp_path / "ray" / name) == bits(out / name)


@pytest.mark.slow
def test_on_ray_a_run_that_fails_is_told_and_the_others_go_on(folder, tiny, tmp_path):
    pytest.importorskip("ray")
    compare(folder, ["remind"], (0,), overrides=tiny, out=tmp_path / "s", replicates=200)
    (tmp_path / "s" / "soft-moe-seed0").mkdir()
    (tmp_path / "s" / "soft-moe-seed0" / "thesis.txt").write_text("mine")
    result = compare(
        folder, ["soft-moe", "remind"], (0, 1), overrides=tiny, out=tmp_path / "s", on="ray", replicates=200
    )
    assert result["failed"].keys() == {"soft-moe-seed0"}
    assert "is not empty" in result["failed"]["soft-moe-seed0"]


@pytest.mark.slow
def test_no_cluster_at_the_address_is_a_sentence(folder, tiny_words, remind_process, tmp_path):
    pytest.importorskip("ray")
    words = ("--on", "ray", "--address", "127.0.0.1:1", "--out", tmp_path / "s")
    done = remind_process("compare", folder, "-m", "remind", "--seeds", "0", *words, *tiny_words)
    assert done.code == 2
    assert "no Ray cluster at 127.0.0.1:1" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seeds", "0,one"), ("'one'", "whole number")),
        (("--seeds", "0,0"), ("seed", "twice")),
        (("--seeds", ""), ("at least one seed",)),
        (("-m", "remynd"), ("'remynd'", "Did you mean 'remind'?")),
        (("-m", "remind,remind"), ("method", "twice")),
        (("--on", "rye"), ("'rye'", "Did you mean 'ray'?")),
        (("--reference", "remynd"), ("'remynd'", "Did you mean 'remind'?")),
        (("--metric", "auroc"), ("'auroc'", "macro_auroc")),
        (("--seeds", "-1"), ("seed",)),
        (("-s", "train.lr=-1"), ("train.lr",)),
    ],
)
def test_mistakes_are_sentences_and_leave_nothing_behind(folder, remind, tmp_path, words, said):
    done = remind("compare", folder, "--out", tmp_path / "s", *words)
    assert done.code == 2
    for part in said:
        assert part in done.err
    assert not (tmp_path / "s").exists()


def test_tables_say_the_same_in_every_format(suite):
    _, result, _ = suite
    files = comparison_files(result)
    table = list(csv.DictReader(io.StringIO(files["comparison.csv"])))
    assert len(table) == len(METRICS) * len(result["rows"]) * len(result["methods"])
    for line in table:
        row = next(r for r in result["rows"] if (r["row"], r["kind"] or "") == (line["row"], line["kind"]))
        figure = row["scores"][line["method"]][line["metric"]]
        assert line["mean"] == ("" if figure["mean"] is None else str(figure["mean"]))
        said = row["differences"].get(line["method"], {}).get(line["metric"], {})
        assert line["verdict"] == said.get("verdict", "")
    for metric in METRICS:
        for row in lines(result, metric):
            for cell in row.cells.values():
                assert cell.text in files["comparison.md"]
                assert cell.verdict in files["comparison.md"]
                assert cell.seeds[0] == cell.seeds[1]
                assert cell.text.replace("±", r"$\pm$") in files["comparison.tex"]
    assert files["comparison.tex"].count(r"\begin{tabular}") == files["comparison.tex"].count(r"\bottomrule") == 3


def test_of_many_combinations_the_frequent_are_shown_and_the_others_counted(suite):
    _, result, _ = suite
    combinations = [row for row in result["rows"] if row["kind"] is not None]
    text = markdown(result, most=2)
    assert f"{len(combinations) - 2} rarer combinations not shown." in text
    assert text.count("| *overall* |") == len(METRICS)
    tables = text.split("## Differences")[0]
    assert tables.count("\n| ") == len(METRICS) * (1 + 2 + len(result["rows"]) - len(combinations))
    assert "not shown" not in markdown(result)


def test_best_is_bold_second_underlined_and_few_samples_are_not_ranked(suite):
    _, result, _ = suite
    for metric in METRICS:
        for row, line in zip(result["rows"], lines(result, metric), strict=True):
            means = {m: round(c.mean, 3) for m, c in line.cells.items() if c.mean is not None}
            places = {m: line.cells[m].place for m in means}
            if row["few"]:
                assert set(places.values()) <= {None}
                assert line.n.endswith("*")
            elif means:
                ordered = sorted(set(means.values()), reverse=True)
                assert places == {
                    m: {value: place for place, value in enumerate(ordered[:2], 1)}.get(v) for m, v in means.items()
                }


def test_the_papers_figures_stand_beside_ours(tmp_path):
    modalities = ("icd", "text", "labs")  # the paper's names in another order
    found = paper_figures("mimic-iv", modalities)
    assert found["text"]["remind"] == pytest.approx(
        {"accuracy": 0.908, "macro_f1": found["text"]["remind"]["macro_f1"]}
    )
    assert set(found) == {"text", "labs", "text+labs", "icd", "icd+text", "icd+labs", "icd+text+labs", "overall"}
    assert found["overall"]["soft-moe"]["macro_f1"] == 0.58
    embed = paper_figures("embed", ("cview_cc", "cview_mlo", "ffdm_cc", "ffdm_mlo"))
    assert embed["ffdm_cc+ffdm_mlo"]["soft-moe"]["accuracy"] == pytest.approx(0.772)
    assert embed["overall"]["remind-without-dro"] == pytest.approx({"accuracy": 0.805})
    assert paper_figures("mimic-iv", ("text", "labs")) == {}
    assert paper_figures("my-clinic", modalities) == {}


def test_a_cohort_of_the_papers_shows_them_in_its_table(tmp_path, tiny):
    folder = write(tmp_path / "c", samples=300, modalities=3)
    spec = yaml.safe_load((folder / "cohort.yaml").read_text())
    names = dict(zip(spec["modalities"], ("text", "labs", "icd"), strict=True))
    spec |= {"name": "mimic-iv", "modalities": {names[k]: v for k, v in spec["modalities"].items()}}
    (folder / "cohort.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    result = compare(folder, ["remind"], (0,), overrides=tiny, out=tmp_path / "s", replicates=200)
    overall = lines(result, "accuracy")[-1]
    assert "(paper " in overall.cells["remind"].text
    assert "(paper " not in overall.cells["logistic-regression"].text
    assert "(paper " not in lines(result, "macro_auroc")[-1].cells["remind"].text
    assert "(paper " not in next(line for line in lines(result, "accuracy") if line.name == "tail").cells["remind"].text


def test_reference_models_are_scored_as_runs_are(suite, cohort):
    from sklearn.linear_model import LogisticRegression

    from remind.evaluation.references import flat_table, reference_predictions

    out, result, _ = suite
    x = flat_table(cohort)
    assert len(x) == len(cohort)
    training, test = cohort.rows("train"), cohort.rows("test")
    center, spread = x[training].mean(0), x[training].std(0)
    scaled = (x - center) / (spread + (spread == 0))
    by_hand = LogisticRegression(C=0.1, max_iter=2000).fit(scaled[training], cohort.target[training])
    table = reference_predictions(cohort, "logistic-regression", 0)
    columns = [f"p_{name}" for name in cohort.classes]
    assert table.select(columns).to_numpy() == pytest.approx(by_hand.predict_proba(scaled[test]), abs=2e-3)
    scores = evaluate_predictions(
        table, FittedModel.load(out / "remind-seed0" / "checkpoint" / "model").groups, cohort.classes
    )
    shown = result["rows"][-1]["scores"]["logistic-regression"]["accuracy"]["seeds"]
    assert shown == {"0": scores["overall"]["accuracy"], "1": scores["overall"]["accuracy"]}
