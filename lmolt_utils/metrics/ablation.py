"""What one change does to the answers: a system against the one that it differs from, row by row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.systems import System, load_systems
from lmolt_utils.metrics.distributions import chr_f, right_modality
from lmolt_utils.models.predictions import scored_answers
from lmolt_utils.run.notebook import Run

COLUMNS = ("system", "against", "task", "measure", "before", "after", "difference", "low", "high", "n")


def row_values(predictions: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Per prediction: Chr-F (0 to 1), whether it is in the right language (1 or 0), length in characters.

    In the right language is what :func:`~lmolt_utils.metrics.distributions.modality` takes for what the task asks for.
    """
    answers = predictions["prediction"].astype(str)
    values = {
        "Chr-F": chr_f(list(predictions["reference"]), list(answers)),
        "right language": right_modality(list(answers), task).astype(float),
        "characters": answers.str.len().astype(float).to_numpy(),
    }
    return pd.DataFrame(values, index=predictions["id"])


def effects(run: Run, systems: Sequence[System], *, resamples: int = 2000) -> pd.DataFrame:
    """Columns :data:`COLUMNS`: per system with ``against``, task and measure the paired difference of row means.

    ``low`` and ``high`` bound it at 95 % (percentile bootstrap over test rows, seed of the run). Raises
    :class:`~lmolt_utils.files.BadFileError` when either system has no predictions, ``ValueError`` when
    they are of different rows.
    """
    by_name = {system.name: system for system in (*load_systems(), *systems)}
    lines = []
    for system in systems:
        if system.against is None:
            continue
        for task in TASKS:
            before, after = (
                row_values(scored_answers(run, by_name[name], task), task) for name in (system.against, system.name)
            )
            if list(before.index) != list(after.index):
                raise ValueError(f"{system.against} and {system.name} answered different test rows: run both again")
            for measure in before:
                difference = (after[measure] - before[measure]).to_numpy()
                low, high = _interval(difference, resamples, run.params.seed)
                names = (system.label, by_name[system.against].label, task, measure)
                means = (before[measure].mean(), after[measure].mean(), difference.mean())
                lines.append((*names, *means, low, high, len(difference)))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _interval(difference: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap of a mean; a constant difference has no spread."""
    if np.ptp(difference) == 0:
        return float(difference[0]), float(difference[0])
    found = bootstrap(
        (difference,), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed), batch=200
    ).confidence_interval
    return float(found.low), float(found.high)


def effects_table(frame: pd.DataFrame) -> Any:
    """:func:`effects` for the eye: one line per system and task, differences with their intervals, clear ones bold."""
    cells = frame.assign(
        text=[
            f"{d:+.2f} [{lo:+.2f}, {hi:+.2f}]"
            for d, lo, hi in zip(frame.difference, frame.low, frame.high, strict=True)
        ],
        clear=(frame.low > 0) | (frame.high < 0),
    )
    keys = ["system", "against", "task"]
    order = list(dict.fromkeys(frame["measure"]))
    wide = cells.pivot(index=keys, columns="measure", values="text")[order]
    bold = cells.pivot(index=keys, columns="measure", values="clear")[order]
    rows = pd.MultiIndex.from_frame(frame[keys].drop_duplicates())
    wide, bold = wide.reindex(rows), bold.reindex(rows)
    styles = bold.map(lambda clear: "font-weight: bold" if clear else "")
    return wide.style.apply(lambda _: styles, axis=None)
