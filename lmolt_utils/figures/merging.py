"""What a merge did, tensor by tensor: the angle between the parents, the branch SLERP took, sign conflicts, norms.

Everything is summed in float64 over blocks of rows, read where they lie: memory does not grow with the model.
"""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from safetensors import safe_open

from lmolt_utils.figures.style import STYLE
from lmolt_utils.merging.checks import local_folder, shards
from lmolt_utils.run.notebook import Run

#: Elements of each model that are in memory at a time.
BLOCK = 4_000_000
#: Part of a tensor's name -> the group it belongs to; the first that fits counts.
GROUPS = {"embed": "embedding", "lm_head": "head", "norm": "norm", "attn": "attention", "mlp": "mlp"}


def slerp_threshold() -> float:
    """Above this |cosine| mergekit's SLERP interpolates linearly: the default in the installed version."""
    from mergekit.merge_methods.slerp import slerp

    return float(inspect.signature(slerp).parameters["dot_threshold"].default)


def group_of(name: str) -> str:
    """embedding, attention, mlp, norm, head or other."""
    return next((group for part, group in GROUPS.items() if part in name), "other")


def layer_of(name: str) -> int | None:
    """The layer a tensor belongs to, ``None`` outside the layers."""
    parts = name.split(".")
    numbers = [int(after) for before, after in pairwise(parts) if before == "layers"]
    return numbers[0] if numbers else None


def slerp_factors(angle: float, share: float) -> tuple[float, float]:
    """SLERP's factors of cap2mol and mol2cap at ``angle`` (radians), without mergekit's fallback to linear."""
    if math.sin(angle) < 1e-12:
        return 1 - share, share
    return math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)


