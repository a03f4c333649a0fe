"""Suites: many runs of one cohort, trained side by side and compared."""
