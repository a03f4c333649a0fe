"""The pages do what they say: every block of each, in order, in a folder that holds what its reader has.

A new page is found by itself. A block that runs is called bash, python or yaml; one called text is read only.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from threading import Lock

import polars as pl
import pytest
import yaml
from conftest import TINY, Done, call
from mimic import crowd
from releases import retina, screening
from typer.main import get_command

from remind.analysis import cost
from remind.api import fit
from remind.cli import app
from remind.cohort.cohort import load
from remind.cohort.missingness import mask
from remind.cohort.spec import read_spec
from remind.config import load_recipe
from remind.sources.synthetic import write
from remind.suite import compare
from remind.suite.plan import Job, Outcome

ROOT = Path(__file__).parents[2]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(\$ )?(remind [a-z]+|make [a-z]+|pip install|python|torchrun) ", re.MULTILINE)
TUTORIAL = "docs/tutorial/index.md"
SLOW = {
    *("README.md", "docs/reference/python.md"),
    *(f"docs/how-to/{name}.md" for name in ("analyze", "many-processes", "paper-data", "report")),
}

# What stands on a page, and what runs in its place.
STAND_INS = {
    "-r demo": "-r tiny.yaml",  # thirty epochs are a minute in all
    'recipe="demo"': 'recipe="tiny.yaml"',
    "0,1,42": "0",
    "0, 1, 42": "0,",
    '"my-clinic", "all"': '"my-clinic", ["soft-moe", "remind"]',
    "--trials 4": "--trials 2",
    "--methods all": "--methods soft-moe,remind",
    "analyze missingness": "analyze missingness --seeds 0",  # three unless one says otherwise
    "analyze unseen": "analyze unseen --seeds 0",
    "analyze ablation": "analyze ablation --seeds 0",
    "analyze sensitivity": "analyze sensitivity --seeds 0",
    "train embed -m remind -r embed": "train my-clinic -m remind -r tiny.yaml",  # 960 million weights
    "/data/": "data/",  # releases, of our own making
    "make demo": f"make -n -C {ROOT} demo",  # sets itself up; paper-data.md runs `remind demo`
    "make test": f"make -n -C {ROOT} test",  # these tests
}
# What does not run, by how it begins. The options of ``remind`` are parsed all the same.
NOT_RUN = {
    "pip install": "needs the network",
    "remind compare embed": "960 million weights a run; test_recipes trains by this recipe on a small release",
    "remind compare masked": "T5's weights are on the network; test_recipes trains by this recipe with random ones",
    "head=$(scontrol": "needs Slurm",
    "srun torchrun": "needs Slurm, and several machines",
}


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Language, title and text of each."""
    found = BLOCK.findall(TEXTS[page])
    assert 2 * len(found) == TEXTS[page].count("```"), "a block is indented, does not end, or names no language"
    return found


def run(page: str, place: Path) -> list[str]:
    """What each block of a page prints."""
    said = []
    for language, title, text in blocks(page):
        if language == "bash":
            lines = text.replace("\\\n", " ").splitlines()
            said.append("\n".join(run_line(line) for line in lines if line and not line.startswith("#")))
        elif language == "python":
            said.append(run_apart(sys.executable, "-c", text))
        elif language == "yaml":
            check_yaml(text, place / (title or "block.yaml"))
        else:
            assert language == "text", f"{language}: call it bash, python or yaml, that it runs, or text"
            assert not COMMAND.search(text), f"call it bash or python, that it runs:\n{text}"
    return said


def run_line(line: str) -> str:
    """What a command prints. ``remind`` runs in this process, which has imported what it needs."""
    words = shlex.split(in_its_place(line), comments=True)
    if any(line.startswith(begin) for begin in NOT_RUN):
        done = call(*words[words.index("remind") + 1 :], "--help") if "remind" in words else Done(0, "", "")
    elif words[0] == "remind":
        done = call(*words[1:])
    else:
        return run_apart("bash", "-ec", line)
    assert done.code == 0, f"{line}\n{done.said}"
    return done.out


def run_apart(*command: str) -> str:
    """What a process prints that sees the folder as its reader would, with our ``remind``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words, environment = [*command[:-1], in_its_place(command[-1])], {**os.environ, "PATH": path}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[-1]}\n{done.stderr}"
    return done.stdout


def check_yaml(text: str, path: Path) -> None:
    """A cohort's spec, or a recipe; it stays there under its title."""
    path.write_text(text, encoding="utf-8")
    read = read_spec if "label" in yaml.safe_load(text) else load_recipe
    read(path)


def in_its_place(text: str) -> str:
    for here, there in STAND_INS.items():
        text = text.replace(here, there)
    return text


def clinics(place: Path) -> None:
    """``new-clinic``; ``my-clinic``, which never trains on one of its combinations; and a recipe that takes no time."""
    write(place / "new-clinic", samples=400, modalities=3, available=[0.7] * 3)
    spec = place / "new-clinic" / "cohort.yaml"
    spec.write_text(spec.read_text().replace("m1:", "labs:").replace("m2:", "note:").replace("m3:", "vitals:"))
    mask(load(place / "new-clinic"), place / "my-clinic", "hold-out", combinations=["note+vitals"])
    recipe = load_recipe(None, [*TINY, "train.threads=1"])
    (place / "tiny.yaml").write_text(yaml.safe_dump(recipe.model_dump()))


