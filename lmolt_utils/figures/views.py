"""What the notebooks show of a run: how training went, what systems answered."""

import base64
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from rdkit import Chem
from rdkit.Chem import rdFMCS
from rdkit.Chem.Draw import rdMolDraw2D
from scipy import stats

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.systems import System
from lmolt_utils.data.molecules import parse
from lmolt_utils.data.sample import TEST_COLUMNS
from lmolt_utils.figures.style import MUTED, TWO_COLUMNS, Drawn, add_note, look_of, mark_empty, styled
from lmolt_utils.files import read_rows
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.metrics.distributions import modality as modality_of
from lmolt_utils.metrics.distributions import right_modality
from lmolt_utils.metrics.ngrams import chr_f
from lmolt_utils.metrics.results import NOT_RUN
from lmolt_utils.models.predictions import prediction_path, scored_answers
from lmolt_utils.run.notebook import Run


def training_logs(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Training logs of those ``systems`` that have one, with the system's label."""
    frames = []
    for system in systems:
        path = run.path("logs", f"{system.name}.training.jsonl")
        if path.exists():
            timed = path.with_name(path.name.replace(".jsonl", ".seconds.jsonl"))
            seconds = read_rows(timed, ("step", "seconds", "tokens"))
            log = read_rows(path, ("step", "loss")).merge(seconds, on="step", how="left")
            frames.append(log.assign(system=system.label))
    nothing = pd.DataFrame(columns=["system", "step", "loss", "seconds", "tokens"])
    return pd.concat(frames, ignore_index=True) if frames else nothing


@styled
def training_curves(logs: pd.DataFrame) -> Drawn:
    """Loss against step, and the time each training took (L4M, Fig. 12).

    ``logs``: system, step, loss, seconds (since the training began), tokens (seen since then).
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
        text = f"{seconds:.3g} s, {log['tokens'].max() / seconds:,.0f} tokens/s"
        right.annotate(text, (seconds, index), xytext=(6, 0), textcoords="offset points", va="center", fontsize=6.5)
        parts.append(log.assign(smoothed_loss=smooth))
    left.set(xlabel="Optimiser step", ylabel="Loss", yscale="log")  # DPO's and KTO's are below 1, CPO's starts near 100
    right.set_yticks(range(len(labels)), labels=labels)
    longest = max([float(part["seconds"].max()) for part in parts], default=1)
    right.set(xlabel="Training time (s)", xlim=(0, 1.9 * longest), ylim=(max(1, len(labels)) - 0.5, -0.5))
    right.grid(axis="y", visible=False)
    if not labels:
        mark_empty(left)
    note = "Lines: running means; pale: each step. Each method minimises its own loss: heights do not compare."
    add_note(figure, note)
    data = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return figure, data.reindex(columns=["system", "step", "loss", "smoothed_loss", "seconds", "tokens"])


def glance(run: Run, systems: Sequence[System], task: Task, rows: int = 3) -> Any:
    """The first test rows and what of each system's answers is scored, cut to 110 characters."""
    table: dict[str, list[str]] = {}
    for system in answered(run, systems, task):
        frame = scored_answers(run, system, task).head(rows)
        table.setdefault("reference", list(frame["reference"]))
        table[system.label] = [text or "(empty)" for text in frame["prediction"]]
    shown = pd.DataFrame(table).T.style.format(lambda text: clipped(str(text), 110)).format_index(escape="html")
    return shown.set_properties(None, **{"text-align": "left", "font-size": "85%"})


def clipped(text: str, width: int) -> str:
    """HTML of a text: beyond ``width`` characters an ellipsis, and the whole where the mouse rests on it."""
    if len(text) <= width:
        return escape(text)
    return f'<span title="{escape(text)}">{escape(text[: width - 1])}…</span>'


def answered(run: Run, systems: Sequence[System], task: Task) -> list[System]:
    """Those of ``systems`` that have predictions in ``run``."""
    return [system for system in systems if prediction_path(run, system.name, task).exists()]


def row_scores(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Per answered test row: run, system, task, and Chr-F of what is scored with its reference and with the next row's.

    "right modality" is 1 where the output looks like the task's. Systems without predictions are left out.
    """
    frames = [pd.DataFrame(columns=["run", "system", "task", "Chr-F", "Chr-F, next row", "right modality"])]
    for task in TASKS:
        for system in answered(run, systems, task):
            answers = scored_answers(run, system, task)
            references, texts = list(answers["reference"]), list(answers["prediction"])
            values = {"Chr-F": chr_f(references, texts)}
            values["Chr-F, next row"] = chr_f(references[1:] + references[:1], texts)
            values["right modality"] = right_modality(texts, task).astype(float)
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


# ---- examples: the same test rows by several systems ----

#: How a fact of a caption is shown: a mark, and a colour of 07's.
KINDS = {
    "supported": ("✓", "#009E73"),
    "invented": ("✗", "#D55E00"),
    "missing": ("–", "#0072B2"),
    "no known property": ("?", MUTED),
    "no caption": ("", MUTED),
    "reference": ("", "black"),
}
_LINE = 36  # characters of a column
_COLUMN = 1.75  # inches
_SEARCH = 2000  # steps towards a common substructure: two cardiolipins would need 250,000


def example_ids(run: Run, rules: Decomposer) -> list[str]:
    """The first test rows whose captions state the fewest facts, the median number, and the most."""
    rows = read_rows(run.path("data", "test.jsonl"), TEST_COLUMNS)
    counts = np.array([len(rules(text)) for text in rows["caption"]])
    chosen = {int(np.argmax(counts == wanted)) for wanted in np.quantile(counts, [0, 0.5, 1], method="nearest")}
    return [str(rows["id"][place]) for place in sorted(chosen, key=lambda place: counts[place])]


def examples(run: Run, systems: Mapping[str, str], task: Task, ids: Sequence[str]) -> pd.DataFrame:
    """The test rows ``ids``: id, source, reference, and a column per system of ``systems`` (name -> label): its output,
    None if it did not run."""
    rows = read_rows(run.path("data", "test.jsonl"), TEST_COLUMNS).set_index("id").loc[list(ids)]
    given, wanted = ("molecule", "caption") if task == "mol2cap" else ("caption", "molecule")
    frame = pd.DataFrame({"source": rows[given], "reference": rows[wanted]})
    there = {system.name: system for system in answered(run, run.table, task)}
    for name, label in systems.items():
        outputs = scored_answers(run, there[name], task).set_index("id")["prediction"] if name in there else None
        frame[label] = None if outputs is None else outputs.reindex(frame.index)
    return frame.reset_index()


def facts_by_kind(reference: str, output: str, rules: Decomposer) -> list[tuple[str, str]]:
    """What an output states, each fact once, then what it leaves out, each with a key of :data:`KINDS`."""
    stated, known = ({rules.canonical(a): a.property for a in rules(text)} for text in (output, reference))
    if modality_of(output) == "caption":
        kinds = {fact: "supported" if name in known.values() else "invented" for fact, name in stated.items()}
        facts = [(fact, kinds[fact] if name else "no known property") for fact, name in stated.items()]
    else:
        stated, facts = {}, [(f"no caption: {output or 'empty'}", "no caption")]
    return facts + [(fact, "missing") for fact, name in known.items() if name and name not in stated.values()]


@styled
def example_captions(rows: pd.DataFrame, rules: Decomposer) -> Drawn:
    """Facts of several systems' captions of the same molecules: supported, invented or missing (L4M, Fig. 17).

    ``rows``: of :func:`examples`; without a column ``source`` no molecule is drawn.
    """
    names = [name for name in rows.columns if name not in ("id", "source", "reference")]
    first = ["molecule", "reference"] if "source" in rows.columns else ["reference"]
    cells: list[list[list[tuple[str, str]]]] = []
    lines: list[tuple[str, str, str, str]] = []
    for row in rows.to_dict("records"):
        known = dict.fromkeys((rules.canonical(atom), "reference") for atom in rules(row["reference"]))
        texts = [row[name] for name in names]
        outputs = [facts_by_kind(row["reference"], x, rules) if isinstance(x, str) else [] for x in texts]
        cells.append([_lines(facts) for facts in (list(known), *outputs)])
        for name, facts in zip(names, outputs, strict=True):
            lines += [(row["id"], name, kind, fact) for fact, kind in facts or [("", NOT_RUN)]]
    heights = [max(6, *map(len, columns)) + 1 for columns in cells]
    size = (_COLUMN * (len(first) + len(names)), 0.7 + 0.125 * sum(heights))
    figure, grid = plt.subplots(len(rows), len(first) + len(names), figsize=size, height_ratios=heights, squeeze=False)
    for title, axes in zip([*first, *names], grid[0], strict=True):
        axes.set_title(title)
    for row, axes_of, columns, height in zip(rows.to_dict("records"), grid, cells, heights, strict=True):
        for axes in axes_of:
            axes.set_axis_off()
        if "source" in row:
            _draw(axes_of[0], parse(row["source"]), [])
        for axes, told in zip(axes_of[-len(columns) :], columns, strict=True):
            axes.set(xlim=(0, 1), ylim=(height, 0))
            for place, (line, colour) in enumerate(told, start=1):
                axes.text(0, place, line, color=colour, va="baseline", fontsize=6)
    legend = "; ".join(f"{mark} {kind}" for kind, (mark, _) in KINDS.items() if mark)
    add_note(figure, f"Facts in canonical words, by the rules: {legend}. Rows {', '.join(map(str, rows['id']))}.")
    return figure, pd.DataFrame(lines, columns=["id", "system", "kind", "fact"])


def _lines(facts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """What a column shows of facts and their kinds: its lines, each with its colour."""
    lines = []
    for fact, kind in facts or [(NOT_RUN, "no caption")]:
        mark, colour = KINDS[kind]
        text = textwrap.shorten(fact.removeprefix("The molecule ").removesuffix("."), 2 * _LINE, placeholder="…")
        filled = textwrap.fill(text, _LINE, subsequent_indent="   ")
        lines += [(line, colour) for line in f"{mark} {filled}".strip().split("\n")]
    return lines


@styled
def example_molecules(rows: pd.DataFrame) -> Drawn:
    """Several systems' molecules for the same captions, what they share with the reference marked (L4M, Fig. 16).

    ``rows``: of :func:`examples`. Shared is the largest common substructure, rings whole.
    """
    names = [name for name in rows.columns if name not in ("id", "source", "reference")]
    figure = plt.figure(figsize=(_COLUMN * (1 + len(names)), 1.9 * len(rows)))
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    lines: list[dict[str, Any]] = []
    for part, row in zip(parts, rows.to_dict("records"), strict=True):
        source = textwrap.shorten(row["source"], 330, placeholder="…")
        part.suptitle(textwrap.fill(f"{row['id']}: {source}", 175), x=0.01, ha="left", fontsize=6.5)
        reference = parse(row["reference"])
        for name, axes in zip(["reference", *names], part.subplots(1, 1 + len(names)), strict=True):
            text = row[name] if isinstance(row[name], str) else None
            found = parse(text) if text else None
            shared, whole = _common(reference, found) if name != "reference" and reference and found else ((), None)
            _draw(axes, found, shared)
            told = "no molecule" if text is not None else NOT_RUN
            if found is not None:
                least = "at least " if whole is False else ""
                told = f"{least}{len(shared)} of {found.GetNumAtoms()} atoms shared" if name != "reference" else ""
            elif text is not None:
                shown = textwrap.fill(textwrap.shorten(text, 120, placeholder="…") or "(empty)", 28)
                axes.text(0.5, 0.5, shown, ha="center", va="center", fontsize=6, color=MUTED, transform=axes.transAxes)
            axes.set_title(f"{name}\n{told}", fontsize=6.5)
            facts = {"valid": found is not None, "atoms": found.GetNumAtoms() if found else None}
            facts |= {"shared_atoms": None if whole is None else len(shared), "complete_search": whole}
            lines.append({"id": row["id"], "system": name, "output": text, **facts})
    return figure, pd.DataFrame(lines)


class _Steps(rdFMCS.MCSProgress):
    """Ends a search after :data:`_SEARCH` steps: one that ends after seconds finds something else on another day."""

    taken = 0

    def __call__(self, *_: Any) -> bool:
        self.taken += 1
        return self.taken < _SEARCH


def _common(reference: Chem.Mol, found: Chem.Mol) -> tuple[Sequence[int], bool]:
    """Atoms of ``found`` in the largest substructure that both have, and whether the search came to its end."""
    options = rdFMCS.MCSParameters()
    options.AtomCompareParameters.RingMatchesRingOnly = options.BondCompareParameters.CompleteRingsOnly = True
    options.ProgressCallback = _Steps()
    result = rdFMCS.FindMCS([reference, found], options)
    pattern = Chem.MolFromSmarts(result.smartsString) if result.numAtoms else None
    return (found.GetSubstructMatch(pattern) if pattern else ()), not result.canceled


def _draw(axes: Axes, mol: Chem.Mol | None, atoms: Sequence[int]) -> None:
    """Draw a molecule with ``atoms`` marked; without one the place stays empty."""
    axes.set_axis_off()
    drawer = rdMolDraw2D.MolDraw2DCairo(560, 400)
    options = drawer.drawOptions()
    options.setHighlightColour((0.60, 0.86, 0.75))
    if mol is not None:
        # Where there are many atoms, lines are thin. (RDKit's stubs take the number for an object.)
        options.highlightBondWidthMultiplier = 8 if mol.GetNumAtoms() < 40 else 24  # type: ignore[assignment]
        bonds = [b.GetIdx() for b in mol.GetBonds() if {b.GetBeginAtomIdx(), b.GetEndAtomIdx()} <= set(atoms)]
        rdMolDraw2D.PrepareAndDrawMolecule(drawer, mol, highlightAtoms=list(atoms), highlightBonds=bonds)
    drawer.FinishDrawing()
    axes.imshow(np.asarray(Image.open(BytesIO(drawer.GetDrawingText()))), interpolation="antialiased")


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
