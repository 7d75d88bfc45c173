"""What a merge did, tensor by tensor: angles between the parents, the branch SLERP took, sign conflicts, distances.

Sums are float64 over blocks of rows, read where they lie: memory does not grow with the model.
"""

import inspect
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open

from lmolt_utils.config.systems import System
from lmolt_utils.merging.checks import local_folder, shards
from lmolt_utils.merging.merges import Merge, make_merge, merge_of, with_weights
from lmolt_utils.run.notebook import Run

#: Elements of each model that are in memory at a time.
BLOCK = 4_000_000
#: Part of a tensor's name -> the group it belongs to; the first that fits counts.
GROUPS = {"embed": "embedding", "lm_head": "head", "norm": "norm", "attn": "attention", "mlp": "mlp"}


def slerp_threshold() -> float:
    """Above this |cosine| mergekit's SLERP interpolates linearly: the default in the installed version."""
    from mergekit.merge_methods.slerp import slerp

    return float(inspect.signature(slerp).parameters["dot_threshold"].default)


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

    - ``tensor``, ``layer``, ``group``, ``elements``;
    - ``angle`` between the parents' weights, ``task_angle`` between their task vectors (degrees);
    - ``branch``: what SLERP does at that angle, ``spherical``, or ``linear`` above mergekit's threshold (NuSLERP: at
      that between the task vectors); empty for rules without angles;
    - ``not_linear``: the largest |SLERP - linear| over the largest |mol2cap - cap2mol|, as if there were no threshold;
    - ``sign_conflicts``: of the entries that both task vectors change, the share whose signs differ;
    - ``task_cap2mol``, ``task_mol2cap``, ``update``: norms of both task vectors and of merged - base, over the base's;
    - ``to_cap2mol``, ``to_mol2cap``: distances of the merge to the parents, over that between the parents.

    A ratio whose denominator is zero (a tensor in which the models agree) is NaN.
    """
    roles = {"cap2mol": merge.cap2mol, "mol2cap": merge.mol2cap, "base": merge.base, "merged": folder}
    with ExitStack() as stack:
        models = _Models(roles, stack)
        return pd.DataFrame([_row(models, name, merge) for name in models.places["cap2mol"]])


class _Models:
    """The opened files of several models, read block by block."""

    def __init__(self, models: Mapping[str, str], stack: ExitStack) -> None:
        self.places = {role: shards(Path(local_folder(name))) for role, name in models.items()}
        files = {file for places in self.places.values() for file in places.values()}
        self.handles = {file: stack.enter_context(safe_open(str(file), framework="pt")) for file in files}

    def blocks(self, name: str) -> Iterator[dict[str, torch.Tensor]]:
        """A tensor's rows by role, float64 and flat, about ``BLOCK`` elements at a time."""
        parts = {role: self.handles[places[name]].get_slice(name) for role, places in self.places.items()}
        shape = parts["cap2mol"].get_shape()  # a base may have more rows
        rows = max(1, BLOCK // max(1, math.prod(shape[1:])))
        for start in range(0, shape[0], rows):
            stop = min(start + rows, shape[0])
            yield {role: part[start:stop].double().flatten() for role, part in parts.items()}


def _row(models: _Models, name: str, merge: Merge) -> dict[str, Any]:
    sums: dict[str, float] = defaultdict(float)
    elements, apart = 0, 0.0
    for block in models.blocks(name):
        a, b, base, merged = (block[role] for role in ("cap2mol", "mol2cap", "base", "merged"))
        s, t = a - base, b - base
        elements += a.numel()
        apart = max(apart, float((b - a).abs().max()))
        for key, (one, other) in {
            "a a": (a, a),
            "b b": (b, b),
            "a b": (a, b),
            "base": (base, base),
            "s s": (s, s),
            "t t": (t, t),
            "s t": (s, t),
            "apart": (a - b, a - b),
            "update": (merged - base, merged - base),
            "to a": (merged - a, merged - a),
            "to b": (merged - b, merged - b),
        }.items():
            sums[key] += float(one @ other)
        sums["both"] += int(((s != 0) & (t != 0)).sum())
        sums["conflicts"] += int((s * t < 0).sum())

    def ratio(upper: str, lower: str) -> float:
        return sums[upper] / sums[lower] if sums[lower] else math.nan

    angle = _angle(sums["a b"], sums["a a"], sums["b b"])
    task_angle = _angle(sums["s t"], sums["s s"], sums["t t"])
    return {
        "tensor": name,
        "layer": next((int(after) for before, after in pairwise(name.split(".")) if before == "layers"), None),
        "group": next((group for part, group in GROUPS.items() if part in name), "other"),
        "elements": elements,
        "angle": math.degrees(angle),
        "task_angle": math.degrees(task_angle),
        "branch": _branch(merge.rule, angle, task_angle),
        "not_linear": _not_linear(models, name, angle, merge.share) / apart if apart else math.nan,
        "sign_conflicts": ratio("conflicts", "both"),
        "task_cap2mol": math.sqrt(ratio("s s", "base")),
        "task_mol2cap": math.sqrt(ratio("t t", "base")),
        "update": math.sqrt(ratio("update", "base")),
        "to_cap2mol": math.sqrt(ratio("to a", "apart")),
        "to_mol2cap": math.sqrt(ratio("to b", "apart")),
    }


def _angle(dot: float, first: float, second: float) -> float:
    """Radians between two vectors from their product and squared norms; NaN when one is zero."""
    return math.acos(max(-1.0, min(1.0, dot / math.sqrt(first * second)))) if first and second else math.nan


def _branch(rule: str, angle: float, task_angle: float) -> str:
    if rule == "slerp":
        return "linear" if abs(math.cos(angle)) > slerp_threshold() else "spherical"
    if rule == "nuslerp" and not math.isnan(task_angle):
        return "linear" if abs(math.sin(task_angle)) <= 1e-8 else "spherical"  # mergekit: sin² <= 1e-16
    return ""


def _slerp_minus_linear(angle: float, share: float) -> tuple[float, float]:
    """What SLERP at ``angle`` (radians), without mergekit's threshold, adds to the factors of cap2mol and mol2cap."""
    if math.sin(angle) < 1e-12:
        return 0.0, 0.0
    first, second = math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)
    return first - (1 - share), second - share


