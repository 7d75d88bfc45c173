"""The tables of the study's two pages in docs/, from its committed files; ``python -m tools.readme`` writes them."""

import re
from collections.abc import Iterable, Sequence
from itertools import product
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


#: What the first page calls the row that stands for the papers' Meditron.
PER_TASK = "Per-task models (Meditron)"
Row = tuple[str, Sequence[str]]
Columns = Sequence[tuple[Task, str]]


def _cells(rows: pd.DataFrame, columns: Columns) -> list[str]:
    """A cell for each task and metric of ``columns``."""
    found = {(row["task"], row["metric"]): _cell(row) for _, row in rows.iterrows()}
    return [found.get(column, "") for column in columns]


def markdown(title: str, columns: Sequence[str], rows: Iterable[Row]) -> str:
    """A table with a name and its cells in each line."""
    head = f"| {' | '.join([title, *columns])} |".replace("|  |", "| |", 1)
    lines = [f"| {' | '.join([name, *cells])} |" for name, cells in rows]
    return "\n".join([head, f"|---|{'---|' * len(columns)}", *lines])


def _narrow(table: str) -> str:
    """Scores without their leading zero, so that a line of the first page fits."""
    return re.sub(r"(?<![\d.])0\.(?=\d)", ".", table)


def _rows(frame: pd.DataFrame, by: str, metrics: Sequence[str]) -> list[Row]:
    """A line for each value of ``by``, a cell for each metric."""
    found: list[Row] = []
    for name, rows in frame.groupby(by, sort=False):
        cells = {row["metric"]: _cell(row) for _, row in rows.iterrows()}
        found.append((str(name), [cells.get(metric, "") for metric in metrics]))
    return found


def _printed(task: Task) -> list[Row]:
    """The papers' best system and the official submissions, as lines of the same table."""
    rows: dict[str, dict[str, float | None]] = {}
    for table in load_published().tables:
        if table.task == task and "SLERP+CPO" in table.rows:
            rows["*SLERP+CPO (the papers)*"] = dict(zip(table.metrics, table.rows["SLERP+CPO"], strict=True))
    rows |= {f"*{name} (official score)*": dict(scores[task]) for name, scores in load_official().items()}
    shown = {name: [scores.get(metric) for metric in SHOWN[task]] for name, scores in rows.items()}
    return [(name, ["" if value is None else f"{value:.3g}" for value in values]) for name, values in shown.items()]


def _beside_printed(table: pd.DataFrame, by: str) -> str:
    """A table for each task, with what is printed."""
    parts = []
    for task in TASKS:
        rows = _rows(table[table["task"] == task], by, SHOWN[task])
        parts.append(markdown(task, SHOWN[task], [*rows, *_printed(task)]))
    return "\n\n".join(parts)


def trivial(figures: Path) -> str:
    """The baselines by the share of the training molecules that they know, beside what is printed."""
    table = pd.read_csv(figures / "study" / "baselines.csv")
    shown = table["sample_share"].isin([0.001, 0.1, 1.0])  # 1 % lies between
    table = table[(table["test_set"] == "extra_valid") & (table["rows"] == "all") & shown]
    shares = table["sample_share"].map(lambda share: f"{100 * share:g} %")
    table = table.assign(name=table["system"].str.replace("-", " ") + ", " + shares)
    return _beside_printed(table.sort_values(["system", "sample_share"], kind="stable"), "name")


#: Where a table knows little: what is told of each test set and view.
VIEWS = {
    ("extra_valid", "all"): "all rows",
    ("extra_valid", "one per property set"): "each set once",
    ("extra_valid", "rare sets"): "rare sets",
    ("withheld_combos", "all"): "unseen combinations",
}
#: What the tables of look-ups and of learning show.
KNOWN: tuple[tuple[Task, str], ...] = (
    ("mol2cap", "BLEU-2"), ("mol2cap", "property F1"), ("mol2cap", "exact property set"),
    ("cap2mol", "BLEU"), ("cap2mol", "MACCS"), ("cap2mol", "Validity"),
)  # fmt: skip


