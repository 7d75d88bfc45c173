"""What the notebooks show of a run: how training went, what systems answered."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure
from scipy import stats

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.systems import System
from lmolt_utils.figures.style import TWO_COLUMNS, Drawn, add_note, look_of, mark_empty, styled
from lmolt_utils.files import read_rows
from lmolt_utils.metrics.distributions import right_modality
from lmolt_utils.metrics.ngrams import chr_f
from lmolt_utils.models.predictions import prediction_path, scored_answers
from lmolt_utils.run.notebook import Run


def training_logs(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Training logs of those ``systems`` that have one, with the system's label."""
    frames = []
    for system in systems:
        path = run.path("logs", f"{system.name}.training.jsonl")
        if path.exists():
            log = read_rows(path, ("step", "loss"))
            seconds = path.with_name(path.name.replace(".jsonl", ".seconds.jsonl"))
            if seconds.exists():
                log = log.merge(read_rows(seconds, ("step", "seconds")), on="step", how="left")
            frames.append(log.assign(system=system.label))
    nothing = pd.DataFrame(columns=["system", "step", "loss", "seconds"])
    return pd.concat(frames, ignore_index=True) if frames else nothing


@styled
def training_curves(logs: pd.DataFrame) -> Drawn:
    """Loss against step, and the time each training took (L4M, Fig. 12).

    ``logs``: system, step, loss, seconds (since the training began), and optionally tokens (seen since then).
    """
    labels = list(dict.fromkeys(logs["system"]))
    size = (TWO_COLUMNS, max(2.4, 0.9 + 0.17 * len(labels)))
    figure, (left, right) = plt.subplots(1, 2, figsize=size, width_ratios=[1.25, 1])
    parts: list[pd.DataFrame] = []
    for index, label in enumerate(labels):
        log = logs[logs["system"] == label].sort_values("step").reset_index(drop=True)
        smooth = log["loss"].rolling(max(1, len(log) // 20), center=True, min_periods=1).mean()
        look = look_of(index)
        left.plot(log["step"], log["loss"], color=look["color"], alpha=0.2, linewidth=0.6)
        left.plot(log["step"], smooth, **look, markevery=max(1, len(log) // 6), markersize=3.5)
        seconds = float(log["seconds"].max())
        right.hlines(index, 0, seconds, color=look["color"], linestyle=look["linestyle"], linewidth=1.2)
        right.plot([seconds], [index], color=look["color"], marker=look["marker"])
        text = f"{seconds:.3g} s"
        tokens = log["tokens"].max() if "tokens" in log.columns else np.nan
        if pd.notna(tokens) and seconds > 0:
            text += f", {tokens / seconds:,.0f} tokens/s"
        right.annotate(text, (seconds, index), xytext=(6, 0), textcoords="offset points", va="center", fontsize=6.5)
        parts.append(log.assign(smoothed_loss=smooth))
    left.set_xlabel("Optimiser step")
    left.set_ylabel("Loss")
    left.set_yscale("log")  # DPO's and KTO's are below 1, CPO's starts near 100
    right.set_xlabel("Training time (s)")
    right.set_yticks(range(len(labels)), labels=labels)
    right.set_ylim(max(1, len(labels)) - 0.5, -0.5)
    right.set_xlim(0, 1.9 * max([float(part["seconds"].max()) for part in parts], default=1))
    right.grid(axis="y", visible=False)
    if not labels:
        mark_empty(left)
    add_note(
        figure, "Lines: running means; pale: each step. Each method minimises its own loss: heights do not compare."
    )
    data = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return figure, data.reindex(columns=["system", "step", "loss", "smoothed_loss", "seconds", "tokens"])


def glance(run: Run, systems: Sequence[System], task: Task, rows: int = 3, width: int = 110) -> Any:
    """The first test rows and what of each system's answers is scored, cut to ``width`` characters."""
    table: dict[str, list[str]] = {}
    for system in answered(run, systems, task):
        frame = scored_answers(run, system, task).head(rows)
        table.setdefault("reference", list(frame["reference"]))
        table[system.label] = [text or "(empty)" for text in frame["prediction"]]
    shown = pd.DataFrame(table).T.style.format(lambda text: clipped(str(text), width)).format_index(escape="html")
    return shown.set_properties(None, **{"text-align": "left", "font-size": "85%"})


def clipped(text: str, width: int) -> str:
    """HTML of a text: beyond ``width`` characters an ellipsis, and the whole where the mouse rests on it."""
    if len(text) <= width:
        return escape(text)
    return f'<span title="{escape(text)}">{escape(text[: width - 1])}…</span>'


def modality(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Share of outputs in the right language: what looks like a caption, like a molecule (valid or not)."""
    rows = []
    for system in systems:
        captions, molecules = (
            right_modality(list(scored_answers(run, system, task)["prediction"]), task).mean() for task in TASKS
        )
        rows.append({"system": system.label, "captions": captions, "molecules": molecules})
    return pd.DataFrame(rows).set_index("system")


def answered(run: Run, systems: Sequence[System], task: Task) -> list[System]:
    """Those of ``systems`` that have predictions in ``run``."""
    return [system for system in systems if prediction_path(run, system.name, task).exists()]


def row_scores(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Per answered test row: run, system, task, and Chr-F of what is scored with its reference and with the next row's.

    "right language" is 1 where the output looks like the task's. Systems without predictions are left out.
    """
    frames = [pd.DataFrame(columns=["run", "system", "task", "Chr-F", "Chr-F, next row", "right language"])]
    for task in TASKS:
        for system in answered(run, systems, task):
            answers = scored_answers(run, system, task)
            references, texts = list(answers["reference"]), list(answers["prediction"])
            values = {"Chr-F": chr_f(references, texts)}
            values["Chr-F, next row"] = chr_f(references[1:] + references[:1], texts)
            values["right language"] = right_modality(texts, task).astype(float)
            frames.append(pd.DataFrame({"run": run.title, "system": system.label, "task": task, **values}))
    return pd.concat(frames[1:] or frames, ignore_index=True)


def doubts(logs: pd.DataFrame, scores: pd.DataFrame) -> list[str]:
    """Signs that a model does not know this corpus, a sentence each: a loss that rose, molecules of other captions.

    ``logs`` and ``scores``: of :func:`training_logs` and :func:`row_scores`.
    """
    found = []
    for label, log in logs.groupby("system", sort=False):
        tenth = len(log) // 10
        if tenth and (last := log["loss"][-tenth:].mean()) > (first := log["loss"][:tenth].mean()):
            found.append(f"{label}: the loss rose, from {first:.3g} to {last:.3g} (first and last tenth of the steps)")
    for label, rows in scores[scores["task"] == "cap2mol"].groupby("system", sort=False):
        nearer = (rows["Chr-F"] - rows["Chr-F, next row"]).to_numpy(dtype=float)
        if nearer.mean() <= 2 * stats.sem(nearer):
            found.append(f"{label}: its molecules are no nearer to their own references than to another row's")
    return found


def folded(content: Any, summary: str) -> HTML | Markdown:
    """A text, table or figure under a line that opens it: the whole of something of which a notebook shows a part."""
    head = f"<details><summary>{escape(summary)}</summary>"
    if hasattr(content, "_repr_markdown_"):
        return Markdown(f"{head}\n\n{content._repr_markdown_()}\n\n</details>")
    if isinstance(content, str):
        return HTML(f"{head}<pre>{escape(content)}</pre></details>")
    if isinstance(content, Figure):
        content.savefig(image := BytesIO(), format="png")
        return HTML(f'{head}<img src="data:image/png;base64,{base64.b64encode(image.getvalue()).decode()}"></details>')
    return HTML(f"{head}{content.to_html()}</details>")
