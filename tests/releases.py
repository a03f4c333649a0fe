"""Small folders in the layouts in which EMBED and FPRM are handed out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image
from unit.filemaking import write_dicom

from remind.sources.embed import STORED_UNDER

METADATA = [
    *("empi_anon", "acc_anon", "cohort_num", "study_date_anon", "StudyDescription", "SeriesDescription"),
    *("FinalImageType", "ImageLateralityFinal", "ViewPosition", "spot_mag", "num_roi", "ROI_coords", "match_level"),
    *("anon_dicom_path", "png_path"),
]
CLINICAL = [
    *("empi_anon", "acc_anon", "study_date_anon", "desc", "tissueden", "asses", "side", "numfind", "path_severity"),
]


class Clinic:
    """Images and findings, written as the release has them."""

    def __init__(self) -> None:
        self.images: list[dict[str, str | None]] = []
        self.findings: list[dict[str, str | None]] = []

    def image(self, patient: str, exam: str, kind: str, view: str, side: str = "L", **more: str) -> None:
        name = f"cohort_1/{patient}/{exam}/{len(self.images):03d}"
        paths = {"anon_dicom_path": f"{STORED_UNDER}{name}.dcm", "png_path": f"images/{name}.png"}
        row = {"empi_anon": patient, "acc_anon": exam, "FinalImageType": kind, "ViewPosition": view}
        self.images.append({**row, "ImageLateralityFinal": side, "study_date_anon": "2014-01-02", **paths, **more})

    def finding(self, patient: str, exam: str, density: str | None, **more: str) -> None:
        row = {"empi_anon": patient, "acc_anon": exam, "tissueden": density, "study_date_anon": "2014-01-09"}
        self.findings.append({**row, "asses": "N", **more})

    def write(self, root: Path, *, without: tuple[str, ...] = (), files: bool = True) -> Path:
        (root / "tables").mkdir(parents=True)
        for name, columns, rows in (("metadata", METADATA, self.images), ("clinical", CLINICAL, self.findings)):
            table = pl.DataFrame(
                [{column: row.get(column) for column in columns} for row in rows],
                schema=dict.fromkeys(columns, pl.String),
            )
            table.drop(without, strict=False).write_csv(root / "tables" / f"EMBED_OpenData_{name}.csv")
        rng = np.random.default_rng(0)
        for row in self.images if files else ():
            pixels = rng.integers(0, 200, (12, 10)).astype(np.uint8)
            path = root / str(row["anon_dicom_path"]).replace(STORED_UNDER, "images/")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_dicom(path, pixels)
            Image.fromarray(pixels).save(path.with_suffix(".png"))
        return root


def screening(exams: int = 24) -> Clinic:
    """Exams of two to four views; a density for each."""
    clinic = Clinic()
    for number in range(exams):
        patient, exam = f"p{number // 2:03d}", f"e{number:03d}"
        for side in "LR":
            for view in ("CC", "MLO"):
                clinic.image(patient, exam, "2D", view, side)
                if number % 2:
                    clinic.image(patient, exam, "cview", view, side)
        clinic.finding(patient, exam, f"{number % 4 + 1}.0")
    return clinic


HAVING = {"fundus": 1, "flow": 4, "oxygen": 4, "table": 2}  # every so many samples


def retina(
    root: Path,
    samples: int = 24,
    *,
    change: Callable[[pl.DataFrame], pl.DataFrame] = lambda table: table,
    name: str = "manifest.csv",
) -> Path:
    """Two samples a patient; photographs of all, a video and an oxygen map of every fourth, a table of every second."""
    rng = np.random.default_rng(0)
    for folder in ("fundus", "flow", "oxygen"):
        (root / folder).mkdir(parents=True)
    rows = []
    for number in range(samples):
        row: dict = {"sample_id": f"s{number:03d}", "patient_id": f"p{number // 2:03d}", "grade": str(number % 3)}
        row["fundus"] = f"fundus/{number}.png"
        Image.fromarray(rng.integers(0, 255, (9, 9, 3)).astype(np.uint8)).save(root / row["fundus"])
        if number % HAVING["flow"] == 0:
            row["flow"], row["oxygen"] = f"flow/{number}.npy", f"oxygen/{number}.png"
            np.save(root / row["flow"], rng.integers(0, 255, (4, 8, 8)).astype(np.uint8))
            Image.fromarray(rng.integers(0, 255, (9, 9, 3)).astype(np.uint8)).save(root / row["oxygen"])
        row |= {f"x_{place}": float(rng.normal()) if number % HAVING["table"] == 0 else None for place in range(8)}
        row["comment"] = "canary"
        rows.append(row)
    change(pl.DataFrame(rows, infer_schema_length=None)).write_csv(root / name)
    return root
