"""Writes a clinic of five modalities of five kinds: ``python clinic.py FOLDER``.

The patients are the 569 of the Wisconsin breast cancer data that scikit-learn ships; the diagnosis is theirs. Each
modality is made from columns of its own, so none of them knows everything:

- labs       tabular    size and shape of the average nucleus, as measured
- smear      image      the largest nuclei, drawn: their size, outline and texture
- note       text       what a pathologist might write of symmetry and compactness
- readings   sequence   repeated measurements at irregular times
- spread     embedding  the standard errors, as one token of width 10

Most patients lack some of them: there are a few usual ways through the clinic, and then there is everybody else. Who
goes which way is drawn; it depends on nothing.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image
from sklearn.datasets import load_breast_cancer

MODALITIES = ("labs", "smear", "note", "readings", "spread")
ALL = "+".join(MODALITIES)
WAYS = {"labs+smear+note": 0.35, ALL: 0.25, "labs+note": 0.12, "labs+readings+spread": 0.08}


def available(rng: np.random.Generator) -> set[str]:
    """What a patient has: a usual way with all that belongs to it, or else anything."""
    way = rng.choice([*WAYS, ""], p=[*WAYS.values(), 1 - sum(WAYS.values())])
    return set(way.split("+")) if way else {name for name in MODALITIES if rng.random() < 0.5} or {"note"}


def smear(rng: np.random.Generator, size: float, outline: float, texture: float) -> Image.Image:
    """A dark nucleus on a light ground, 64 x 64. The three numbers are standard scores."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    edge = 0.45 + 0.1 * size + 0.04 * max(outline + 1, 0) * np.sin(7 * angle + rng.uniform(0, 6))
    ground = 200 + 10 * rng.standard_normal((64, 64))
    nucleus = 90 + (15 + 8 * texture) * rng.standard_normal((64, 64))
    return Image.fromarray(np.where(radius < edge, nucleus, ground).clip(0, 255).astype(np.uint8))


def note(rng: np.random.Generator, symmetry: float, compactness: float) -> str:
    """Words for two standard scores, as careful as people are."""

    def word(score: float, words: tuple[str, str, str]) -> str:
        return words[int(np.digitize(score + 0.3 * rng.standard_normal(), (-0.4, 0.6)))]

    shape = word(symmetry, ("symmetric", "slightly uneven", "markedly uneven"))
    density = word(compactness, ("loose", "moderately dense", "dense"))
    return f"Nuclei {shape}, {density}. {rng.choice(['Seen twice.', 'Good slide.', 'Slide a little thick.'])}"


def readings(rng: np.random.Generator, **values: float) -> pl.DataFrame:
    """Each variable measured a few times in two days, with noise."""
    rows = [
        {"time": float(rng.uniform(0, 48)), "variable": name, "value": value + 0.5 * float(rng.standard_normal())}
        for name, value in values.items()
        for _ in range(rng.integers(1, 5))
    ]
    return pl.DataFrame(rows).sort("time")


def write(folder: Path) -> None:
    """The whole clinic."""
    rng = np.random.default_rng(0)
    data = load_breast_cancer()
    score = (data.data - data.data.mean(0)) / data.data.std(0)
    of = {name: score[:, place] for place, name in enumerate(data.feature_names)}
    measured = ["mean radius", "mean texture", "mean smoothness", "mean concavity"]
    rows = []
    for kind in ("smear", "readings", "spread"):
        (folder / kind).mkdir(parents=True)
    for i in range(len(data.target)):
        row = {"patient": f"p{i:03d}", "diagnosis": str(data.target_names[data.target[i]])}
        has = available(rng)
        labs = {name: data.data[i, list(data.feature_names).index(name)] for name in measured}
        row |= {name: value if "labs" in has else None for name, value in labs.items()}
        row |= dict.fromkeys(("smear", "note", "readings", "spread"))
        if "smear" in has:
            row["smear"] = f"smear/{i:03d}.png"
            drawn = smear(rng, of["worst radius"][i], of["worst concavity"][i], of["worst texture"][i])
            drawn.save(folder / row["smear"])
        if "note" in has:
            row["note"] = note(rng, of["worst symmetry"][i], of["worst compactness"][i])
        if "readings" in has:
            row["readings"] = f"readings/{i:03d}.parquet"
            values = {"area": of["worst area"][i], "points": of["worst concave points"][i]}
            readings(rng, **values).write_parquet(folder / row["readings"])
        if "spread" in has:
            row["spread"] = f"spread/{i:03d}.npy"
            np.save(folder / row["spread"], score[i, 10:20].astype(np.float32))
        rows.append(row)
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / "samples.parquet")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
