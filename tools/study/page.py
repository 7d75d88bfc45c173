"""The tables of docs/study.md, from the study's committed files; ``python -m tools.readme`` writes them there."""

from pathlib import Path

import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.published import load_official, load_published
from lmolt_utils.config.systems import load_systems

#: What the page's tables show of each task.
SHOWN: dict[Task, tuple[str, ...]] = {
    "mol2cap": ("BLEU-2", "BLEU-4", "ROUGE-1", "METEOR", "property F1", "exact property set"),
    "cap2mol": ("BLEU", "MACCS", "RDK", "Morgan", "Validity", "Uniqueness"),
}


def _cell(row: pd.Series) -> str:
    """The value with half its interval's width; empty where there is none."""
    if pd.isna(row["value"]):
        return ""
    if pd.isna(row["low"]):
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} ± {(row['high'] - row['low']) / 2:.3f}"


def _table(frame: pd.DataFrame, by: str, metrics: tuple[str, ...], title: str) -> list[str]:
    """Markdown: a line for each value of ``by``, a column for each metric."""
    lines = [f"| {title} | {' | '.join(metrics)} |", f"|---|{'---|' * len(metrics)}"]
    for name, rows in frame.groupby(by, sort=False):
        cells = {row["metric"]: _cell(row) for _, row in rows.iterrows()}
        lines.append(f"| {name} | {' | '.join(cells.get(metric, '') for metric in metrics)} |")
    return lines


def _printed(task: Task, metrics: tuple[str, ...]) -> list[str]:
    """The papers' best system and the official submissions, as lines of the same table."""
    rows: dict[str, dict[str, float | None]] = {}
    for table in load_published().tables:
        if table.task == task and "SLERP+CPO" in table.rows:
            rows["SLERP+CPO (the papers)"] = dict(zip(table.metrics, table.rows["SLERP+CPO"], strict=True))
    rows |= {f"{name} (official score)": dict(scores[task]) for name, scores in load_official().items()}
    shown = {name: [scores.get(metric) for metric in metrics] for name, scores in rows.items()}
    return [
        f"| *{name}* | {' | '.join('' if value is None else f'{value:.3g}' for value in values)} |"
        for name, values in shown.items()
    ]


def trivial(figures: Path) -> str:
    """The baselines by the share of the training molecules that they know, beside what is printed."""
    table = pd.read_csv(figures / "study" / "baselines.csv")
    table = table[(table["test_set"] == "extra_valid") & (table["rows"] == "all")]
    shares = table["sample_share"].map(lambda share: f"{100 * share:g} %")
    table = table.assign(name=table["system"].str.replace("-", " ") + ", " + shares)
    table = table.sort_values(["system", "sample_share"], kind="stable")
    parts = []
    for task in TASKS:
        lines = _table(table[table["task"] == task], "name", SHOWN[task], task)
        parts.append("\n".join([*lines, *_printed(task, SHOWN[task])]))
    return "\n\n".join(parts)


def rare(figures: Path) -> str:
    """The nearest neighbour in the 10 % sample on the three test sets: all rows, and those that a model could win."""
    table = pd.read_csv(figures / "study" / "baselines.csv")
    table = table[(table["sample_share"] == 0.1) & (table["system"] == "nearest-neighbour")]
    table = table.assign(name=table["test_set"] + ", " + table["rows"])
    shown: tuple[tuple[Task, tuple[str, ...]], ...] = (
        ("mol2cap", ("BLEU-2", "property F1", "exact property set")),
        ("cap2mol", ("MACCS", "Morgan", "Novelty", "Uniqueness")),
    )
    return "\n\n".join("\n".join(_table(table[table["task"] == task], "name", of, task)) for task, of in shown)


def models(figures: Path) -> str:
    """The per-task models on both tasks, beside the baselines on the same rows."""
    table = pd.read_csv(figures / "study" / "models.csv")
    parts = []
    for task in TASKS:
        lines = _table(table[table["task"] == task], "system", SHOWN[task], task)
        parts.append("\n".join([*lines, *_printed(task, SHOWN[task])]))
    return "\n\n".join(parts)


def errors(figures: Path) -> str:
    """Which method's score tells captions with an injected error from those without."""
    table = pd.read_csv(figures / "study" / "injected_errors.csv").rename(columns={"auc": "value", "error": "metric"})
    table = table.assign(name=table["quantity"] + ", " + table["method"])
    kinds = tuple(table["metric"].unique())
    return "\n".join(_table(table.sort_values("quantity", kind="stable"), "name", kinds, "score"))


#: Systems of the page's table, and what it shows of them.
HEADLINE = (
    "constant", "nearest-neighbour", "rule", "meditron", "init", "sft", "dpo", "cpo", "kto", "ties", "slerp", "nuslerp",
    "half-sum-ties", "soup", "ties+cpo", "slerp+cpo",
)  # fmt: skip
SCORES: dict[Task, tuple[str, ...]] = {
    "mol2cap": ("BLEU-2", "ROUGE-1", "ROUGE-L", "METEOR"),
    "cap2mol": ("BLEU", "MACCS", "Morgan", "Validity", "FCD"),
}


