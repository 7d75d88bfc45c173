"""Small tables that the notebooks show: what systems answered, how training went."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.systems import System
from lmolt_utils.files import read_rows
from lmolt_utils.metrics.distributions import right_modality
from lmolt_utils.models.predictions import scored_answers
from lmolt_utils.run.notebook import Run


def training_logs(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Training logs of those ``systems`` that have one: step, loss, seconds and more, with the system's label."""
    frames = []
    for system in systems:
        path = run.path("logs", f"{system.name}.training.jsonl")
        if path.exists():
            log = read_rows(path, ("step", "loss"))
            seconds = path.with_name(path.name.replace(".jsonl", ".seconds.jsonl"))
            if seconds.exists():
                log = log.merge(read_rows(seconds, ("step", "seconds")), on="step", how="left")
            frames.append(log.assign(system=system.label))
    return (
        pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["system", "step", "loss", "seconds"])
    )


def glance(run: Run, systems: Sequence[System], task: Task, rows: int = 3, width: int = 110) -> Any:
    """The first test rows and what of each system's answers is scored, shortened to ``width`` characters."""
    table: dict[str, list[str]] = {}
    for system in systems:
        frame = scored_answers(run, system, task).head(rows)
        table.setdefault("reference", [text[:width] for text in frame["reference"]])
        table[system.label] = [text[:width] or "(empty)" for text in frame["prediction"]]
    shown = pd.DataFrame(table).T.style.format(escape="html")
    return shown.format_index(escape="html").set_properties(None, **{"text-align": "left", "font-size": "85%"})


def modality(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Share of outputs in the right language: what looks like a caption, like a molecule (valid or not)."""
    rows = []
    for system in systems:
        captions, molecules = (
            right_modality(list(scored_answers(run, system, task)["prediction"]), task).mean() for task in TASKS
        )
        rows.append({"system": system.label, "captions": captions, "molecules": molecules})
    return pd.DataFrame(rows).set_index("system")
