"""What tables and figures are tested on: a few systems with made-up scores, a run folder to write to; what is read."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from lmolt_utils.config.params import load
from lmolt_utils.run.notebook import Run


@dataclass(frozen=True)
class Row:
    """A system, as far as tables know it."""

    name: str
    label: str
    rows: dict[str, str] = field(default_factory=dict)


SYSTEMS = [
    Row("meditron", "Meditron", {"T2": "Meditron", "T3": "Meditron"}),
    Row("cpo", "CPO", {"T2": "CPO", "T3": "CPO"}),
    Row("slerp+cpo", "SLERP+CPO", {"T4": "SLERP+CPO", "T5": "SLERP+CPO"}),
    Row("init", "init only", {"T2": "init only", "T3": "init only"}),
]


def scores_of(*rows: tuple[str, str, str, float | None], n: int = 50) -> pd.DataFrame:
    """A frame of scores from (system, task, metric, value)."""
    return pd.DataFrame([(*row, n) for row in rows], columns=["system", "task", "metric", "value", "n"])


def words(figure: Figure) -> str:
    """Every visible text in the figure, line breaks undone."""
    found = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible()]
    return " ".join(found).replace("\n", " ")


@pytest.fixture
def run(runs: Path) -> Run:
    """A run whose figures lie under the test's folder."""
    return Run("08_figures", runs / "smoke", load("smoke"))