class _Models:
    """The opened shards of several models, read block by block."""

    def __init__(self, models: Mapping[str, str], stack: ExitStack) -> None:
        self.places = {role: shards(Path(local_folder(name))) for role, name in models.items()}
        files = {file for places in self.places.values() for file in places.values()}
        self.handles = {file: stack.enter_context(safe_open(str(file), framework="pt")) for file in files}

    def blocks(self, name: str) -> Iterator[dict[str, torch.Tensor]]:
        """The tensor's rows by role, float64 and flat, about ``BLOCK`` elements at a time."""
        parts = {role: self.handles[places[name]].get_slice(name) for role, places in self.places.items()}
        shape = next(iter(parts.values())).get_shape()
        if not shape or math.prod(shape) == 0:
            return
        rows = max(1, BLOCK // max(1, math.prod(shape[1:])))
        for start in range(0, shape[0], rows):
            stop = min(start + rows, shape[0])  # a base may have more rows
            yield {role: part[start:stop].double().flatten() for role, part in parts.items()}


def _angle(dot: float, first: float, second: float) -> float:
    """Radians between two vectors from their product and squared norms; NaN when one is zero."""
    return math.acos(max(-1.0, min(1.0, dot / math.sqrt(first * second)))) if first and second else math.nan


def tensor_report(
    cap2mol: str, mol2cap: str, merged: str, base: str | None, *, share: float, rule: str = "slerp"
) -> pd.DataFrame:
    """One row per tensor of a merge; models are folders, ``embedded:`` names or hub ids.

    Columns: ``tensor``, ``layer``, ``group``, ``elements``; ``angle`` between the parents' weights and ``task_angle``
    between their task vectors (degrees); ``branch``: what SLERP does at that angle (``spherical``, or ``linear`` above
    mergekit's threshold; for NuSLERP judged on the task vectors; empty for rules without angles); ``not_linear``: the
    largest |SLERP - linear| over the largest |mol2cap - cap2mol|, at ``share``, as if there were no fallback;
    ``sign_conflicts``: share of the entries changed in both task vectors whose signs differ; ``task_cap2mol``,
    ``task_mol2cap``, ``update``: norms of both task vectors and of merged - base, over the base's; ``to_cap2mol``,
    ``to_mol2cap``: distances of the merge to the parents over that between them. Without ``base`` the columns that need
    it are NaN; so is every ratio whose denominator is zero (a tensor in which the models agree).
    """
    given = {"cap2mol": cap2mol, "mol2cap": mol2cap, "merged": merged} | ({"base": base} if base else {})
    with ExitStack() as stack:
        models = _Models(given, stack)
        rows = [_row(models, name, share, rule) for name in models.places["cap2mol"]]
    return pd.DataFrame(rows)


def _row(models: _Models, name: str, share: float, rule: str) -> dict[str, Any]:
    sums: dict[str, float] = {}

    def add(key: str, value: torch.Tensor) -> None:
        sums[key] = sums.get(key, 0.0) + float(value)

    elements, apart = 0, 0.0
    for block in models.blocks(name):
        a, b, m = block["cap2mol"], block["mol2cap"], block["merged"]
        elements += a.numel()
        apart = max(apart, float((b - a).abs().max()))
        for key, x, y in (("aa", a, a), ("bb", b, b), ("ab", a, b)):
            add(key, x @ y)
        for key, x, y in (("apart", a, b), ("to_a", m, a), ("to_b", m, b)):
            add(key, ((x - y) ** 2).sum())
        if "base" in block:
            o = block["base"]
            s, t = a - o, b - o
            for key, x, y in (("oo", o, o), ("ss", s, s), ("tt", t, t), ("st", s, t), ("uu", m - o, m - o)):
                add(key, x @ y)
            add("both", ((s != 0) & (t != 0)).sum())
            add("conflicts", (s * t < 0).sum())

    def over(upper: str, lower: str, root: bool = True) -> float:
        if not sums.get(lower):
            return math.nan
        value = sums[upper] / sums[lower]
        return math.sqrt(value) if root else value

    angle = _angle(sums["ab"], sums["aa"], sums["bb"])
    task_angle = _angle(sums["st"], sums["ss"], sums["tt"]) if "st" in sums else math.nan
    return {
        "tensor": name,
        "layer": layer_of(name),
        "group": group_of(name),
        "elements": elements,
        "angle": math.degrees(angle),
        "task_angle": math.degrees(task_angle),
        "branch": _branch(rule, angle, task_angle),
        "not_linear": _not_linear(models, name, angle, share) / apart if apart else math.nan,
        "sign_conflicts": over("conflicts", "both", root=False),
        "task_cap2mol": over("ss", "oo"),
        "task_mol2cap": over("tt", "oo"),
        "update": over("uu", "oo"),
        "to_cap2mol": over("to_a", "apart"),
        "to_mol2cap": over("to_b", "apart"),
    }


def _branch(rule: str, angle: float, task_angle: float) -> str:
    """NuSLERP falls back only where the task vectors are colinear to rounding (mergekit: sin² <= 1e-16)."""
    if rule == "slerp":
        return "linear" if not math.isnan(angle) and abs(math.cos(angle)) > slerp_threshold() else "spherical"
    if rule == "nuslerp":
        return "" if math.isnan(task_angle) else "linear" if abs(math.sin(task_angle)) <= 1e-8 else "spherical"
    return ""


def _not_linear(models: _Models, name: str, angle: float, share: float) -> float:
    """The largest entry of |SLERP - linear| (second pass: the factors follow from the angle)."""
    if math.isnan(angle):
        return 0.0
    first, second = slerp_factors(angle, share)
    over, under = first - (1 - share), second - share
    blocks = models.blocks(name)
    return max((float((over * b["cap2mol"] + under * b["mol2cap"]).abs().max()) for b in blocks), default=0.0)


def group_report(tensors: pd.DataFrame) -> pd.DataFrame:
    """:func:`tensor_report` by group: median angles and ratios, and how many tensors took the linear branch.

    Norms are those of the median tensor; tensors in which all models agree have no sign conflicts to count.
    """
    order = [group for group in [*GROUPS.values(), "other"] if group in set(tensors["group"])]
    numbers = ["angle", "task_angle", "not_linear", "sign_conflicts", "task_cap2mol", "task_mol2cap", "update"]
    by = tensors.groupby("group")
    table = by[numbers].median()
    table.insert(0, "tensors", by.size())
    table.insert(1, "linear", by["branch"].agg(lambda column: int((column == "linear").sum())))
    return table.loc[order]


def merge_reports(run: Run, systems: Sequence[Any]) -> dict[str, pd.DataFrame]:
    """:func:`tensor_report` of each distinct merge among ``systems`` (made if it is not there), by its name."""
    from lmolt_utils.merging.step import make_merge, with_weights
    from lmolt_utils.training.experiment import plan

    reports: dict[str, pd.DataFrame] = {}
    for system in systems:
        todo = plan(run, system)
        if todo.merge is not None and todo.merge.name not in reports:
            folder = with_weights(todo, str(make_merge(run, todo, _quiet)))
            parents = (todo.cap2mol_model, todo.mol2cap_model)
            reports[todo.merge.name] = tensor_report(
                *parents, folder, todo.base_model, share=todo.merge.share, rule=todo.merge.rule
            )
    return reports


def _quiet(_: str) -> None:
    return None


def overall(reports: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per merge over all its tensors, weighted by their elements: distances, update, linear branches."""
    rows = {}
    for name, tensors in reports.items():
        weight = tensors["elements"]

        def mean(column: str, tensors: pd.DataFrame = tensors, weight: "pd.Series[int]" = weight) -> float:
            known = tensors[column].notna()
            return float(np.average(tensors.loc[known, column], weights=weight[known])) if known.any() else math.nan

        taken = (tensors["branch"] == "linear").sum() if tensors["branch"].any() else None
        columns = ("to_cap2mol", "to_mol2cap", "update", "sign_conflicts")
        branch = {"linear branch": "" if taken is None else f"{taken} of {len(tensors)} tensors"}
        rows[name] = {**{column: mean(column) for column in columns}, **branch}
    return pd.DataFrame(rows).T.rename_axis("merge")


def draw_groups(tensors: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Per layer and group: angle between the parents, and sign conflicts; with the frame that is drawn."""
    inside = tensors[tensors["layer"].notna()]
    data = inside.groupby(["group", "layer"])[["angle", "sign_conflicts"]].median().reset_index()
    limit = math.degrees(math.acos(slerp_threshold()))
    with plt.style.context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 2.3))
        for marker, (group, part) in zip("osD^v", data.groupby("group"), strict=False):
            left.plot(part["layer"], part["angle"], marker=marker, label=str(group))
            right.plot(part["layer"], part["sign_conflicts"], marker=marker)
        left.axhline(limit, color="0.4", linestyle=":", linewidth=0.8)
        left.set_title(f"Dotted: {limit:.1f}°, below it mergekit interpolates linearly", fontweight="normal")
        left.set(xlabel="Layer", ylabel="Angle between parents (°)", ylim=(0, None))
        right.set(xlabel="Layer", ylabel="Share of sign conflicts", ylim=(0, 1))
        for axes in (left, right):
            axes.set_xticks(sorted(data["layer"].unique()))
        figure.legend(loc="outside upper center", ncols=5)
        plt.close(figure)
    return figure, data


