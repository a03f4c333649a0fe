"""Evaluation: tables of predictions to numbers, overall and for every combination."""