def _by_view(figures: Path, views: Iterable[str], names: Sequence[str]) -> list[Row]:
    """A line for each of ``names``, baselines in the 10 % sample and models, over the rows of each of ``views``."""
    table = pd.read_csv(figures / "study" / "baselines.csv")
    table = pd.concat([table[table["sample_share"] == 0.1], pd.read_csv(figures / "study" / "rare.csv")])
    title = pd.Series(list(zip(table["test_set"], table["rows"], strict=True)), table.index).map(VIEWS)
    labels, lines = {system.name: system.label for system in load_systems()} | {"meditron": PER_TASK}, list[Row]()
    for view, name in product(views, names):
        rows = table[(title == view) & (table["system"] == name)]
        if not rows.empty:
            lines.append((f"{view}: {labels[name]}", _cells(rows, KNOWN)))
    return lines


def rare(figures: Path) -> str:
    """The nearest neighbour in the 10 % sample and the models, over all rows and over those that a model could win."""
    names = ("nearest-neighbour", "meditron", "sft", "cpo", "slerp+cpo")
    return markdown("", [metric for _, metric in KNOWN], _by_view(figures, VIEWS.values(), names))


def _elsewhere(columns: Columns) -> list[Row]:
    """What the paper and the shared task print of 7B models, on other test rows."""
    values = {
        f"*{name}, 7B, official score*": [s[task].get(m) for task, m in columns] for name, s in load_official().items()
    }
    rows = dict.fromkeys(("T4", "T5"), "SLERP+CPO")
    values["*SLERP+CPO, 7B, as the paper prints it*"] = [
        load_published().printed(rows, metric) for _, metric in columns
    ]
    return [(name, ["" if value is None else f"*{value:g}*" for value in shown]) for name, shown in values.items()]


def answers(figures: Path) -> str:
    """What a look-up answers, what the models do and what is printed; then the rows where a look-up knows little."""
    table = pd.read_csv(figures / "study" / "baselines.csv")
    few = table[(table["system"] == "nearest-neighbour") & (table["sample_share"] == 0.001)]
    few = few[(few["test_set"] == "extra_valid") & (few["rows"] == "all")]
    models = ("meditron", "sft", "cpo", "slerp+cpo")
    everything, _, seldom, _ = VIEWS.values()
    lines = [
        ("Nearest neighbour of 127 molecules", _cells(few, KNOWN)),
        *_by_view(figures, [everything], ("nearest-neighbour", "rule", *models)),
        *_elsewhere(KNOWN),
        *_by_view(figures, [seldom], ("nearest-neighbour", "meditron", "cpo")),
    ]
    shown = [(name.removeprefix(f"{everything}: "), cells) for name, cells in lines]
    return _narrow(markdown("", [metric for _, metric in KNOWN], shown))


def models(figures: Path) -> str:
    """The per-task models on both tasks, beside the baselines on the same rows."""
    return _beside_printed(pd.read_csv(figures / "study" / "models.csv"), "system")


def curve(figures: Path) -> str:
    """Models of fewer molecules or epochs, of both tasks, beside the full ones and the nearest neighbour."""
    table, lines = pd.read_csv(figures / "study" / "curve.csv"), list[Row]()
    table["share"] = table["system"].str.replace(r"^(mol2cap|cap2mol)(@|$)", "", regex=True)
    for share, rows in table.groupby("share", sort=False):
        part, _, epochs = str(share or "1x3").partition("x")
        name = f"{100 * float(part):.0f} % of the molecules, {epochs} epochs" if epochs.isdigit() else str(share)
        lines.append((name.replace(", 1 epochs", ", 1 epoch"), _cells(rows, KNOWN)))
    return markdown("", [metric for _, metric in KNOWN], lines)


def errors(figures: Path) -> str:
    """Which method's score tells captions with an injected error from those without."""
    table = pd.read_csv(figures / "study" / "injected_errors.csv").rename(columns={"auc": "value", "error": "metric"})
    table = table.assign(name=table["quantity"] + ", " + table["method"])
    kinds = tuple(table["metric"].unique())
    return markdown("score", kinds, _rows(table.sort_values("quantity", kind="stable"), "name", kinds))


