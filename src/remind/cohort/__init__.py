"""Cohorts: a table of samples, a spec of its modalities, and everything derived from which ones are missing."""
