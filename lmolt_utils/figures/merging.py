"""Two figures of notebook 05: what a merge did to each layer, and where SLERP of two fine-tunes becomes linear."""

import math

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lmolt_utils.figures.style import STYLE
from lmolt_utils.merging.report import slerp_threshold


def draw_groups(tensors: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Angle between the parents, and sign conflicts, per layer and group; with the frame that is drawn.

    ``tensors``: a :func:`~lmolt_utils.merging.report.tensor_report`.
    """
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


def draw_shrunk(rows: pd.DataFrame) -> Figure:
    """:func:`~lmolt_utils.merging.report.shrunk` as a curve; filled where mergekit takes the spherical branch."""
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
