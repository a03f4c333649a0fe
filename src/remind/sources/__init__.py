"""Writers of cohort folders: one file a source."""

from remind.registry import Registry

SOURCES = Registry(
    "source",
    {
        "nhanes": "remind.sources.nhanes:write",
        "synthetic": "remind.sources.synthetic:write",
        "mimic-iv": "remind.sources.mimic_iv:write",
        "embed": "remind.sources.embed:write",
        "fprm": "remind.sources.fprm:write",
    },
)
