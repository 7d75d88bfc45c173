"""The scores of all systems, read back from their files: tables, spread over seeds."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.systems import System
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import read_json, read_rows
from lmolt_utils.metrics.intervals import Scored, read_statistics
from lmolt_utils.metrics.scoring import score_path
from lmolt_utils.run.notebook import Run

SCORE_COLUMNS = ("system", "task", "metric", "value", "n", "low", "high")
SEED_COLUMNS = ("system", "task", "metric", "mean", "spread", "low", "high", "seeds", "wanted")
QUANTITIES = ("length_deviation", "chr_f", "entailment")
NOT_RUN = "not run"
#: What scores must have in common to stand in one table.
COMPARABLE = ("tokenizer", "meteor_matcher", "invalid")


# ---- score files ----


def all_scores(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Long table (:data:`SCORE_COLUMNS`) of every score file there is, with 95 % intervals (NaN: there is none)."""
    lines = []
    for system in systems:
        for task in TASKS:
            if (path := score_path(run, system.name, task, "json")).exists():
                result = read_json(path)
                for metric, value in result["metrics"].items():
                    interval = result.get("intervals", {}).get(metric, {})
                    ends = interval.get("low"), interval.get("high")
                    lines.append((system.name, task, metric, value, result["n"], *ends))
    frame = pd.DataFrame(lines, columns=list(SCORE_COLUMNS))
    return frame.astype({"value": float, "n": int, "low": float, "high": float})


def read_scores(run: Run, name: str, task: Task) -> Scored:
    """Read back what scoring wrote; raises :class:`~lmolt_utils.files.BadFileError` naming the missing file."""
    metrics = read_json(score_path(run, name, task, "json"))["metrics"]
    return Scored(
        {metric: math.nan if value is None else float(value) for metric, value in metrics.items()},
        read_rows(score_path(run, name, task, "samples.jsonl"), ("id",)),
        **read_statistics(score_path(run, name, task, "statistics.npz")),
    )


def all_samples(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Long table of per-row values: system, task, id, quantity (:data:`QUANTITIES`), value."""
    frames = []
    for system in systems:
        files = [(task, score_path(run, system.name, task, "samples.jsonl")) for task in TASKS]
        for task, path in (*files, ("mol2cap", run.path("scores", f"{system.name}.nli.jsonl"))):
            if path.exists():
                rows = read_rows(path, ("id",)).rename(columns={"Chr-F": "chr_f"})
                kept = [name for name in QUANTITIES if name in rows]
                long = rows.melt(id_vars=["id"], value_vars=kept, var_name="quantity", value_name="value")
                frames.append(long.assign(system=system.name, task=task))
    columns = ["system", "task", "id", "quantity", "value"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def conventions(run: Run, systems: Sequence[System], task: Task) -> dict[str, Any]:
    """What all scores of a task have in common; raises :class:`CompanionError` where :data:`COMPARABLE` differ."""
    found = {
        system.name: read_json(path)["conventions"]
        for system in systems
        if (path := score_path(run, system.name, task, "json")).exists()
    }
    first, *others = found or [""]
    for name in COMPARABLE:
        for other in others:
            if (one := found[first].get(name)) != (two := found[other].get(name)):
                raise CompanionError(
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


# ---- training seeds ----


def seeds_of(name: str, names: Iterable[str]) -> list[str]:
    """``name`` and, among ``names``, its copies for further training seeds (``<name>@seed<k>``)."""
    copy = re.compile(rf"{re.escape(name)}@seed\d+")
    return [name, *(other for other in names if copy.fullmatch(other))]


def seed_spread(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Mean and spread over training seeds (:data:`SEED_COLUMNS`) of the systems that have copies among ``systems``.

    spread: sample standard deviation, NaN for one seed; low, high: Student's t interval of the mean at 95 %; seeds: how
    many defined values there are, of ``wanted``.
    """
    names = [system.name for system in systems]
    copies = {name: seeds_of(name, names) for name in names}
    first = {copy: name for name, own in copies.items() if len(own) > 1 for copy in own}
    scores = all_scores(run, [system for system in systems if system.name in first])
    scores["system"] = scores["system"].map(first)
    groups = scores.groupby(["system", "task", "metric"], sort=False)["value"]
    frame = groups.agg(mean="mean", spread="std", seeds="count").reset_index()
    half = stats.t.ppf(0.975, frame["seeds"] - 1) * frame["spread"] / np.sqrt(frame["seeds"])
    frame = frame.assign(low=frame["mean"] - half, high=frame["mean"] + half)
    return frame.assign(wanted=[len(copies[name]) for name in frame["system"]])[list(SEED_COLUMNS)]