def _not_linear(models: _Models, name: str, angle: float, share: float) -> float:
    """The largest entry of |SLERP - linear|: a second pass, as the factors follow from the angle."""
    if math.isnan(angle):
        return 0.0
    over, under = _slerp_minus_linear(angle, share)
    return max(float((over * b["cap2mol"] + under * b["mol2cap"]).abs().max()) for b in models.blocks(name))


def group_report(tensors: pd.DataFrame) -> pd.DataFrame:
    """:func:`tensor_report` by group: median angles and ratios, and how many tensors took the linear branch."""
    order = [group for group in [*GROUPS.values(), "other"] if group in set(tensors["group"])]
    numbers = ["angle", "task_angle", "not_linear", "sign_conflicts", "task_cap2mol", "task_mol2cap", "update"]
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
            row[column] = float(np.average(known[column], weights=known["elements"])) if len(known) else math.nan
        linear = (tensors["branch"] == "linear").sum()
        row["linear branch"] = f"{linear} of {len(tensors)} tensors" if tensors["branch"].any() else ""
        rows[name] = row
    return pd.DataFrame(rows).T.rename_axis("merge")


def shrunk(base: str, cap2mol: str, mol2cap: str, share: float, factors: Sequence[float]) -> pd.DataFrame:
    """How far SLERP is from linear when both task vectors are multiplied by each of ``factors``.

    One row per factor, over all weights as one vector: ``task_norm`` (the larger task vector's norm over the base's),
    ``angle`` (degrees), ``branch``, and ``not_linear``: the norm of SLERP - linear, without mergekit's threshold, over
    that of mol2cap - cap2mol. Gentle fine-tunes of a large model lie at a task norm of a few per cent or below.
    """
    sums: dict[str, float] = defaultdict(float)
    with ExitStack() as stack:
        models = _Models({"cap2mol": cap2mol, "mol2cap": mol2cap, "base": base}, stack)
        for name in models.places["cap2mol"]:
            for block in models.blocks(name):
                o = block["base"]
                vectors = {"o": o, "s": block["cap2mol"] - o, "t": block["mol2cap"] - o}
                for one, other in ("oo", "os", "ot", "ss", "tt", "st"):
                    sums[one + other] += float(vectors[one] @ vectors[other])
    rows = []
    for f in factors:
        aa = sums["oo"] + 2 * f * sums["os"] + f * f * sums["ss"]
        bb = sums["oo"] + 2 * f * sums["ot"] + f * f * sums["tt"]
        ab = sums["oo"] + f * (sums["os"] + sums["ot"]) + f * f * sums["st"]
        angle = _angle(ab, aa, bb)
        over, under = _slerp_minus_linear(angle, share)
        difference = max(0.0, over * over * aa + under * under * bb + 2 * over * under * ab)
        rows.append(
            {
                "task_norm": f * math.sqrt(max(sums["ss"], sums["tt"]) / sums["oo"]),
                "angle": math.degrees(angle),
                "branch": _branch("slerp", angle, math.nan),
                "not_linear": math.sqrt(difference / max(aa + bb - 2 * ab, 1e-300)),
            }
        )
    return pd.DataFrame(rows)
