"""A made-up run: three systems, their scores, and a folder to write to."""

from pathlib import Path

import pytest

from lmolt_utils.config.params import load
from lmolt_utils.run.notebook import Run


@pytest.fixture
def run(runs: Path) -> Run:
    """A run whose figures lie under the test's folder."""
    return Run("08_figures", runs / "smoke", load("smoke"))
