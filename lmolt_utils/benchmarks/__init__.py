"""Measurements of the package: each module prints a table (``python -m lmolt_utils.benchmarks.NAME``)."""
