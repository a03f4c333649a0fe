"""The report in a real browser, without a network: charts drawn, tables sorted, nothing of a user's executed."""

import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
import yaml
from playwright.sync_api import sync_playwright

from remind.api import fit, load_model
from remind.config import load_recipe
from remind.errors import RemindError
from remind.publish import publish
from remind.report.content import gather

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EVERY = {
    *("upset", "methods", "differences", "scores", "reliability", "coverage"),
    *("values", "values_by_combination", "losses", "weights", "gradients", "experts"),
}
HOSTILE = {
    "cohort": "<script>window.hacked=1<script>\"'`{{7*7}}",
    "modality": '"><img\tsrc=x\tonerror=hacked=1>\u202egnp',
    "class": "</script><script>window.hacked=1</script>\n![x](javascript:hacked)|*b*",
    "id": "<svg onload=window.hacked=1>",
    "folder": "<img src=x onerror=window.hacked=1>",
}
browser_only = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def suite(folder, tiny, tmp_path_factory):
    """Two methods on the simulated cohort, and the page of them with all analyses."""
    place = tmp_path_factory.mktemp("report") / "runs"
    for method in ("soft-moe", "remind"):
        fit(folder, recipe=load_recipe(None, tiny, method=method, seed=0), out=place / f"{method}-seed0")
    publish(place, cohort=folder)
    return place


