"""Missing not at random: with a probability that depends on the label, or on what the modality itself would show."""

from typing import Literal

import numpy as np

from remind.cohort.cohort import Cohort
from remind.cohort.missingness.logistic import draw, is_number, score, standardised
from remind.cohort.missingness.masked import Masked, Remove, removal
from remind.errors import RemindError
from remind.registry import Amount


def mnar(
    cohort: Cohort, seed: int, *, remove: Remove, given: Literal["label", "value"], strength: Amount = 2.0
) -> Masked:
    """Remove each modality from about its share of samples, more likely from some than from others.

    By ``label``: a log-odds drawn for each class, all together of norm ``strength``. By ``value``: up or down, as
    drawn, by ``strength`` a standard deviation of the first principal component of the modality's own numbers.
    """

    def lose(rng: np.random.Generator, modality: str, having: np.ndarray, share: float) -> np.ndarray:
        if given == "label":
            numbers, codes = np.empty((len(having), 0)), [(cohort.target[having], len(cohort.classes))]
        else:
            numbers, codes = _component(cohort, modality, having)[:, None], []
        return draw(rng, score(rng, numbers, codes, strength), share)

    return removal(cohort, seed, remove, lose)


def _component(cohort: Cohort, name: str, having: np.ndarray) -> np.ndarray:
    """The first principal component of a modality's standardised numbers, standardised, ``[k]`` for those having it."""
    modality = cohort.spec.modalities[name]
    if modality.kind != "tabular":
        raise RemindError(
            f"{cohort.spec.name}: modality {name!r} is of kind {modality.kind}, of which only tables have a 'value' to "
            "depend on; give 'label'."
        )
    table = cohort.samples[having]
    numbers = [c for c in modality.columns if is_number(table[c]) and c not in modality.categorical]
    scaled = np.array([standardised(table[column]) for column in numbers]).reshape(-1, table.height).T
    if not scaled.any():
        raise RemindError(f"{cohort.spec.name}: modality {name!r} has no numbers that vary; give 'label'.")
    direction = np.linalg.eigh(scaled.T @ scaled)[1][:, -1]
    leading = np.argmax(np.abs(direction) > 0.99 * np.abs(direction).max())  # loadings of two numbers are equally large
    component = scaled @ direction * np.sign(direction[leading])
    return component / component.std()