def shrunk(base: str, cap2mol: str, mol2cap: str, share: float, factors: Sequence[float]) -> pd.DataFrame:
    """How far SLERP is from linear when both task vectors are multiplied by each of ``factors``.

    One row per factor, over all weights as one vector: ``task_norm`` (the larger task vector's norm over the base's),
    ``angle`` (degrees), ``branch`` and ``not_linear``: the norm of SLERP - linear, without mergekit's fallback,
    over that of mol2cap - cap2mol. Gentle fine-tunes of a large model lie at a task norm of a few per cent or below.
    """
    sums = dict.fromkeys(("oo", "os", "ot", "ss", "tt", "st"), 0.0)
    with ExitStack() as stack:
        models = _Models({"cap2mol": cap2mol, "mol2cap": mol2cap, "base": base}, stack)
        for name in models.places["cap2mol"]:
            for block in models.blocks(name):
                o = block["base"]
                vectors = {"o": o, "s": block["cap2mol"] - o, "t": block["mol2cap"] - o}
                for key in sums:
                    sums[key] += float(vectors[key[0]] @ vectors[key[1]])
    return pd.DataFrame([_shrunk_row(sums, factor, share) for factor in factors])


def _shrunk_row(sums: Mapping[str, float], f: float, share: float) -> dict[str, Any]:
    aa = sums["oo"] + 2 * f * sums["os"] + f * f * sums["ss"]
    bb = sums["oo"] + 2 * f * sums["ot"] + f * f * sums["tt"]
    ab = sums["oo"] + f * (sums["os"] + sums["ot"]) + f * f * sums["st"]
    angle = _angle(ab, aa, bb)
    first, second = slerp_factors(angle, share)
    over, under = first - (1 - share), second - share
    difference = max(0.0, over * over * aa + under * under * bb + 2 * over * under * ab)
    return {
        "task_norm": f * math.sqrt(max(sums["ss"], sums["tt"]) / sums["oo"]),
        "angle": math.degrees(angle),
        "branch": _branch("slerp", angle, math.nan),
        "not_linear": math.sqrt(difference / max(aa + bb - 2 * ab, 1e-300)),
    }


def draw_shrunk(rows: pd.DataFrame) -> Figure:
    """:func:`shrunk` as a curve; filled where mergekit takes the spherical branch."""
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(figsize=(3.4, 2.4))
        axes.loglog(rows["task_norm"], rows["not_linear"], color="C0")
        for branch, filled in (("spherical", "C0"), ("linear", "white")):
            part = rows[rows["branch"] == branch]
            axes.loglog(part["task_norm"], part["not_linear"], "o", color="C0", markerfacecolor=filled, label=branch)
        axes.set(xlabel="Task vector, norm over the base's", ylabel="|SLERP − linear| / |parents' difference|")
        axes.legend(title="mergekit's branch")
        plt.close(figure)
    return figure
