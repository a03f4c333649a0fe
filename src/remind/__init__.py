"""Multi-modal learning when most patients lack some modalities.

>>> import remind
>>> cohort = remind.load("my-cohort")  # doctest: +SKIP
>>> model = remind.fit(cohort, method="remind", out="runs/remind-0")  # doctest: +SKIP
>>> model.predict_proba(cohort)  # doctest: +SKIP
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from remind.errors import RemindError

if TYPE_CHECKING:
    from remind.api import evaluate, fit, load_model
    from remind.cohort.cohort import Cohort, load
    from remind.config import Recipe
    from remind.engine.fitted import FittedModel
    from remind.estimator import RemindClassifier
    from remind.prediction import predict
    from remind.publish import publish
    from remind.suite.compare import compare

# Tensors of the CPU in huge pages, where the system allows: every step makes the experts' gradients anew, and faults of
# small pages cost more than the products. torch reads this when it first allocates; decision 30.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_HOMES = {
    "load": "remind.cohort.cohort",
    "Cohort": "remind.cohort.cohort",
    "fit": "remind.api",
    "evaluate": "remind.api",
    "compare": "remind.suite.compare",
    "predict": "remind.prediction",
    "publish": "remind.publish",
    "load_model": "remind.api",
    "FittedModel": "remind.engine.fitted",
    "Recipe": "remind.config",
    "RemindClassifier": "remind.estimator",
}

__all__ = [
    "Cohort",
    "FittedModel",
    "Recipe",
    "RemindClassifier",
    "RemindError",
    "compare",
    "evaluate",
    "fit",
    "load",
    "load_model",
    "predict",
    "publish",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: ``import remind`` alone loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'remind' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
