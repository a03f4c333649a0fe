"""What ``cohort.yaml`` says of a modality: a class for each kind."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from remind.documents import Document


class TabularModality(Document):
    """Some columns of the sample table: numbers, booleans and categories. Missing only if all of them are null."""

    kind: Literal["tabular"]
    columns: Annotated[list[str], Field(min_length=1)]
    categorical: list[str] = []  # columns whose numbers are codes, not quantities

    @model_validator(mode="after")
    def _columns(self) -> "TabularModality":
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("a column is listed twice")
        if stray := sorted(set(self.categorical) - set(self.columns)):
            raise ValueError(f"categorical names {stray[0]!r}, which is not among its columns")
        return self

    def cells(self) -> list[str]:
        """The columns it is read from."""
        return self.columns


class TextModality(Document):
    """A column that holds the text itself. Blank text is *empty*: it counts as missing, and is counted apart."""

    kind: Literal["text"]
    column: str

    def cells(self) -> list[str]:
        """The columns it is read from."""
        return [self.column]


class WindowSpec(Document):
    """The stretch of intensities to show, as ``{center: 40, width: 400}``."""

    center: Annotated[float, Field(allow_inf_nan=False)]
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class FileModality(Document):
    """A column of paths, relative to the cohort's folder or its ``root``."""

    column: str

    def cells(self) -> list[str]:
        """The columns it is read from."""
        return [self.column]


class ImageModality(FileModality):
    """PNG, JPEG, TIFF or DICOM. ``window`` overrides the file's own, and scales 16-bit and float images."""

    kind: Literal["image"]
    window: WindowSpec | None = None


class VolumeModality(FileModality):
    """npy, NIfTI, video, a DICOM series, or a folder of frames. ``window`` as for images."""

    kind: Literal["volume"]
    window: WindowSpec | None = None


class SequenceModality(FileModality):
    """A Parquet or CSV file of ``time``, ``variable`` and ``value`` for each sample. One without rows is *empty*."""

    kind: Literal["sequence"]


class EmbeddingModality(FileModality):
    """Tokens computed elsewhere: an npy file of ``[l, w]`` or ``[w]`` for each sample. With ``l = 0`` it is *empty*."""

    kind: Literal["embedding"]


Modality = Annotated[
    TabularModality | TextModality | ImageModality | VolumeModality | SequenceModality | EmbeddingModality,
    Field(discriminator="kind"),
]
