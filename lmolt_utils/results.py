"""The scores of all systems, collected from their files into long tables."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lmolt_utils.files import read_json, read_rows
from lmolt_utils.prompts import TASKS, Task
from lmolt_utils.systems import System

SCORE_COLUMNS = ("system", "task", "metric", "value", "n")
QUANTITIES = ("length_deviation", "chr_f", "entailment")
NOT_RUN = "not run"


def all_scores(run: Any, systems: Sequence[System]) -> pd.DataFrame:
    """Long table (:data:`SCORE_COLUMNS`) of every score file there is; systems without one have no rows."""
    lines = []
    for system in systems:
        for task in TASKS:
            path = run.path("scores", f"{system.name}.{task}.json")
            if path.exists():
                result = read_json(path)
                for metric, value in result["metrics"].items():
                    lines.append((system.name, task, metric, value, result["n"]))
    frame = pd.DataFrame(lines, columns=list(SCORE_COLUMNS))
    return frame.astype({"value": float, "n": int})


def all_samples(run: Any, systems: Sequence[System]) -> pd.DataFrame:
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


def conventions(run: Any, systems: Sequence[System], task: Task) -> dict[str, Any]:
    """What all scores of a task have in common (tokenizer, matcher, versions).

    Raises ``ValueError`` when systems were scored with different tokenizers: their numbers must not share a table.
    """
    found = [
        read_json(p)["conventions"] for s in systems if (p := run.path("scores", f"{s.name}.{task}.json")).exists()
    ]
    names = {entry.get("tokenizer") for entry in found}
    if len(names) > 1:
        raise ValueError(f"scores were made with different tokenizers ({', '.join(map(str, names))}): score again")
    return found[0] if found else {}


def overview(run: Any, systems: Sequence[System], task: Task) -> pd.DataFrame:
    """Systems against metrics for one task; a system without scores says so in every cell."""
    scores = all_scores(run, systems)
    wide = scores[scores["task"] == task].pivot(index="system", columns="metric", values="value")
    order = list(dict.fromkeys(scores.loc[scores["task"] == task, "metric"]))
    wide = wide.reindex(index=[system.name for system in systems], columns=order)
    wide.index = pd.Index([system.label for system in systems], name="system")
    return wide.round(3).astype(object).where(wide.notna(), NOT_RUN)