def two_runs(place: Path) -> None:
    for method in ("soft-moe", "remind"):
        fit(place / "my-clinic", method, recipe=place / "tiny.yaml", out=place / "runs" / f"{method}-0")


def a_suite(place: Path) -> None:
    """The same two runs, as a suite too."""
    two_runs(place)
    (place / "suites").mkdir()
    (place / "suites" / "my-clinic").symlink_to(place / "runs")


def visits(place: Path) -> None:
    """Those of a hundred patients, and today's, whose grades nobody knows."""
    table = pl.DataFrame(
        {"visit": range(100), "hba1c": [5.0, 6.5] * 50, "ldl": range(100), "grade": ["none", "mild"] * 50}
    )
    table.write_csv(place / "visits.csv")
    table.select("hba1c", "ldl").write_csv(place / "today.csv")


def releases(place: Path) -> None:
    """What the owners hand out; MIMIC-IV's demo is without notes."""
    hospital = crowd()
    for stay in hospital.rows["icu/icustays"]:
        hospital.code(stay["subject_id"], stay["hadm_id"], "4019")
    hospital.write(place / "data" / "mimic-iv")
    crowd().write(place / "data" / "mimic-iv-demo", without=("note/discharge", "note/radiology"))
    screening().write(place / "data" / "embed")
    retina(place / "data" / "fprm")


def the_repository(place: Path) -> None:
    (place / "docs").symlink_to(ROOT / "docs")


HAS: dict[str, Callable[[Path], None]] = {  # what the reader of a page has beside the clinics
    "docs/how-to/analyze.md": two_runs,
    "docs/how-to/predict.md": two_runs,
    "docs/how-to/report.md": a_suite,
    "docs/how-to/paper-data.md": releases,
    "docs/how-to/your-own-data.md": visits,
    TUTORIAL: the_repository,
}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The folder of a page's reader. Suites train in this process, and without simple models beside."""
    one_at_a_time = Lock()

    def run_here(job: Job, children: object) -> Outcome:
        with one_at_a_time:
            fit(job.cohort, job.method, seed=job.seed, recipe=job.recipe, out=job.out)
        return Outcome(job.name, "finished", None, 0.0)

    monkeypatch.setattr(Job, "run", run_here)
    monkeypatch.setattr(compare, "REFERENCES", {})
    monkeypatch.setattr(cost, "apart", cost.measure)
    monkeypatch.chdir(tmp_path)
    clinics(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW))
        for page, text in TEXTS.items()
        if "```" in text and page != TUTORIAL
    ],
)
def test_every_block_of_a_page_runs(page, place):
    HAS.get(page, lambda place: None)(place)
    run(page, place)


@pytest.mark.slow
def test_every_block_of_the_tutorial_runs_and_learns(place):
    HAS[TUTORIAL](place)
    said = run(TUTORIAL, place)
    everything = "\n".join(said)
    assert "nothing is wrong" in everything
    assert "['benign', 'malignant']" in everything
    assert (place / "clinic-atlas.png").stat().st_size > 10_000
    held = re.search(r"overall +142 +([\d.]+)", everything[everything.index("runs/remind: test") :])
    assert held is not None
    assert float(held[1]) > 0.85  # the larger class alone is 0.63
    assert float(said[-2].strip()) > 0.85  # the estimator on two of the modalities


def test_nothing_stands_in_for_what_no_page_says():
    everything = "\n".join(TEXTS.values())
    assert [words for words in (*STAND_INS, *NOT_RUN) if words not in everything] == []


def commands_of_the_reference() -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """The words of each command, and its options; settings of sources and rules are not the command's own."""
    text = TEXTS["docs/reference/command-line.md"].replace("\\|", "|")
    for line in re.findall(r"^\| `remind (.*?)` \|", text, re.MULTILINE):
        named = re.match(r"(?:[a-z|]+ ?)+", line)
        assert named, line
        words = [word.split("|") for word in named[0].split()]
        for command in product(*words):
            yield command[: 2 if command[0] in ("cohort", "analyze") else 1], set(re.findall(r"--[a-z-]+", line))


def test_every_command_and_option_of_the_reference_is_there_and_none_is_left_out():
    known = {}
    for name, command in get_command(app).commands.items():
        for words, one in [((name,), command), *(((name, n), c) for n, c in getattr(command, "commands", {}).items())]:
            if not hasattr(one, "commands"):
                known[words] = {
                    option
                    for param in one.params
                    for option in (*param.opts, *param.secondary_opts)
                    if option.startswith("--")
                }
    said: dict[tuple[str, ...], set[str]] = {}
    for words, options in commands_of_the_reference():
        said[words] = said.get(words, set()) | options
    assert said.keys() == known.keys()
    for words, options in said.items():
        if words not in (("cohort", "make"), ("cohort", "mask"), ("demo",)):
            assert options <= known[words], words
