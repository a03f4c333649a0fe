"""``cohort.yaml``: what the columns of the sample table are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from remind.documents import Document, read_yaml
from remind.errors import RemindError, explain
from remind.modalities.spec import Modality


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        raise ValueError("YAML reads a bare yes, no, true or false as a boolean; put the class name in quotes")
    return str(value)


class Label(Document):
    """The column to predict and its classes, in the order of their indices."""

    column: str
    classes: Annotated[list[Annotated[str, BeforeValidator(_as_text)]], Field(min_length=2)]

    @model_validator(mode="after")
    def _distinct(self) -> "Label":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class is listed twice")
        return self


class SplitShares(Document):
    """Draw the split by subject, stratified by label and combination."""

    train: float = Field(default=0.7, gt=0)
    validation: float = Field(default=0.1, gt=0)
    test: float = Field(default=0.2, ge=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sum(self) -> "SplitShares":
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError("train, validation and test must sum to 1")
        return self


class SplitColumn(Document):
    """The cohort brings its split in a column of ``train``, ``validation`` and ``test``."""

    column: str


class CohortSpec(Document):
    """The whole of ``cohort.yaml``."""

    name: Annotated[str, Field(pattern=r"^[^/\\\n]*[^/\\\n.][^/\\\n]*$")]
    id: str
    subject: str | None = None
    label: Label
    modalities: Annotated[dict[str, Modality], Field(min_length=1)]
    split: SplitShares | SplitColumn = SplitShares()
    tail_below: float = Field(default=0.15, gt=0, lt=1)
    root: str | None = None  # the folder that paths start from; default: the cohort's own

    @field_validator("split", mode="wrap")
    @classmethod
    def _one_kind_of_split(cls, data: Any, handler: Any) -> Any:
        """Pick the split's schema by its keys, so that an error speaks of one schema and not of both."""
        if isinstance(data, SplitShares | SplitColumn):
            return data
        if not isinstance(data, dict):
            raise ValueError("must name shares (train, validation, test) or a column")
        return (SplitColumn if "column" in data else SplitShares).model_validate(data)

    @model_validator(mode="after")
    def _names_and_leaks(self) -> "CohortSpec":
        outside = {self.id: "the id", self.subject: "the subject", self.label.column: "the label"}
        if isinstance(self.split, SplitColumn):
            outside[self.split.column] = "the split"
        for name, modality in self.modalities.items():
            if not name or set("+ /.") & set(name):
                raise ValueError(f"modality name {name!r} must not be empty or hold '+', '/', '.' or a space")
            for column in modality.cells():
                if column in outside:
                    raise ValueError(f"modality {name!r} lists column {column!r}, which is {outside[column]}")
        return self

    @property
    def subject_column(self) -> str:
        """The column that names the patient: the id's, unless the spec says otherwise."""
        return self.subject or self.id

    def columns(self) -> dict[str, str]:
        """Every column the spec names, once, and what names it first."""
        named = [("id", self.id), ("subject", self.subject_column), ("label", self.label.column)]
        named += [(f"modality {name!r}", c) for name, modality in self.modalities.items() for c in modality.cells()]
        if isinstance(self.split, SplitColumn):
            named.append(("split", self.split.column))
        return {column: role for role, column in reversed(named)}


def as_spec(given: Mapping[str, Any] | str | Path) -> CohortSpec:
    """A spec from what ``cohort.yaml`` would say, or from the path of one.

    Raises:
        RemindError: if it does not fit the schema; names the key.
    """
    if isinstance(given, str | Path):
        return read_spec(Path(given))
    try:
        return CohortSpec.model_validate(given)
    except ValidationError as error:
        raise explain("the spec", error, CohortSpec) from None


def read_spec(path: Path) -> CohortSpec:
    """Read and validate a ``cohort.yaml``.

    Raises:
        RemindError: if the file is missing, is not YAML, or does not fit the schema; names the key.
    """
    if not path.is_file():
        raise RemindError(f"{path}: no such file; a cohort is a folder that holds cohort.yaml and samples.parquet.")
    try:
        return CohortSpec.model_validate(read_yaml(path.read_text(encoding="utf-8"), path))
    except UnicodeDecodeError:
        raise RemindError(f"{path}: is not UTF-8 text; save it as UTF-8.") from None
    except ValidationError as error:
        raise explain(str(path), error, CohortSpec) from None
