"""EMBED (Emory's open mammograms): breast density from up to four views of an exam.

Layout of the open release (HITI-anon-internal/EMBED): ``tables/EMBED_OpenData_metadata.csv``, a row an image;
``tables/EMBED_OpenData_clinical.csv``, a row a finding; images under ``images/``. Its agreement is for research, and
forbids giving on the data, and weights or embeddings trained on them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import polars as pl

from remind.cohort.table import write_cohort
from remind.documents import NULL_WORDS
from remind.errors import RemindError, unknown
from remind.sources.extraction import extraction

TABLES = "tables/EMBED_OpenData_{}.csv", "tables/EMBED_OpenData_{}_reduced.csv"
STORED_UNDER = "/mnt/NAS2/mammo/anon_dicom/"  # what the release's paths begin with, whatever they lie under now
TYPES = {"2d": "ffdm", "cview": "cview", "c-view": "cview"}  # the release's README and its files disagree on the name
VIEWS = {"CC": "cc", "MLO": "mlo"}
MODALITIES = ("cview_cc", "cview_mlo", "ffdm_cc", "ffdm_mlo")  # the paper's M1 to M4
DENSITIES = {1: "A", 2: "B", 3: "C", 4: "D"}  # fatty, scattered, heterogeneous, extremely dense; 5 is a man's
METADATA = {
    "patient": "empi_anon",
    "exam": "acc_anon",
    "type": "FinalImageType",
    "side": "ImageLateralityFinal",
    "view": "ViewPosition",
}
CLINICAL = {"patient": "empi_anon", "exam": "acc_anon", "density": "tissueden"}

Images = Literal["dicom", "png"]
PATHS: Mapping[Images, str] = {"dicom": "anon_dicom_path", "png": "png_path"}


def write(
    out: Path,
    *,
    root: str | None = None,
    by: Literal["exam", "breast"] = "exam",
    images: Images = "dicom",
    prefix: str = STORED_UNDER,
) -> Path:
    """Write the cohort; ``extraction.json`` beside it counts what was kept and dropped.

    All views of a sample are of one breast: of the two of an exam, the one with more views, the left at a tie. (The
    first image of each view, taken alone, would pair a left view with a right one.) Tables are joined on the exam, not
    on dates, which differ between them. Spot and magnification views are left out.

    Args:
        out: the folder to write.
        root: the folder with ``tables`` and ``images``.
        by: a sample is an ``exam`` (as in the paper), or each ``breast`` of it.
        images: the release's ``dicom`` files, or ``png`` files named in a column ``png_path``.
        prefix: what the paths in the table begin with; it becomes ``images/``. Relative paths start from ``root``.

    Raises:
        RemindError: if a table or column is not there, or no exam is left.
    """
    if root is None:
        raise RemindError("source 'embed' needs --root, the folder with EMBED's tables and images; give it.")
    place = Path(root)
    wanted = {**METADATA, "path": PATHS[images]}
    metadata = _read(place, "metadata", wanted, optional={"spot": "spot_mag"})
    clinical = _read(place, "clinical", CLINICAL)
    steps = [("images", metadata.height)]
    views = _views(metadata)
    steps.append(("of the four views, not magnified", views.height))
    views = _moved(views, prefix)
    steps.append((f"whose path begins with {prefix} or is relative", views.height))
    samples = _samples(views, by)
    steps.append((f"{by}s with such a view", samples.height))
    density, disputed, tied = _densities(clinical)
    samples = samples.join(density, on=["patient", "exam"]).sort("sample")
    steps.append(("with a density of A to D", samples.height))
    if samples.is_empty():
        raise RemindError(
            f"{place}: no {by} is left ({', '.join(f'{count} {said}' for said, count in steps)}); check --prefix, and "
            "that empi_anon and acc_anon agree between the two tables."
        )
    modalities = [name for name in MODALITIES if samples[name].count()]
    absent = [name for name in MODALITIES if name not in modalities]
    warnings = [f"no {by} has {name}; the cohort is without that modality." for name in absent]
    if disputed:
        warnings.append(
            f"{disputed} exams have rows that differ in tissueden; the most frequent counts; {tied} have none and are "
            "left out."
        )
    spare = views.height - samples.select(pl.sum_horizontal(pl.col(MODALITIES).is_not_null()).sum()).item()
    steps.append(("images not used: other breast, repeated view or no density", spare))
    spec = {
        "name": "embed" if by == "exam" else "embed-breasts",
        "id": "sample",
        "subject": "patient",
        "label": {"column": "density", "classes": list(DENSITIES.values())},
        "root": str(place.resolve()),
        "modalities": {name: {"kind": "image", "column": name} for name in modalities},
    }
    kept = samples.select("sample", "patient", "density", *modalities)
    report = extraction("embed", spec, kept, steps=steps, warnings=warnings, paper="embed")
    return write_cohort(out, spec, kept, {"extraction.json": report})


def _read(
    root: Path, name: str, wanted: Mapping[str, str], *, optional: Mapping[str, str] | None = None
) -> pl.DataFrame:
    """Some columns of a table, as text under our names."""
    if not root.is_dir():
        raise RemindError(f"{root}: no such folder; name the one with EMBED's tables and images.")
    path = next((root / form.format(name) for form in TABLES if (root / form.format(name)).is_file()), None)
    if path is None:
        raise RemindError(f"{root}: there is no table {TABLES[0].format(name)}; name the folder that holds tables/.")
    try:
        table = pl.scan_csv(path, infer_schema=False, null_values=NULL_WORDS, glob=False)
        known = table.collect_schema().names()
        for column in wanted.values():
            if column not in known:
                raise RemindError(f"{path}: {unknown('column', column, known)}")
        extra = {ours: theirs for ours, theirs in (optional or {}).items() if theirs in known}
        whole = r"\.0$"  # of numbers that were floats to someone
        chosen = [
            pl.col(theirs).str.strip_chars().str.replace(whole, "").alias(ours)
            for ours, theirs in {**wanted, **extra}.items()
        ]
        frame = table.select(chosen).collect()
    except pl.exceptions.PolarsError as error:
        raise RemindError(f"{path}: cannot be read as a CSV file ({type(error).__name__}).") from None
    return frame.with_columns(pl.lit(None, pl.String).alias(ours) for ours in (optional or {}) if ours not in extra)


def _views(metadata: pl.DataFrame) -> pl.DataFrame:
    """``patient, exam, side, modality, path`` of the images that are one of the four views."""
    kind = pl.col("type").str.to_lowercase().replace_strict(TYPES, default=None, return_dtype=pl.String)
    view = pl.col("view").str.to_uppercase().replace_strict(VIEWS, default=None, return_dtype=pl.String)
    special = pl.col("spot").cast(pl.Float64, strict=False).fill_null(0) == 1
    return (
        metadata.filter(~special)
        .with_columns(modality=pl.concat_str(kind, view, separator="_"), side=pl.col("side").str.slice(0, 1))
        .filter(pl.col("modality").is_in(MODALITIES), pl.col("side").is_in(["L", "R"]))
        .drop_nulls(["patient", "exam", "path"])
        .select("patient", "exam", "side", "modality", "path")
    )


def _moved(views: pl.DataFrame, prefix: str) -> pl.DataFrame:
    """Paths below the root: what begins with the prefix lies in ``images``, what is relative where it says."""
    begins, relative = pl.col("path").str.starts_with(prefix), ~pl.col("path").str.starts_with("/")
    below = pl.format("images/{}", pl.col("path").str.strip_prefix(prefix))
    return views.filter(begins | relative).with_columns(path=pl.when(begins).then(below).otherwise("path"))


def _samples(views: pl.DataFrame, by: str) -> pl.DataFrame:
    """``sample, patient, exam`` and a path or null for each view; of a repeated view the first by path."""
    first = views.group_by("patient", "exam", "side", "modality").agg(pl.col("path").min())
    wide = first.pivot("modality", index=["patient", "exam", "side"], values="path")
    wide = wide.with_columns(pl.lit(None, pl.String).alias(name) for name in MODALITIES if name not in wide.columns)
    if by == "breast":
        return wide.with_columns(sample=pl.format("{}-{}", "exam", "side"))
    count = pl.sum_horizontal(pl.col(MODALITIES).is_not_null())
    ranked = wide.sort("patient", "exam", count, "side", descending=[False, False, True, False])
    return ranked.unique(["patient", "exam"], keep="first", maintain_order=True).with_columns(sample="exam")


def _densities(clinical: pl.DataFrame) -> tuple[pl.DataFrame, int, int]:
    """``patient, exam, density``; of how many exams the rows disagree, and how many of them have no most frequent."""
    key, number = ["patient", "exam"], pl.col("density").cast(pl.Float64, strict=False)
    counted = (
        clinical.with_columns(density=number.replace_strict(DENSITIES, default=None, return_dtype=pl.String))
        .drop_nulls([*key, "density"])
        .group_by(*key, "density")
        .len()
    )
    most = counted.filter(pl.col("len") == pl.col("len").max().over(key))
    chosen = most.filter(pl.len().over(key) == 1)
    disputed, tied = counted.filter(pl.len().over(key) > 1), most.filter(pl.len().over(key) > 1)
    return chosen.select(*key, "density"), disputed.n_unique(subset=key), tied.n_unique(subset=key)
