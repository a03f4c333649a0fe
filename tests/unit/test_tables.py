import io

import pytest
from rich.console import Console, RenderableType

from remind.cohort.cohort import load
from remind.cohort.describe import describe_cohort
from remind.methods import METHODS
from remind.report.tables import atlas_table, brief, methods_table, metrics_table, split_table

MODALITIES = ("labs", "text", "scan", "dxa")


def printed(table: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("combination", "words"),
    [
        ("labs+text+scan+dxa", "all"),
        ("labs+text+scan", "all but dxa"),
        ("text+scan+dxa", "all but labs"),
        ("labs+text", "labs+text"),
        ("dxa", "dxa"),
    ],
)
def test_a_combination_has_a_short_name(combination, words):
    assert brief(combination, MODALITIES) == words


def test_all_short_names_differ():
    sets = ["+".join(m for place, m in enumerate(MODALITIES) if bits >> place & 1) for bits in range(1, 16)]
    assert len({brief(name, MODALITIES) for name in sets}) == 15


def test_a_short_name_may_lack_several():
    assert brief("a+b+c", ("a", "b", "c", "d", "e")) == "all but d, e"


def test_one_modality_is_all():
    assert brief("labs", ("labs",)) == "all"


FEW = {"reason": "too few to judge"}


def line(combination, kind, share, n, accuracy):
    held = {"low": 0.25, "high": 0.75} if n >= 10 else FEW
    scores = {"n": n, "accuracy": accuracy, "macro_f1": accuracy, "macro_auroc": None}
    scores |= {"intervals": {"accuracy": held, "macro_f1": FEW, "macro_auroc": FEW}}
    return {"combination": combination, "group": 0, "share": share, "kind": kind, "few": n < 10, **scores}


def run(accuracy):
    lines = [
        line("labs+text+scan+dxa", "head", 0.6, 50, accuracy),
        line("labs", "tail", 0.1, 5, 1.0),
        line("dxa", "unseen", 0.0, 1, 0.0),
    ]
    nothing = {"n": 0, "accuracy": None, "macro_f1": None, "macro_auroc": None, "intervals": {}}
    return {
        "overall": lines[0],
        "head": lines[0],
        "tail": lines[1],
        "unseen": nothing,
        "worst": lines[0],
        "combinations": lines,
    }


def test_a_table_of_metrics_holds_every_combination_and_every_method():
    text = printed(metrics_table("Title", MODALITIES, {"soft-moe": run(0.25), "remind": run(0.75)}))
    rows = {line.split("  ")[0].strip(): line for line in text.splitlines()}
    assert "Title" in text
    assert "soft-moe" in text
    assert "0.250 0.250     -" in rows["all"]
    assert "0.750 0.750     -" in rows["all"]
    assert "5*" in rows["labs"]
    assert "10.0%" in rows["labs"]
    assert "tail" in rows["labs"]
    assert "unseen" in rows["dxa"]
    assert "unseen" not in rows  # the summary of no samples
    assert {"head", "tail", "worst", "overall"} <= rows.keys()


def test_scores_of_a_single_run_stand_above_their_intervals():
    text = printed(metrics_table("Title", MODALITIES, {"remind": run(0.5)}))
    rows = text.splitlines()
    place = next(place for place, row in enumerate(rows) if row.strip().startswith("all "))
    assert "0.500" in rows[place]
    assert rows[place + 1].strip() == "0.25-0.75"
    assert rows[place].index("0.500") == rows[place + 1].index("0.25")
    place = next(place for place, row in enumerate(rows) if row.strip().startswith("labs"))
    assert "0.25" not in rows[place + 1]  # of five patients


def test_what_a_table_does_not_show_it_counts():
    text = printed(metrics_table("Title", MODALITIES, {"remind": run(0.5)}, most=1))
    assert "2 rarer ones" in text
    assert "all" in text
    assert "dxa" not in text


def test_a_run_without_a_worst_combination_has_a_table():
    metrics = {**run(0.5), "worst": None}
    assert "worst" not in printed(metrics_table("Title", MODALITIES, {"remind": metrics}))


def test_the_atlas_counts_combinations_and_modalities(cohort):
    described = describe_cohort(cohort)
    text = printed(atlas_table(described))
    assert "synthetic: 300 samples, 300 subjects, 14 combinations" in " ".join(text.split())
    assert "all but m4" in text
    assert f"{100 * cohort.available[:, 0].mean():.1f}%" in text
    rows = [line for line in printed(atlas_table(described, most=3)).splitlines() if "rarer ones" in line]
    hidden = sum(line["n"] for line in described["combinations"][3:])
    assert str(hidden) in rows[0]


def test_the_splits_count_samples_subjects_and_classes(cohort):
    described = describe_cohort(cohort)
    rows = {line.split()[0]: line.split()[1:] for line in printed(split_table(described)).splitlines() if line.split()}
    for name, split in described["splits"].items():
        assert rows[name] == [str(n) for n in (split["samples"], split["subjects"], *split["classes"].values())]
    assert sum(split["samples"] for split in described["splits"].values()) == 300
    for split in described["splits"].values():
        assert sum(split["classes"].values()) == split["samples"]


def test_the_methods_are_on_one_screen():
    rows = {name: (m.fusion, m.objective, "s", m.says) for name, m in METHODS.items()}
    text = printed(methods_table(rows), width=130)
    assert all(name in text and method.says in text for name, method in METHODS.items())


NAMES = ["[red]", "[/b]", "[bold]x", "a[0]", "a[b]c", "\\[x"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are_and_not_read_as_markup(clinic, name):
    column = {"kind": "tabular", "columns": ["hba1c", "pulse"]}
    folder = clinic(
        name="clinic " + name.replace("/", "").replace("\\", ""),
        label={"column": "grade", "classes": ["none", "mild", name]},
        modalities={name.replace("/", ""): column, "other": {"kind": "tabular", "columns": ["comment"]}},
    )
    described = describe_cohort(load(folder))
    atlas, splits = printed(atlas_table(described)), printed(split_table(described))
    assert "clinic " + name.replace("/", "").replace("\\", "") in " ".join(atlas.split())
    assert f"{name.replace('/', '')} available" in atlas
    assert name in splits


@pytest.mark.parametrize("name", NAMES)
def test_results_are_shown_under_names_as_they_are(name):
    metrics = {**run(0.5), "combinations": [line(name.replace("/", ""), "head", 1.0, 20, 0.5)]}
    text = printed(metrics_table(f"runs/{name}", (name.replace("/", ""), "x", "y"), {name: metrics}))
    assert f"runs/{name}" in text
    assert text.count(name) >= 2  # the column of the method as well
    assert any(row.split()[:1] == [name.replace("/", "")] for row in text.splitlines())
