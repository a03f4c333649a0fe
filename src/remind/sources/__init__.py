"""Writers of cohort folders: one file a source."""

from remind.registry import Registry

SOURCES = Registry("source", {"nhanes": "remind.sources.nhanes:write", "synthetic": "remind.sources.synthetic:write"})