#: Systems of the page's table, and what it shows of them.
HEADLINE = (
    "constant", "nearest-neighbour", "rule", "meditron", "init", "sft", "dpo", "cpo", "kto", "ties", "slerp", "nuslerp",
    "half-sum-ties", "soup", "ties+dpo", "slerp+dpo", "ties+cpo", "slerp+cpo", "cpo-mol2cap", "soup+cpo", "dpo+nll",
    "cpo-no-nll",
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
        lines: list[Row] = []
        for name in HEADLINE:
            rows = table[(table["system"] == name) & (table["task"] == task)]
            found, cells = {row["metric"]: _cell(row) for _, row in rows.iterrows()}, []
            for metric in metrics:
                printed, cell = load_published().printed(known[name].rows, metric), found.get(metric, "not run")
                cells.append(cell if printed is None else f"{cell} ({printed:g})")
            lines.append((known[name].label, cells))
        parts.append(markdown(task, metrics, lines))
    return "\n\n".join(parts)


#: What a table of both tasks shows.
BOTH: tuple[tuple[Task, str], ...] = (
    ("mol2cap", "BLEU-2"), ("mol2cap", "ROUGE-L"), ("mol2cap", "METEOR"),
    ("cap2mol", "BLEU"), ("cap2mol", "MACCS"), ("cap2mol", "Validity"),
)  # fmt: skip
#: What is told of the variants: title of a row, by variant.
OTHER_RUNS = {
    "corrected": "models trained anew", "seeds": "models trained anew", "prompts": "models trained anew, 500 rows",
    "test": "unseen molecules", "withheld": "unseen property combinations", "lower-rate": "learning rate 2.5e-4",
    "released-uncleaned": "as released, not cleaned", "released-first-line": "as released, cut at the first line break",
}  # fmt: skip


def all_runs(figures: Path) -> pd.DataFrame:
    """The main run's scores and the variants', with an empty ``variant`` for the main run."""
    main = pd.read_csv(figures / "study" / "scores.csv").assign(variant="")
    return pd.concat([main, pd.read_csv(figures / "study" / "variants.csv")], ignore_index=True)


def variants(figures: Path) -> str:
    """The variants that were made, beside the main run: what changes with test set, learning rate, models and seed."""
    both, lines = all_runs(figures), list[Row]()
    base = both["system"].str.split("@seed").str[0]
    made = set(base[both["variant"].isin(OTHER_RUNS)])
    for system in [system for system in load_systems() if system.name in made]:
        for (name, variant), rows in both[base == system.name].groupby(["system", "variant"], sort=False):
            if variant and variant not in OTHER_RUNS:
                continue
            seed = str(name).removeprefix(system.name).replace("@seed", ", seed ")
            title = f"{system.label}{seed}{f', {OTHER_RUNS[str(variant)]}' if variant else ''}"
            lines.append((title, _cells(rows, BOTH)))
    return markdown("", [metric for _, metric in BOTH], list(dict.fromkeys((n, tuple(cells)) for n, cells in lines)))


#: Lines of a system in the table of the released code's choices, by variant.
RELEASED = {"released": "as released", "released-white-space": "as released, with the white space"}


def _trainings(both: pd.DataFrame, name: str) -> tuple[int, list[str]]:
    """Trainings of a corrected system on the models trained anew: how many seeds, and mean and range of each score."""
    rows = both[both["variant"].isin(("corrected", "seeds")) & (both["system"].str.split("@seed").str[0] == name)]
    rows = rows.drop_duplicates(["system", "task", "metric"])
    seeds = rows["system"].nunique()
    if seeds == 1:
        return seeds, _cells(rows, BOTH)
    values = {key: found["value"] for key, found in rows.groupby(["task", "metric"])}
    spread = [values[column].agg(["mean", "min", "max"]) for column in BOTH]
    return seeds, [f"{one['mean']:.3f} ({one['min']:.3f}–{one['max']:.3f})" for one in spread]


def released(figures: Path) -> str:
    """The headline rows three times: as the papers print them, corrected, and by the released code's choices."""
    both, known = all_runs(figures), {system.name: system for system in load_systems()}
    lines: list[Row] = []
    for name in map(str, dict.fromkeys(both.loc[both["variant"] == "released", "system"])):
        label = PER_TASK if name == "meditron" else known[name].label
        printed = [load_published().printed(known[name].rows, metric) for _, metric in BOTH]
        lines.append((f"{label}, *printed*", ["" if value is None else f"*{value:g}*" for value in printed]))
        seeds, cells = _trainings(both, name)
        lines.append((f"{label}, corrected" + (f", {seeds} seeds" if seeds > 1 else ""), cells))
        own = both[both["system"] == name]
        made = [variant for variant in RELEASED if (own["variant"] == variant).any()]
        lines += [(f"{label}, {RELEASED[one]}", _cells(own[own["variant"] == one], BOTH)) for one in made]
    return _narrow(markdown("", [metric for _, metric in BOTH], lines))


#: The claims that the first page shows.
CLAIMS = ("C1", "C3", "C4", "C6", "C9a", "C10", "C13", "C14", "C18", "C20", "C22", "C31b")


def verdicts(figures: Path) -> str:
    """How many claims got each verdict, and what became of the main ones."""
    table = pd.read_csv(figures / "study" / "claims.csv", dtype=str)
    counts = "; ".join(f"{verdict}: {count}" for verdict, count in table["verdict"].value_counts().items())
    rows = table.set_index("id")[["claim", "verdict"]]
    lines = [(name, [str(cell).lstrip(". ") for cell in rows.loc[name]]) for name in CLAIMS]
    return f"Of {len(table)} claims and controls: {counts}.\n\n{markdown('', ['claim', 'verdict'], lines)}"


def rewritten(figures: Path) -> str:
    """Captions of the same molecules before and after these were written as other SMILES."""
    table = pd.read_csv(figures / "study" / "rewritten_smiles.csv").rename(columns={"measure": "metric"})
    shown = ("BLEU-2", "ROUGE-L", "METEOR")
    lines = []
    for name, rows in table.groupby("system", sort=False):
        before, after = (dict(zip(rows["metric"], rows[when], strict=True)) for when in ("before", "after"))
        told = [f"{before[metric]:.3f} to {after[metric]:.3f}" for metric in shown]
        lines.append((str(name), [*told, f"{100 * after['equal captions']:.0f} %"]))
    return markdown("", [*shown, "equal captions"], lines)


def lead(figures: Path) -> str:
    """The study in one table, for README: captions and molecules of a few systems beside what is printed."""
    scores = pd.read_csv(figures / "study" / "scores.csv").set_index(["system", "task", "metric"])["value"]
    names = {"nearest-neighbour": "nearest neighbour in the 10 % sample, no training"}
    trained = {"sft": "SFT", "dpo": "DPO", "dpo+nll": "DPO with CPO's NLL term", "cpo": "CPO", "slerp+cpo": "SLERP+CPO"}
    names |= {name: f"{label}, 1.7M parameters" for name, label in trained.items()}
    ours = {label: [scores.get((name, *column)) for column in BOTH] for name, label in names.items()}
    lines = [(n, ["not run" if value is None else f"{value:.3f}" for value in values]) for n, values in ours.items()]
    return markdown("", [metric for _, metric in BOTH], [*lines, *_elsewhere(BOTH)])


#: Floating-point operations a second that a float32 product of 1,024 x 1,024 matrices reaches on one core here (torch).
PEAK = 95e9


#: What the table of costs says of a training, by variant.
TRAINED = {"released": ", as released", "released-white-space": ", as released with white space"}


def costs(figures: Path) -> str:
    """Minutes, tokens a second and share of the peak: of the models trained anew, and of their adapters."""
    table = pd.read_csv(figures / "study" / "variants_training.csv")
    model = table.loc[table["model"] == "mol2cap", "parameters"].iloc[0]
    # Forward and backward are six operations for each trained parameter and token, four for each frozen one.
    work = 6 * table["parameters"] + 4 * model * (table["variant"] != "all")
    table["share"] = [f"{value:.0%}" for value in work * table["tokens_per_s"] / PEAK]
    table["model"] += table["variant"].map(TRAINED).fillna("")
    table["seconds"] = (table["seconds"] / 60).round().astype(int)
    shown = table[["model", "seconds", "tokens_per_s", "share", "held_out_loss"]].astype(object).fillna("")
    shown.columns = ["model or adapter", "minutes", "tokens per second", "share of a core's peak", "held-out loss"]
    return str(shown.to_markdown(index=False, floatfmt=(".0f", ".0f", ",.0f", "", ".3f")))
