"""Measurements: commands that print a table (python -m lmolt_utils.benchmarks.NAME)."""
