"""Where predictions lie, what their columns are, and how raw outputs become what is scored."""

from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.files import read_rows
from lmolt_utils.postprocess import Rule, postprocess
from lmolt_utils.systems import System

#: ``raw`` is the model's output as it came, ``prediction`` the same under the rule ``clean``, for readers.
PREDICTION_COLUMNS = ("id", "task", "source", "reference", "raw", "prediction")


def prediction_path(run: Any, name: str, task: str) -> Path:
    """Where the predictions of one system on one task lie."""
    path: Path = run.path("predictions", f"{name}.{task}.jsonl")
    return path


def rule_of(run: Any, system: System) -> Rule:
    """What is done to the raw outputs of ``system`` before they are scored: its row's rule, or the profile's."""
    return system.params(run.params).postprocess


def scored_answers(run: Any, system: System, task: str) -> pd.DataFrame:
    """The predictions of ``system``, with ``prediction`` as :func:`rule_of` makes it from ``raw``."""
    frame = read_rows(prediction_path(run, system.name, task), PREDICTION_COLUMNS)
    return frame.assign(prediction=postprocess(list(frame["raw"]), rule_of(run, system))[0])
