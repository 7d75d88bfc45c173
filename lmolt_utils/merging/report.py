"""What a merge did, tensor by tensor: angles between the parents, the branch SLERP took, sign conflicts, distances.

Sums are float64 over blocks of rows, read where they lie: memory does not grow with the model.
"""

import inspect
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open

from lmolt_utils.config.systems import System
from lmolt_utils.merging.checks import local_folder, shards
from lmolt_utils.merging.merges import Merge, make_merge, merge_of, with_weights
from lmolt_utils.run.notebook import Run

#: Elements of each model that are in memory at a time.
BLOCK = 4_000_000
#: Part of a tensor's name -> the group it belongs to; the first that fits counts.
GROUPS = {"embed": "embedding", "lm_head": "head", "norm": "norm", "attn": "attention", "mlp": "mlp"}


def merge_reports(run: Run, systems: Sequence[System]) -> dict[str, pd.DataFrame]:
    """:func:`tensor_report` of each distinct merge among ``systems`` (made if it is not there), by its name."""
    reports: dict[str, pd.DataFrame] = {}
    for system in systems:
        merge = merge_of(system, system.params(run.params))
        if merge is not None and merge.name not in reports:
            folder = make_merge(run, merge, say=lambda _: None)
            reports[merge.name] = tensor_report(merge, with_weights(merge, str(folder)))
    return reports


def tensor_report(merge: Merge, folder: str) -> pd.DataFrame:
    """One row per tensor of the merge in ``folder``.

    - ``tensor``, ``group``, ``elements``;
    - ``angle`` between the parents' weights, ``task_angle`` between their task vectors (degrees);
    - ``branch``: what SLERP does at that angle (NuSLERP: at the task vectors'), ``spherical`` or ``linear``; or empty;
    - ``sign_conflicts``: of the entries that both task vectors change, the share whose signs differ;
    - ``task_cap2mol``, ``task_mol2cap``, ``update``: norms of both task vectors and of merged - base, over the base's;
    - ``to_cap2mol``, ``to_mol2cap``: distances of the merge to the parents, over that between the parents.

    A ratio over zero (the models agree in a tensor) is NaN.
    """
    roles = {"cap2mol": merge.cap2mol, "mol2cap": merge.mol2cap, "base": merge.base, "merged": folder}
    places = {role: shards(Path(local_folder(name))) for role, name in roles.items()}
    files = {file for own in places.values() for file in own.values()}
    with ExitStack() as stack:
        opened = {file: stack.enter_context(safe_open(str(file), framework="pt")) for file in files}
        rows = []
        for name in places["cap2mol"]:
            slices = {role: opened[own[name]].get_slice(name) for role, own in places.items()}
            rows.append({"tensor": name, **_row(slices, merge.rule)})
    table = pd.DataFrame(rows)
    groups = [next((group for part, group in GROUPS.items() if part in name), "other") for name in table["tensor"]]
    table.insert(1, "group", groups)
    return table


def _row(slices: Mapping[str, Any], rule: str) -> dict[str, Any]:
    sums: dict[str, float] = defaultdict(float)
    shape = slices["cap2mol"].get_shape()  # a base may have more rows
    rows = max(1, BLOCK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        stop = min(start + rows, shape[0])
        a, b, base, merged = (part[start:stop].double().flatten() for part in slices.values())
        s, t = a - base, b - base
        parts = {"a": a, "b": b, "s": s, "t": t, "base": base, "apart": a - b}
        parts |= {"update": merged - base, "to a": merged - a, "to b": merged - b}
        for key, part in parts.items():
            sums[key] += float(part @ part)
        sums["a b"] += float(a @ b)
        sums["s t"] += float(s @ t)
        sums["elements"] += a.numel()
        sums["both"] += int(((s != 0) & (t != 0)).sum())
        sums["conflicts"] += int((s * t < 0).sum())

    def ratio(upper: str, lower: str) -> float:
        return sums[upper] / sums[lower] if sums[lower] else math.nan

    angle = _angle(sums["a b"], sums["a"], sums["b"])
    task_angle = _angle(sums["s t"], sums["s"], sums["t"])
    return {
        "elements": int(sums["elements"]),
        "angle": math.degrees(angle),
        "task_angle": math.degrees(task_angle),
        "branch": _branch(rule, angle, task_angle),
        "sign_conflicts": ratio("conflicts", "both"),
        "task_cap2mol": math.sqrt(ratio("s", "base")),
        "task_mol2cap": math.sqrt(ratio("t", "base")),
        "update": math.sqrt(ratio("update", "base")),
        "to_cap2mol": math.sqrt(ratio("to a", "apart")),
        "to_mol2cap": math.sqrt(ratio("to b", "apart")),
    }


def _angle(dot: float, first: float, second: float) -> float:
    """Radians between two vectors from their product and squared norms; NaN when one is zero."""
    return math.acos(max(-1.0, min(1.0, dot / math.sqrt(first * second)))) if first and second else math.nan


def _branch(rule: str, angle: float, task_angle: float) -> str:
    if rule == "slerp":
        from mergekit.merge_methods.slerp import slerp

        threshold = inspect.signature(slerp).parameters["dot_threshold"].default  # the installed version's
        return "linear" if abs(math.cos(angle)) > threshold else "spherical"
    if rule == "nuslerp" and not math.isnan(task_angle):
        return "linear" if abs(math.sin(task_angle)) <= 1e-8 else "spherical"  # mergekit: sin² <= 1e-16
    return ""


def group_report(tensors: pd.DataFrame) -> pd.DataFrame:
    """:func:`tensor_report` by group: median angles and ratios, and how many tensors took the linear branch."""
    order = [group for group in [*GROUPS.values(), "other"] if group in set(tensors["group"])]
    numbers = ["angle", "task_angle", "sign_conflicts", "task_cap2mol", "task_mol2cap", "update"]
    by = tensors.groupby("group")
    table = by[numbers].median()
    table.insert(0, "tensors", by.size())
    table.insert(1, "linear", by["branch"].agg(lambda column: int((column == "linear").sum())))
    return table.loc[order]


def overall(reports: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per merge: means over its tensors, weighted by their elements, and how many took the linear branch."""
    rows = {}
    for name, tensors in reports.items():
        row: dict[str, Any] = {}
        for column in ("to_cap2mol", "to_mol2cap", "update", "sign_conflicts"):
            known = tensors[tensors[column].notna()]
            row[column] = np.average(known[column], weights=known["elements"]) if len(known) else math.nan
        linear = (tensors["branch"] == "linear").sum()
        row["linear branch"] = f"{linear} of {len(tensors)} tensors" if tensors["branch"].any() else ""
        rows[name] = row
    return pd.DataFrame(rows).T.rename_axis("merge")