@pytest.fixture(scope="module")
def hostile(tiny, tmp_path_factory):
    """A run of a cohort in which every name is an attack."""
    place, rng = tmp_path_factory.mktemp("hostile"), np.random.default_rng(0)
    names = [HOSTILE["class"], "other\u2029class"]
    target = np.arange(240) % 2
    table = pl.DataFrame(
        {
            "who": [f"{HOSTILE['id']}{n:03d}" for n in range(240)],
            "is": [names[one] for one in target],
            HOSTILE["modality"]: np.where(np.arange(240) % 3 == 0, np.nan, target + rng.normal(0, 1, 240)),
            "plain": np.where(np.arange(240) % 3 == 1, np.nan, target + rng.normal(0, 1, 240)),
        }
    )
    spec = {
        "name": HOSTILE["cohort"],
        "id": "who",
        "label": {"column": "is", "classes": names},
        "modalities": {name: {"kind": "tabular", "columns": [name]} for name in (HOSTILE["modality"], "plain")},
    }
    (place / "cohort").mkdir()
    table.write_parquet(place / "cohort" / "samples.parquet")
    (place / "cohort" / "cohort.yaml").write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    run = place / HOSTILE["folder"]
    fit(place / "cohort", recipe=load_recipe(None, tiny, method="remind", seed=0), out=run)
    publish(run, cohort=place / "cohort")
    return run


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser):
    """Open a report with the network cut; what the console says, and what is asked of the network, must be nothing."""
    said, contexts = [], []

    def at(path, width, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file://") or said.append(request.url))
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("body[data-drawn]", timeout=30_000)
        return page

    yield at
    assert said == []
    for context in contexts:
        context.close()


@browser_only
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_chart_is_drawn_on_a_laptop_and_a_phone(suite, opened, width, scheme):
    page = opened(suite / "report.html", width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.locator(".chart").all()
    drawn = [box.get_attribute("id").removeprefix("chart-") for box in boxes]
    assert set(drawn) == EVERY
    for name, box in zip(drawn, boxes, strict=True):
        marks = box.locator("svg .mark-symbol path, svg .mark-rect path, svg .mark-line path, svg .mark-rule line")
        assert marks.count() > 2, name
        size = box.locator("svg").first.bounding_box()
        assert 100 < size["width"] <= width, name
        assert size["height"] > 60, name


@browser_only
@pytest.mark.parametrize("width", [1280, 390])
def test_a_chart_answers_to_hovering_and_to_a_choice(suite, opened, width):
    page = opened(suite / "report.html", width)
    page.locator("#chart-scores svg .mark-symbol path").first.hover()
    tip = page.locator("#vg-tooltip-element")
    tip.wait_for(state="visible")
    assert "patients" in tip.inner_text()
    before = page.locator("#chart-scores svg").inner_html()
    page.locator("#chart-scores select").select_option("Macro AUROC")
    page.wait_for_function("before => document.querySelector('#chart-scores svg').innerHTML !== before", arg=before)


@browser_only
def test_a_heading_sorts_its_table_by_numbers_and_back(suite, opened):
    page = opened(suite / "report.html", 1280)
    table = page.locator("#results table")

    def column():
        cells = table.locator("tbody tr td:nth-child(5)").all()
        return [float(value) for cell in cells if (value := cell.get_attribute("data-sort"))]

    head = table.locator("th").nth(4)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column() == sorted(column(), reverse=True)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column() == sorted(column())
    table.locator("th").first.locator("button").click()
    names = table.locator("tbody tr td:first-child").all_inner_texts()
    assert names == sorted(names, key=str.casefold)
    assert head.get_attribute("aria-sort") is None


@browser_only
@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_names_are_shown_and_never_executed(hostile, opened, width):
    page = opened(hostile / "report.html", width)
    page.locator("#chart-upset svg .mark-symbol path").first.hover()
    page.locator("#vg-tooltip-element").wait_for(state="visible")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("h1").inner_text() == HOSTILE["cohort"]
    text = page.locator("main").inner_text()
    assert '"><img' in text
    assert "\\u202egnp" in text  # a mark that turns the text round is shown as its code
    assert "</script><script>window.hacked=1</script>\\u000a" in text


@browser_only
def test_it_prints_in_dark_ink_without_scroll_boxes(suite, opened):
    page = opened(suite / "report.html", 1280, "dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate("getComputedStyle(document.querySelector('.wide')).overflow") == "visible"
    assert page.evaluate("getComputedStyle(document.querySelector('.chart svg')).maxWidth") == "100%"
    assert page.locator("#chart-scores select").is_visible()  # else nothing said which score is drawn
    assert not page.locator("nav").is_visible()
    assert len(page.pdf()) > 50_000


def test_the_page_is_one_small_file_that_names_no_host(suite):
    text = (suite / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 3_000_000
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)  # the library, which names where its specs are
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", own)
    assert "https://" not in re.sub(r'"\$schema": "[^"]+"', "", own)
    assert "default-src 'none'" in text


def test_the_page_says_what_the_run_folders_say(suite):
    text = (suite / "report.html").read_text(encoding="utf-8")
    metrics = json.loads((suite / "remind-seed0" / "metrics.json").read_text())
    assert f"{100 * metrics['overall']['accuracy']:.1f} %" in text
    for line in metrics["combinations"]:
        assert f"{line['accuracy']:.3f}" in text
    assert f"Of {metrics['overall']['subjects']} patients in the test split" in text
    few = sum(line["few"] for line in metrics["combinations"])
    assert f"{few} of {len(metrics['combinations'])} combinations in the test split have fewer than 10 patients" in text


def test_a_report_without_analyses_has_what_runs_hold(suite, remind, tmp_path):
    run = suite / "remind-seed0"
    done = remind("report", run, "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["files"] == [str(tmp_path / name) for name in ("report.html", "model-card.md")]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="chart-losses"' in text
    assert 'id="chart-values"' not in text
    assert "One seed was trained" in text


def test_with_suppression_no_small_count_is_in_the_page(suite, remind, tmp_path):
    assert remind("report", suite, "--out", tmp_path, "--suppress", 8).code == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    metrics = json.loads((suite / "remind-seed0" / "metrics.json").read_text())
    small = {line["combination"] for line in metrics["combinations"] if 0 < line["subjects"] < 8}
    assert small
    rows = re.findall(
        r"<tr[^>]*>(.*?)</tr>", text[text.index('id="results"') : text.index('id="calibration"')], re.DOTALL
    )
    counts = [re.findall(r'data-sort="([^"]*)"', row) for row in rows[1:]]
    tested = [int(one[-4]) for one in counts]
    assert all(n == 0 or n >= 8 for n in tested)
    assert "rarer combinations together" in text
    modalities = load_model(suite / "remind-seed0").spec.modalities
    for name in small:
        held = [part in name.split("+") for part in modalities]
        assert json.dumps(held) not in text
    assert not re.search(r"a class has \d", text)
    assert '"n": 7' not in text


def test_too_few_people_have_no_report(suite, remind, tmp_path):
    done = remind("report", suite, "--out", tmp_path / "out", "--suppress", 1000)
    assert done.code == 2
    assert "fewer than 1000 people" in done.err
    assert not (tmp_path / "out").exists()


def test_the_model_card_has_a_line_for_every_combination(suite):
    text = (suite / "model-card.md").read_text(encoding="utf-8")
    metrics = json.loads((suite / "remind-seed0" / "metrics.json").read_text())
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    groups = load_model(suite / "remind-seed0").groups
    names = {line["combination"] for line in metrics["combinations"]} | set(groups.labels())
    parts = sum(metrics[part]["n"] > 0 for part in ("overall", "head", "tail", "unseen"))
    assert len(rows) == 1 + parts + len(names)
    assert all(row.count("|") == 8 for row in rows)
    assert yaml.safe_load(text[text.index("```yaml") + 7 : text.rindex("```")])["method"] == "remind"


def test_hostile_names_are_text_in_the_card(hostile):
    text = (hostile / "model-card.md").read_text(encoding="utf-8")
    outside = text[: text.index("```yaml")]
    assert not re.search(r"(?<!\\)<(script|img|svg)", outside.replace(f"`{hostile.name}`", ""))
    assert "](javascript" not in outside
    assert "window.hacked" in outside


@pytest.mark.parametrize("place", ["nothing", "."])
def test_what_is_no_run_is_a_sentence(remind, tmp_path, place):
    done = remind("report", tmp_path / place)
    assert done.code == 2
    assert "neither a finished run nor a folder that holds some" in done.err
    assert not list(tmp_path.iterdir())


def test_what_was_found_of_other_runs_is_not_shown(suite, tmp_path, folder, tiny):
    fit(folder, recipe=load_recipe(None, tiny, method="remind", seed=7), out=tmp_path / "remind-seed0")
    (tmp_path / "remind-seed0" / "analyses").symlink_to(suite / "analyses")
    publish(tmp_path / "remind-seed0")
    text = (tmp_path / "remind-seed0" / "report.html").read_text(encoding="utf-8")
    assert 'id="chart-losses"' in text
    assert not any(f'id="chart-{name}"' in text for name in ("values", "experts", "gradients"))


def test_a_file_that_no_analysis_wrote_is_a_sentence(suite, tmp_path):
    (tmp_path / "experts.json").write_text("[]")
    with pytest.raises(RemindError, match=r"experts\.json: is not what"):
        publish(suite, analyses=tmp_path, out=tmp_path)


def test_a_run_copied_beside_itself_is_refused(suite, tmp_path):
    for name in ("remind-seed0", "again"):
        shutil.copytree(suite / "remind-seed0", tmp_path / name)
    with pytest.raises(RemindError, match="of one method and seed"):
        publish(tmp_path)


def test_a_suites_own_comparison_is_shown_though_a_single_run_is_there(suite, tmp_path):
    shutil.copytree(suite / "remind-seed0", tmp_path / "remind-seed0")
    compared = gather(suite, suite / "analyses").comparison
    fingerprint = yaml.safe_load((suite / "remind-seed0" / "config.yaml").read_text())["fingerprint"]
    (tmp_path / "comparison.json").write_text(json.dumps({**compared, "fingerprint": fingerprint}))
    publish(tmp_path)
    assert 'id="chart-methods"' in (tmp_path / "report.html").read_text(encoding="utf-8")
    (tmp_path / "comparison.json").write_text(json.dumps({**compared, "fingerprint": "another"}))
    with pytest.raises(RemindError, match="another cohort"):
        publish(tmp_path)


def test_runs_of_two_cohorts_are_no_suite(suite, hostile, tmp_path):
    for run in (suite / "remind-seed0", hostile):
        shutil.copytree(run, tmp_path / f"run-{run.name[:6].strip('<')}")
    with pytest.raises(RemindError, match="runs of several cohorts"):
        publish(tmp_path)