def systems(figures: Path) -> str:
    """The headline systems on the study's test molecules, each with what the papers print; "not run" where none is."""
    table = pd.read_csv(figures / "study" / "scores.csv")
    table["low"], table["high"] = table["low"].fillna(table["value"]), table["high"].fillna(table["value"])
    known, parts = {system.name: system for system in load_systems()}, []
    for task, metrics in SCORES.items():
        lines = [f"| {task} | {' | '.join(metrics)} |", f"|---|{'---|' * len(metrics)}"]
        for name in HEADLINE:
            rows = table[(table["system"] == name) & (table["task"] == task)]
            found, cells = {row["metric"]: _cell(row) for _, row in rows.iterrows()}, []
            for metric in metrics:
                printed, cell = load_published().printed(known[name].rows, metric), found.get(metric, "not run")
                cells.append(cell if printed is None else f"{cell} ({printed:g})")
            lines.append(f"| {known[name].label} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


#: What is told of the variants: title of a row, by variant.
OTHER_RUNS = {
    "test": "unseen molecules", "withheld": "unseen property combinations", "lower-rate": "learning rate 2.5e-4",
    "seeds": "three seeds", "released": "as released",
}  # fmt: skip


def variants(figures: Path) -> str:
    """The variants that were made, beside the main run: what changes with test set, learning rate, seed and code."""
    other = pd.read_csv(figures / "study" / "variants.csv")
    main = pd.read_csv(figures / "study" / "scores.csv").assign(variant="")
    columns: tuple[tuple[Task, str], ...] = (
        *(("mol2cap", metric) for metric in ("BLEU-2", "ROUGE-L", "METEOR")),
        *(("cap2mol", metric) for metric in ("BLEU", "MACCS", "Validity")),
    )
    lines = [f"| | {' | '.join(metric for _, metric in columns)} |", f"|---|{'---|' * len(columns)}"]
    for system in [
        system for system in load_systems() if system.name in set(other["system"].str.split("@seed").str[0])
    ]:
        both = pd.concat([main, other])
        both = both[both["system"].str.split("@seed").str[0] == system.name]
        for (name, variant), rows in both.groupby(["system", "variant"], sort=False):
            cells = {(row["task"], row["metric"]): _cell(row) for _, row in rows.iterrows()}
            seed = str(name).removeprefix(system.name).replace("@seed", ", seed ")
            title = f"{system.label}{seed}{f', {OTHER_RUNS[str(variant)]}' if variant else ''}"
            lines.append(f"| {title} | {' | '.join(cells.get(column, '') for column in columns)} |")
    return "\n".join(lines)


def rewritten(figures: Path) -> str:
    """Captions of the same molecules before and after these were written as other SMILES."""
    table = pd.read_csv(figures / "study" / "rewritten_smiles.csv").rename(columns={"measure": "metric"})
    shown = ("BLEU-2", "ROUGE-L", "METEOR")
    lines = [f"| | {' | '.join(shown)} | equal captions |", "|---|---|---|---|---|"]
    for name, rows in table.groupby("system", sort=False):
        before, after = (dict(zip(rows["metric"], rows[when], strict=True)) for when in ("before", "after"))
        told = [f"{before[metric]:.3f} to {after[metric]:.3f}" for metric in shown]
        lines.append(f"| {name} | {' | '.join(told)} | {100 * after['equal captions']:.0f} % |")
    return "\n".join(lines)


def lead(figures: Path) -> str:
    """The study in one table, for README: captions and molecules of a few systems beside what is printed."""
    scores = pd.read_csv(figures / "study" / "scores.csv").set_index(["system", "task", "metric"])["value"]
    columns: tuple[tuple[Task, str], ...] = (
        *(("mol2cap", metric) for metric in ("BLEU-2", "ROUGE-L", "METEOR")),
        *(("cap2mol", metric) for metric in ("BLEU", "MACCS", "Validity")),
    )
    names = {"nearest-neighbour": "nearest neighbour in the 10 % sample, no training"}
    names |= {name: f"{name.upper()}, 1.7M parameters" for name in ("sft", "dpo", "cpo", "slerp+cpo")}
    ours = {label: [scores.get((name, *column)) for column in columns] for name, label in names.items()}
    for name, official in load_official().items():
        ours[f"*{name}, 7B, official score*"] = [official[task].get(metric) for task, metric in columns]
    rows = dict.fromkeys(("T4", "T5"), "SLERP+CPO")
    printed = [load_published().printed(rows, metric) for _, metric in columns]
    table = [f"| | {' | '.join(metric for _, metric in columns)} |", f"|---|{'---|' * len(columns)}"]
    table += [
        f"| {label} | {' | '.join('not run' if value is None else f'{value:.3f}' for value in values)} |"
        for label, values in ours.items()
    ]
    table.append(f"| *SLERP+CPO, 7B, as the paper prints it* | {' | '.join(f'{value:g}' for value in printed)} |")
    return "\n".join(table)


def costs(figures: Path) -> str:
    """Minutes of each training, and tokens per second where they were counted."""
    table = pd.read_csv(figures / "study" / "training.csv")
    table["seconds"] = (table["seconds"] / 60).round().astype(int)
    shown = table[["model", "seconds", "tokens_per_s", "held_out_loss"]].astype(object).fillna("")
    shown.columns = ["model or adapter", "minutes", "tokens per second", "held-out loss"]
    return str(shown.to_markdown(index=False, floatfmt=(".0f", ".0f", ",.0f", ".3f")))
