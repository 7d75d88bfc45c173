"""Where predictions lie and what their columns are."""

from pathlib import Path
from typing import Any

#: ``raw`` is the model's output as it came, ``prediction`` the cleaned one that is scored.
PREDICTION_COLUMNS = ("id", "task", "source", "reference", "raw", "prediction")


def prediction_path(run: Any, name: str, task: str) -> Path:
    """Where the predictions of one system on one task lie."""
    path: Path = run.path("predictions", f"{name}.{task}.jsonl")
    return path
