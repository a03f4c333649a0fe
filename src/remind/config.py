"""Recipes: every setting of a run, in YAML or on the command line, checked before any data is touched."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from remind.documents import Document, read_yaml
from remind.encoders import ENCODERS
from remind.errors import RemindError, explain
from remind.fusions import FUSIONS
from remind.methods import Method, method
from remind.objectives import OBJECTIVES


class ModelSettings(Document):
    """Sizes. Every fusion is given those that its constructor has."""

    dim: int = Field(default=64, gt=0)
    experts: int = Field(default=16, gt=0)
    slots: int = Field(default=1, gt=0)
    heads: int = Field(default=4, gt=0)
    hidden: int | None = Field(default=None, gt=0)  # of an expert; 4 * dim
    dropout: float = Field(default=0.1, ge=0, lt=1)
    router_scale: float = Field(default=1.0, gt=0)  # where the learned scale of the routing logits starts


class TrainSettings(Document):
    """Budget, optimiser and selection: the same for every method."""

    epochs: int = Field(default=30, gt=0)
    batch_size: int = Field(default=64, gt=0)
    lr: float = Field(default=1e-3, gt=0)
    first_stage: float = Field(default=0.5, gt=0, lt=1)  # its share of the epochs, in methods of two stages
    later_lr: float = Field(default=0.1, gt=0)  # learning rate of the stages after the first, as a factor
    group_lr: float = Field(default=1.0, gt=0)  # that of the groups' own parameters, as a factor of their stage's
    weight_decay: float = Field(default=1e-2, ge=0)
    lr_step: int = Field(default=5, gt=0)  # epochs; StepLR
    lr_gamma: float = Field(default=0.1, gt=0, le=1)
    average: float = Field(default=0.0, ge=0, lt=1)  # decay of the running mean of the weights; 0 for none
    clip: float = Field(default=1.0, gt=0)  # norm of the gradient
    focal_gamma: float = Field(default=2.0, ge=0)
    patience: int = Field(default=10, gt=0)  # epochs without a better validation score that end a stage
    select: Literal["loss", "macro_auroc"] = "loss"  # the validation score that stops and selects
    pool: int = Field(default=1, gt=0)  # batches sorted together by token count
    checkpoint_every: int = Field(default=200, gt=0)  # steps
    gradients_every: int = Field(default=0, ge=0)  # steps between records of the groups' gradient consistency; 0: none
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False  # the fusion's block, by torch.compile: it takes its time at the start, and a C++ compiler
    shard: bool = False  # weights in parts, one on each of several processes; needs data.features=none
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, gt=0)  # of the CPU; None: torch's choice. Small models want 1.


class DataSettings(Document):
    """How files are read, and what becomes of those that cannot be."""

    unreadable: Literal["stop", "missing"] = "stop"
    budget: float = Field(default=0.01, ge=0, le=1)  # share of a modality's files that may be unreadable
    workers: int = Field(default=0, ge=0)  # processes that read files ahead
    features: Literal["float32", "bfloat16", "none"] = "float32"  # how frozen encoders' outputs are stored


class Recipe(Document):
    """One run: a method, a seed and all their settings. Components are set by name: ``objectives.group_dro.cap``."""

    method: str = "remind"
    seed: int = Field(default=0, ge=0, lt=2**31)
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    encoders: dict[str, dict[str, Any]] = {}
    modalities: dict[str, dict[str, Any]] = {}  # settings of one modality's encoder, over those of its kind
    fusions: dict[str, dict[str, Any]] = {}
    objectives: dict[str, dict[str, Any]] = {}
    train: TrainSettings = TrainSettings()

    def check(self) -> Method:
        """Check every component that is named, in use or not, and give the method.

        Raises:
            RemindError: for an unknown method, component or setting.
        """
        for registry, section in ((ENCODERS, self.encoders), (FUSIONS, self.fusions), (OBJECTIVES, self.objectives)):
            for name, settings in section.items():
                registry.check(name, settings)
        return method(self.method)

    def encoder_settings(self, name: str, kind: str) -> dict[str, Any]:
        """All settings of one modality's encoder, its defaults included.

        Raises:
            RemindError: if one of them is unknown or does not fit.
        """
        defaults = {key: parameter.default for key, parameter in ENCODERS.settings(kind).items()}
        return defaults | ENCODERS.check(kind, {**self.encoders.get(kind, {}), **self.modalities.get(name, {})})

    def fusion_settings(self, name: str) -> dict[str, Any]:
        """The model's sizes, those this fusion has, and its own settings over them."""
        known = FUSIONS.settings(name)
        sizes = {key: value for key, value in self.model.model_dump().items() if key in known}
        return {**sizes, **self.fusions.get(name, {})}


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(files("remind") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(recipe: str | Path | Recipe | None = None, overrides: Iterable[str] = (), **given: Any) -> Recipe:
    """A recipe, a file of one, or a shipped name; then ``a.b=value`` overrides; then keyword arguments. All checked.

    Raises:
        RemindError: naming the file or the override, the key, and what is wrong with it.
    """
    place, data = "the settings", {}
    if isinstance(recipe, Recipe):
        data = recipe.model_dump()
    elif recipe is not None:
        path = shipped_recipes().get(str(recipe), Path(recipe))
        place, data = str(recipe), _read(path)
    for override in overrides:
        _apply(data, override)
    data |= {key: value for key, value in given.items() if value is not None}
    try:
        loaded = Recipe.model_validate(data)
    except ValidationError as error:
        raise explain(place, error, Recipe) from None
    loaded.check()
    return loaded


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_yaml(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError):
        known = ", ".join(shipped_recipes())
        raise RemindError(f"{path}: no such recipe; name a YAML file or one of: {known}.") from None
    if not isinstance(data, Mapping):
        raise RemindError(f"{path}: a recipe is a mapping of settings.")
    return dict(data)


def _apply(data: dict[str, Any], override: str) -> None:
    """Write ``a.b=value`` into nested mappings; the value is read as YAML."""
    key, equals, text = override.partition("=")
    if not (key and equals):
        raise RemindError(f"override {override!r} does not read key=value, such as train.lr=0.001.")
    *parents, last = key.split(".")
    place = data
    for parent in parents:
        if not isinstance(inner := place.get(parent) or {}, Mapping):
            raise RemindError(f"override {override!r}: {parent!r} is a value, not a section.")
        place[parent] = place = dict(inner)
    place[last] = read_yaml(text, f"override {override!r}: the value")
