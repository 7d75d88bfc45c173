"""The scores of all systems, collected from their files into long tables."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.systems import System
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import read_json, read_rows
from lmolt_utils.metrics.intervals import StoredStatistics, across_seeds, additive, read_statistics, resampled
from lmolt_utils.run.notebook import Run

SCORE_COLUMNS = ("system", "task", "metric", "value", "n", "low", "high")
SEED_COLUMNS = ("system", "task", "metric", "mean", "spread", "low", "high", "seeds", "wanted")
QUANTITIES = ("length_deviation", "chr_f", "entailment")
NOT_RUN = "not run"
#: What scores must have in common to stand in one table.
COMPARABLE = ("tokenizer", "meteor_matcher", "wordnet", "invalid")


class MixedScoresError(CompanionError, ValueError):
    """Scores by different conventions, which must not share a table."""


def all_scores(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Long table (:data:`SCORE_COLUMNS`) of every score file there is; systems without one have no rows.

    low and high: the 95 % interval, NaN where a metric has none.
    """
    lines = []
    for system in systems:
        for task in TASKS:
            path = run.path("scores", f"{system.name}.{task}.json")
            if path.exists():
                result = read_json(path)
                for metric, value in result["metrics"].items():
                    interval = result.get("intervals", {}).get(metric, {})
                    ends = interval.get("low"), interval.get("high")
                    lines.append((system.name, task, metric, value, result["n"], *ends))
    frame = pd.DataFrame(lines, columns=list(SCORE_COLUMNS))
    return frame.astype({"value": float, "n": int, "low": float, "high": float})


@dataclass(frozen=True, eq=False)
class StoredScores:
    """The scores of one system on one task as their files have them: values, rows, per-row statistics."""

    metrics: dict[str, float]
    samples: pd.DataFrame
    statistics: StoredStatistics


def read_scores(run: Run, name: str, task: Task) -> StoredScores:
    """Read back what scoring wrote; raises :class:`~lmolt_utils.files.BadFileError` naming the missing file."""
    values = read_json(run.path("scores", f"{name}.{task}.json"))["metrics"]
    return StoredScores(
        {metric: math.nan if value is None else float(value) for metric, value in values.items()},
        read_rows(run.path("scores", f"{name}.{task}.samples.jsonl"), ("id",)),
        read_statistics(run.path("scores", f"{name}.{task}.statistics.npz")),
    )


def replicates(
    run: Run, wanted: Iterable[tuple[str, Task, str]], resamples: int = 1000, seed: int = 0
) -> dict[tuple[str, str], np.ndarray]:
    """Values of (system, metric) under the same draws of the test rows, shape (resamples,) each.

    wanted: (system, task, metric). What has no scores, or is no function of sums over rows, is left out.
    """
    read: dict[tuple[str, Task], StoredScores] = {}
    found = {}
    for system, task, metric in dict.fromkeys(wanted):
        if not run.path("scores", f"{system}.{task}.statistics.npz").exists():
            continue
        if (system, task) not in read:
            read[system, task] = read_scores(run, system, task)
        part = additive(read[system, task], metric)
        if part is not None:
            found[system, metric] = resampled([part], resamples, seed)[0]
    return found


def seed_spread(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Mean and spread over training seeds (:data:`SEED_COLUMNS`) of the systems that have copies among ``systems``.

    ``scores/<name>.<task>.json`` is one seed's, ``scores/<name>@seed<k>.<task>.json`` are the others'; files of seeds
    that are not asked for do not count. seeds: how many values there are, of ``wanted``.
    """
    frames = []
    for system in systems:
        own = re.compile(rf"{re.escape(system.name)}@seed\d+")
        copies = [copy.name for copy in systems if own.fullmatch(copy.name)]
        for task in TASKS if copies else ():
            files = [run.path("scores", f"{name}.{task}.json") for name in (system.name, *copies)]
            values = [read_json(path)["metrics"] for path in files if path.exists()]
            if values:
                runs = [{m: math.nan if v is None else v for m, v in one.items()} for one in values]
                frames.append(across_seeds(runs).assign(system=system.name, task=task, wanted=len(files)))
    return pd.concat(frames, ignore_index=True)[list(SEED_COLUMNS)] if frames else pd.DataFrame(columns=SEED_COLUMNS)


def all_samples(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Long table of per-row values: system, task, id, quantity (:data:`QUANTITIES`), value."""
    frames = []
    for system in systems:
        for task in TASKS:
            path = run.path("scores", f"{system.name}.{task}.samples.jsonl")
            if path.exists():
                frames.append(_long(read_rows(path, ("id", *QUANTITIES[:2])), system.name, task))
        path = run.path("scores", f"{system.name}.nli.jsonl")
        if path.exists():
            frames.append(_long(read_rows(path, ("id", "entailment")), system.name, "mol2cap"))
    columns = ["system", "task", "id", "quantity", "value"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def _long(frame: pd.DataFrame, system: str, task: str) -> pd.DataFrame:
    kept = [name for name in QUANTITIES if name in frame]
    long = frame.melt(id_vars=["id"], value_vars=kept, var_name="quantity", value_name="value")
    return long.assign(system=system, task=task)


def conventions(run: Run, systems: Sequence[System], task: Task) -> dict[str, Any]:
    """What all scores of a task have in common (tokenizer, matcher, versions).

    Raises :class:`MixedScoresError` when systems were scored by different conventions (:data:`COMPARABLE`).
    """
    found = {
        system.name: read_json(path)["conventions"]
        for system in systems
        if (path := run.path("scores", f"{system.name}.{task}.json")).exists()
    }
    first, *others = found or [""]
    for name in COMPARABLE:
        for other in others:
            if (one := found[first].get(name)) != (two := found[other].get(name)):
                raise MixedScoresError(
                    f"{task}: {first} was scored with {name} {one!r}, {other} with {two!r}; such numbers do not share "
                    "a table. Run 07_nli_evaluation again, which scores all systems alike."
                )
    return found.get(first, {})


def overview(run: Run, systems: Sequence[System], task: Task) -> pd.DataFrame:
    """Systems against metrics for one task, value ± half the 95 % interval; without scores every cell says so."""
    scores = all_scores(run, systems)
    scores = scores[scores["task"] == task]
    wide = scores.assign(text=[_text(line) for line in scores.itertuples()])
    wide = wide.pivot(index="system", columns="metric", values="text")
    order = list(dict.fromkeys(scores["metric"]))
    wide = wide.reindex(index=[system.name for system in systems], columns=order)
    wide.index = pd.Index([system.label for system in systems], name="system")
    return wide.astype(object).where(wide.notna(), NOT_RUN)


def _text(line: Any) -> str:
    if math.isnan(line.value):
        return "undefined"
    half = (line.high - line.low) / 2
    return f"{line.value:.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")
