"""New missingness for a cohort that is there: a rule says what each sample keeps, and a new cohort is written.

A rule is a function ``rule(cohort, seed, *, settings) -> Masked``; one file each, listed here by name.
"""

from pathlib import Path
from typing import Any

from remind.cohort.cohort import Cohort
from remind.cohort.missingness.masked import write_masked
from remind.errors import RemindError
from remind.registry import Registry

RULES = Registry(
    "rule",
    {
        "mcar": "remind.cohort.missingness.mcar:mcar",
        "mar": "remind.cohort.missingness.mar:mar",
        "mnar": "remind.cohort.missingness.mnar:mnar",
        "shares": "remind.cohort.missingness.shares:shares",
        "extreme": "remind.cohort.missingness.extreme:extreme",
        "hold-out": "remind.cohort.missingness.hold_out:hold_out",
    },
)


def mask(cohort: Cohort, out: Path, rule: str, /, *, seed: int = 0, **settings: Any) -> Path:
    """Write to ``out`` what a rule leaves of a cohort; ``mask.json`` beside it says what was done.

    Raises:
        RemindError: if there is no such rule, a setting is missing or does not fit, the cohort does not allow it, or
            the folder is there already.
    """
    known = RULES.settings(rule)
    complete = {key: parameter.default for key, parameter in known.items() if parameter.default is not parameter.empty}
    complete |= RULES.check(rule, settings)
    if missing := [key for key in known if key not in complete]:
        raise RemindError(f"rule {rule!r} needs the setting {missing[0]!r}; give it.")
    masked = RULES.get(rule)(cohort, seed, **complete)
    return write_masked(cohort, out, masked, rule=rule, seed=seed, settings=complete)
