import numpy as np
import pytest
from matplotlib.colors import to_hex

from remind.report.figures import frequency_figure, save_figure

MODALITIES = ("labs", "text", "scan")


def line(combination, share, accuracy, n=20):
    kind = "unseen" if not share else "tail" if share < 0.15 else "head"
    return {"combination": combination, "share": share, "kind": kind, "n": n, "few": n < 10, "accuracy": accuracy}


def run(*accuracies):
    names, shares = ("labs+text+scan", "labs", "text+scan", "scan"), (0.6, 0.3, 0.1, 0.0)
    lines = [line(*cells) for cells in zip(names, shares, accuracies, strict=True)]
    part = {"accuracy": 0.5, "n": 80}
    return {"combinations": lines, "head": part, "tail": {"accuracy": None, "n": 0}, "overall": part}


RUNS = {"soft-moe": run(0.9, 0.8, 0.7, 0.6), "remind": run(0.8, 0.8, 0.9, 0.5)}


def panels(figure):
    return figure.axes


def test_a_png_and_an_svg_are_written(tmp_path):
    written = save_figure(frequency_figure(MODALITIES, RUNS, title="T"), tmp_path / "deep" / "combinations")
    assert written == [tmp_path / "deep" / f"combinations.{kind}" for kind in ("png", "svg")]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in written[1].read_text(encoding="utf-8")
    assert sorted(tmp_path.joinpath("deep").iterdir()) == sorted(written)


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    first, again = (
        [
            path.read_bytes()
            for path in save_figure(frequency_figure(MODALITIES, RUNS, title="T"), tmp_path / name / "f")
        ]
        for name in ("a", "b")
    )
    assert first == again
    other = save_figure(frequency_figure(MODALITIES, RUNS, title="U"), tmp_path / "c" / "f")
    assert [path.read_bytes() for path in other] != first


def test_a_dot_in_the_name_stays_in_the_name(tmp_path):
    written = save_figure(frequency_figure(MODALITIES, RUNS, title="T"), tmp_path / "figure.1b")
    assert [path.name for path in written] == ["figure.1b.png", "figure.1b.svg"]


def test_every_combination_has_its_share_its_accuracies_and_its_dots():
    share, accuracy, held = panels(frequency_figure(MODALITIES, RUNS, title="T"))
    assert [bar.get_height() for bar in share.patches] == pytest.approx([60, 30, 10, 0])
    assert len({to_hex(bar.get_facecolor()) for bar in share.patches[:2]}) == 1
    assert to_hex(share.patches[2].get_facecolor()) != to_hex(share.patches[0].get_facecolor())
    drawn = [points.get_ydata().tolist() for points in accuracy.lines]
    assert drawn[0] == pytest.approx([90, 80, 70, 60])
    assert drawn[1] == pytest.approx([80, 80, 90, 50])
    assert [tick.get_text() for tick in held.get_yticklabels()] == list(MODALITIES)
    assert [tick.get_text() for tick in held.get_xticklabels()] == ["n=20"] * 4
    dark = {(int(dot.get_xdata()[0]), int(dot.get_ydata()[0])) for dot in held.lines if dot.get_color() == "#333333"}
    assert dark == {(0, 0), (0, 1), (0, 2), (1, 0), (2, 1), (2, 2), (3, 2)}
    assert len(held.lines) == 12


def test_a_modality_whose_name_is_part_of_another_has_its_own_dots():
    runs = {"r": {**run(0.5, 0.5, 0.5, 0.5), "combinations": [line("diet_day1", 1.0, 0.5)]}}
    *_, held = panels(frequency_figure(("diet", "diet_day1"), runs, title="T"))
    dark = [int(dot.get_ydata()[0]) for dot in held.lines if dot.get_color() == "#333333"]
    assert dark == [1]


def test_combinations_of_fewer_than_ten_samples_and_those_past_the_most_frequent_are_left_out():
    runs = {"r": {**run(0.9, 0.8, 0.7, 0.6)}}
    runs["r"]["combinations"][1] = line("labs", 0.3, 0.8, n=9)
    share, *_ = panels(frequency_figure(MODALITIES, runs, title="T"))
    assert [bar.get_height() for bar in share.patches] == pytest.approx([60, 10, 0])
    share, *_ = panels(frequency_figure(MODALITIES, runs, title="T", most=2))
    assert len(share.patches) == 2


def test_the_legend_says_what_each_method_reaches():
    _, accuracy, _ = panels(frequency_figure(MODALITIES, RUNS, title="T"))
    labels = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert labels == ["soft-moe: 50.0 head, - tail, 50.0 all", "remind: 50.0 head, - tail, 50.0 all"]


def test_the_lowest_accuracy_is_inside_the_picture():
    runs = {"a": run(0.02, 0.8, 0.7, 0.6), "b": run(1.0, 1.0, 1.0, 1.0)}
    _, accuracy, _ = panels(frequency_figure(MODALITIES, runs, title="T"))
    low, high = accuracy.get_ylim()
    assert low <= 2
    assert high >= 100


def test_a_cohort_of_small_combinations_still_has_a_picture(tmp_path):
    runs = {"r": {**run(0.5, 0.5, 0.5, 0.5), "combinations": [line("labs", 1.0, 0.5, n=3)]}}
    assert len(save_figure(frequency_figure(MODALITIES, runs, title="T"), tmp_path / "f")) == 2


def test_forty_combinations_of_twelve_modalities_are_drawn(tmp_path):
    names = [f"m{place}" for place in range(12)]
    rng = np.random.default_rng(0)
    sets = {"+".join(name for name in names if rng.random() < 0.5) or "m0" for _ in range(60)}
    runs = {"r": {**run(0.5, 0.5, 0.5, 0.5), "combinations": [line(name, 1 / 60, 0.5) for name in sorted(sets)][:40]}}
    written = save_figure(frequency_figure(names, runs, title="T", most=40), tmp_path / "f")
    assert all(path.stat().st_size > 1000 for path in written)


@pytest.mark.parametrize("name", ["cost_in_$", "a$b$c", "größe", "x_{", "50%"])
def test_names_are_text_and_not_mathematics(tmp_path, name):
    runs = {"r": {**run(0.5, 0.5, 0.5, 0.5), "combinations": [line(name, 1.0, 0.5)]}}
    figure = frequency_figure((name, "other"), runs, title=f"About {name}: $")
    assert len(save_figure(figure, tmp_path / "f")) == 2
    *_, held = panels(figure)
    assert held.get_yticklabels()[0].get_text() == name
