"""The study's own figures, from its committed tables: ``python -m tools.study.figures``."""

import functools
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from lmolt_utils.config.prompts import Task
from lmolt_utils.config.published import load_official, load_published
from lmolt_utils.figures.style import MUTED, TWO_COLUMNS, Drawn, look_of, styled, write_figure
from tools.study import FOLDER

#: Baseline -> how its line looks (number of :func:`look_of`).
LOOKS = {"nearest-neighbour": ("nearest neighbour", 0), "rule": ("rule (32 leaves)", 1), "constant": ("constant", 2)}
PANELS: tuple[tuple[Task, str], ...] = (
    *(("mol2cap", metric) for metric in ("BLEU-2", "ROUGE-1", "property F1")),
    *(("cap2mol", metric) for metric in ("MACCS", "Morgan", "Validity")),
)


@styled
def table_answers(baselines: pd.DataFrame, models: pd.DataFrame, test_set: str = "extra_valid") -> Drawn:
    """What a table of the training molecules answers, by its size, beside the papers' best and the official scores."""
    shown = baselines[(baselines["test_set"] == test_set) & (baselines["rows"] == "all")]
    figure, grid = plt.subplots(2, 3, figsize=(TWO_COLUMNS, 3.9), layout="constrained", sharex=True)
    for axes, (task, metric) in zip(grid.flat, PANELS, strict=True):
        panel = shown[(shown["task"] == task) & (shown["metric"] == metric)]
        for system, (label, number) in LOOKS.items():
            line = panel[panel["system"] == system].sort_values("sample_share")
            spread = [line["value"] - line["low"], line["high"] - line["value"]]
            axes.errorbar(line["sample_share"], line["value"], spread, label=label, ms=3.5, lw=1, **look_of(number))
        for y, text, style in _levels(task, metric):
            axes.axhline(y, color=MUTED, lw=0.9, ls=style, label=text)
        own = models[(models["system"] == task) & (models["task"] == task) & (models["metric"] == metric)]
        for value in own["value"]:
            axes.plot(1.0, value, "*", ms=8, color="black", label="per-task model, trained on all (500 rows)", zorder=3)
        _dress(axes, metric)
    grid[0, 1].set_title("Molecule to caption")
    grid[1, 1].set_title("Caption to molecule")
    named = [axes.get_legend_handles_labels() for axes in grid.flat]
    handles = {text: handle for pair in named for handle, text in zip(*pair, strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=7)
    columns = ["task", "metric", "system", "sample_share", "value", "low", "high", "n"]
    return figure, shown[shown["metric"].isin([metric for _, metric in PANELS])][columns]


def _levels(task: Task, metric: str) -> list[tuple[float, str, Any]]:
    """What the paper prints for its best system, and what the official submissions score."""
    printed = load_published().table("T4" if task == "mol2cap" else "T5").value("SLERP+CPO", metric)
    levels: list[tuple[float, str, Any]] = []
    if printed is not None:
        levels.append((printed, "SLERP+CPO (the paper)", "-"))
    for (name, scores), style in zip(load_official().items(), ("--", ":"), strict=True):
        if metric in scores[task]:
            levels.append((scores[task][metric], f"official score of {name}", style))
    return levels


def _dress(axes: Axes, metric: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks([0.001, 0.01, 0.1, 1.0], ["0.1 %", "1 %", "10 %", "100 %"])
    axes.set_ylim(0, 1.03)
    axes.set_ylabel(metric)
    if axes.get_subplotspec().is_last_row():  # type: ignore[union-attr]
        axes.set_xlabel("share of the training molecules")


@styled
def errors_seen(injected: pd.DataFrame) -> Drawn:
    """Which method's score sees which injected error: areas under the ROC curve as three heat maps."""
    wanted = ("coverage", "hallucination", "unsupported")
    errors, methods = injected["error"].unique(), injected["method"].unique()
    figure, grid = plt.subplots(1, 3, figsize=(TWO_COLUMNS, 1.9), layout="constrained", sharey=True)
    for axes, quantity in zip(grid, wanted, strict=True):
        part = injected[injected["quantity"] == quantity]
        cells = part.pivot(index="method", columns="error", values="auc").loc[methods, errors]
        sns.heatmap(cells, ax=axes, annot=True, fmt=".2f", vmin=0, vmax=1, center=0.5, cmap="RdBu", cbar=False,
                    annot_kws={"size": 6.5}, linewidths=0.5)  # fmt: skip
        axes.set(title=quantity, xlabel="", ylabel="")
        axes.tick_params("x", rotation=40)
    return figure, injected


def main() -> None:
    """Draw what there are tables for."""
    read = functools.cache(lambda name: pd.read_csv(FOLDER / f"{name}.csv"))
    if (FOLDER / "baselines.csv").exists():
        models = read("models") if (FOLDER / "models.csv").exists() else read("baselines").iloc[:0]
        alt = (
            "Scores of three untrained baselines by the share of training molecules they know, beside the papers' best."
        )
        drawn = table_answers(read("baselines"), models)
        drawn[0].set_label(alt)
        write_figure(FOLDER, "table_answers", drawn)
    if (FOLDER / "injected_errors.csv").exists():
        alt = "Heat maps of how well each NLI method tells captions with an injected error from those without."
        drawn = errors_seen(read("injected_errors"))
        drawn[0].set_label(alt)
        write_figure(FOLDER, "errors_seen", drawn)


if __name__ == "__main__":
    main()
