"""Where predictions lie, what their columns are, and how raw outputs become what is scored."""

from pathlib import Path

import pandas as pd

from lmolt_utils.config.systems import System
from lmolt_utils.files import read_rows
from lmolt_utils.models.postprocess import Rule, postprocess, postprocess_references
from lmolt_utils.run.notebook import Run

#: ``raw`` is the model's output as it came, ``prediction`` the same under the rule ``clean``, for readers.
PREDICTION_COLUMNS = ("id", "task", "source", "reference", "raw", "prediction")


def prediction_path(run: Run, name: str, task: str) -> Path:
    return run.path("predictions", f"{name}.{task}.jsonl")


def rule_of(run: Run, system: System) -> Rule:
    """What is done to the raw outputs of ``system``: its row's rule, or the profile's."""
    return system.params(run.params).postprocess


def scored_answers(run: Run, system: System, task: str) -> pd.DataFrame:
    """The predictions of ``system``, ``prediction`` made from ``raw`` by :func:`rule_of`, references likewise."""
    frame = read_rows(prediction_path(run, system.name, task), PREDICTION_COLUMNS)
    rule = rule_of(run, system)
    references, _ = postprocess_references(list(frame["reference"]), rule)
    return frame.assign(reference=references, prediction=postprocess(list(frame["raw"]), rule)[0])
