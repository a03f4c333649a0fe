import json

import pytest
from matplotlib.colors import to_hex

from remind.cohort.cohort import load
from remind.cohort.describe import describe_cohort
from remind.report.atlas import atlas_figure
from remind.report.dots import HEAD, TAIL
from remind.report.figures import save_figure
from remind.report.tables import mask_alone_words


@pytest.fixture(scope="module")
def described(cohort) -> dict:
    return describe_cohort(cohort)


def panels(figure):
    return dict(zip(("share", "classes", "held", "available", "legend", "phi"), figure.axes, strict=True))


def shown(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_every_combination_has_its_share_its_classes_and_its_dots(described):
    drawn, lines = panels(atlas_figure(described)), described["combinations"]
    bars = drawn["share"].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([100 * line["share"] for line in lines])
    colours = {"head": HEAD, "tail": TAIL, "unseen": "#ffffff"}
    assert [to_hex(bar.get_facecolor()) for bar in bars] == [colours[line["kind"]] for line in lines]
    stacked = [bar.get_height() for bar in drawn["classes"].patches]
    parts = [100 * line["classes"][name] / line["n"] for name in ("c0", "c1", "c2") for line in lines]
    assert stacked == pytest.approx(parts)
    assert [tick.get_text() for tick in drawn["held"].get_xticklabels()] == [str(line["n"]) for line in lines]
    dark = sum(dot.get_color() == "#333333" for dot in drawn["held"].lines)
    assert dark == sum(len(line["combination"].split("+")) for line in lines)


def test_the_classes_of_the_whole_cohort_are_dashed_lines(described, cohort):
    lines = panels(atlas_figure(described))["classes"].lines
    shares = [100 * (cohort.target <= c).mean() for c in (0, 1)]
    assert [line.get_ydata()[0] for line in lines] == pytest.approx(shares)


def test_every_modality_has_its_availability_and_every_pair_its_phi(described):
    drawn = panels(atlas_figure(described))
    assert shown(drawn["available"]) == [f"{share:.1%}" for share in described["modalities"].values()]
    assert [float(text) for text in shown(drawn["phi"])] == pytest.approx(
        [pair["phi"] for pair in described["co_missing"]], abs=0.005
    )
    low, high = drawn["phi"].images[0].get_clim()
    assert low == -high


def test_the_rarer_combinations_are_counted_and_not_drawn(described):
    figure = atlas_figure(described, most=3)
    assert len(panels(figure)["share"].patches) == 3
    shares = sum(line["share"] for line in described["combinations"][:3])
    assert f"3 of 14 combinations ({shares:.1%} of the samples)" in figure.get_suptitle()


def test_the_figure_says_what_the_mask_tells(described):
    words = " ".join(shown(panels(atlas_figure(described))["legend"])[0].split())
    assert words == "Mask alone: " + mask_alone_words(described["mask_alone"])


def test_it_is_drawn_from_json_and_the_same_description_gives_the_same_bytes(tmp_path, described):
    again = json.loads(json.dumps(described))
    first, second = (
        [path.read_bytes() for path in save_figure(atlas_figure(one), tmp_path / name)]
        for name, one in (("a", described), ("b", again))
    )
    assert first == second


def test_one_modality_has_an_atlas_without_pairs(clinic, tmp_path):
    columns = ["hba1c", "comment", "pulse"]
    folder = clinic(modalities={"labs": {"kind": "tabular", "columns": columns}})
    figure = atlas_figure(describe_cohort(load(folder)))
    assert shown(panels(figure)["phi"]) == ["one modality: no pairs"]
    assert len(save_figure(figure, tmp_path / "f")) == 2


def test_of_many_classes_the_rarest_are_one(described):
    classes = [f"class {place}" for place in range(12)]
    line = {
        **described["combinations"][0],
        "n": 78,
        "share": 1.0,
        "classes": dict(zip(classes, range(1, 13), strict=True)),
    }
    drawn = panels(atlas_figure({**described, "samples": 78, "combinations": [line]}))
    assert [text.get_text() for text in drawn["legend"].get_legend().get_texts()][2:] == [
        "5 rarer classes", *reversed(classes[5:])
    ]  # fmt: skip
    assert sum(bar.get_height() for bar in drawn["classes"].patches) == pytest.approx(100)


@pytest.mark.parametrize(
    "name", ["cost_in_$_and_$", "größe", "x_{", "a_modality_of_quite_an_unusually_long_name_indeed"]
)
def test_nothing_of_any_name_is_cut_by_the_edge_or_overlaps(name, clinic, tmp_path):
    names = [name, *(f"other_{place}" for place in range(8))]
    columns = {"kind": "tabular", "columns": ["hba1c", "pulse"]}
    folder = clinic(
        name=name * 3,
        label={"column": "grade", "classes": ["none", "mild", name]},
        modalities={
            one: {**columns, "columns": ["comment"]} if place % 2 else columns for place, one in enumerate(names)
        },
    )
    figure = atlas_figure(describe_cohort(load(folder)))
    save_figure(figure, tmp_path / "f")
    assert figure.bbox.padded(1).containsx(figure.get_tightbbox().x1 * figure.dpi)
    boxes = {place: axes.get_tightbbox() for place, axes in panels(figure).items()}
    for box in boxes.values():
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1
    assert not boxes["phi"].overlaps(boxes["share"])
    assert not boxes["phi"].overlaps(boxes["held"])
    assert not boxes["available"].overlaps(boxes["held"])
    assert not boxes["legend"].overlaps(boxes["share"])


def test_the_command_draws_and_still_prints_json_alone(remind, folder, tmp_path):
    done = remind("cohort", "describe", folder, "--figure", tmp_path / "atlas.v1", "--json")
    assert done.code == 0
    assert json.loads(done.out)["samples"] == 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["atlas.v1.png", "atlas.v1.svg"]


def test_the_command_says_what_the_mask_tells(remind, folder):
    done = remind("cohort", "describe", folder)
    assert done.code == 0
    assert "mask alone" in done.out
    assert "lack both" in done.out
