"""What cross-NLI wrote, read back for tables and figures; no model is needed for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.config.systems import System
from lmolt_utils.files import read_json, read_rows
from lmolt_utils.models.predictions import scored_answers
from lmolt_utils.nli.cross_nli import EMPTY_OUTPUT, WRONG_MODALITY, released_corpus, texts_and_rules
from lmolt_utils.nli.truth import COLUMNS, TRUTH_OF
from lmolt_utils.run.notebook import Run

#: The systems whose scores Figs. 6, 7 and 10 tell apart.
PREFERRED, DISPREFERRED = "slerp+cpo", "meditron"
TRUTH_WORDS = {"recall": "property recall", "hallucinated": "invented properties"}  # its columns in text
#: Columns of numbers in a row, NaN where undefined.
NUMBERS = ("hallucination", "coverage", "unsupported", "recall", "hallucinated")


def rows_path(run: Run, system: System) -> Path:
    """One line per NLI method and caption."""
    return run.path("scores", f"{system.name}.crossnli.jsonl")


def report_path(run: Run) -> Path:
    """Pair counts and correlations."""
    return run.path("scores", "crossnli.json")


def divergence_path(run: Run) -> Path:
    return run.path("scores", "divergence.json")


def cross_nli_rows(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """The rows of all systems that have them, with the column ``system``."""
    frames = [
        read_rows(rows_path(run, system), ("id", "method", *NUMBERS, "words")).assign(system=system.name)
        for system in systems
        if rows_path(run, system).exists()
    ]
    if not frames:
        return pd.DataFrame(columns=["system", "id", "method", *NUMBERS, "rule", "words"])
    return pd.concat(frames, ignore_index=True).astype(dict.fromkeys(NUMBERS, float))


def judged_captions(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """The answers that NLI is asked about, with the system's label; without any, each reference with the next one."""
    frames = [scored_answers(run, system, "mol2cap").assign(system=system.label) for system in systems]
    answers = pd.concat(frames, ignore_index=True)
    judged = answers[[not rule for rule in texts_and_rules(answers)[1]]]
    if len(judged):
        return judged
    following = answers["reference"].shift(-1, fill_value=answers["reference"].iloc[0])
    return answers.assign(prediction=following, system="the next row's reference")


def cross_nli_report(run: Run) -> dict[str, Any]:
    return dict(read_json(report_path(run)))


def correlation_table(run: Run) -> pd.DataFrame:
    """What :func:`~lmolt_utils.nli.truth.correlations` gave; no rows before 07 ran."""
    found = cross_nli_report(run)["correlations"] if report_path(run).exists() else []
    table = pd.DataFrame(found, columns=list(COLUMNS))
    if run.property_note:
        table["truth"] += " (sets read off the captions)"
    return table


def headline(table: pd.DataFrame) -> str:
    """Which method follows the truth best, by rank correlation, for each quantity."""
    told = []
    for quantity, wanted in TRUTH_OF.items():
        part = table[table["quantity"] == quantity].dropna(subset=["spearman"])
        if quantity == "hallucination":  # SummaC has none apart from its unsupported rate
            part = part[~part["method"].str.startswith("SummaC")]
        if part.empty:
            told.append(f"{quantity}: undefined")
            continue
        best = part.astype({"spearman": float}).nlargest(1, "spearman").iloc[0]
        told.append(f"{quantity} follows {TRUTH_WORDS[wanted]} best by {best['method']} ({best['spearman']:.2f})")
    return "; ".join(told)


def mean_table(rows: pd.DataFrame, *, as_released: bool = False) -> pd.DataFrame:
    """Mean atomic scores of each system beside the truth they ought to follow, and its outputs that state nothing;
    ``as_released``: with what cross-nli 0.1.0 gives as the corpus's hallucination."""
    chosen = rows[rows["method"] == "atomic"]
    counted = {"empty_outputs": chosen["rule"] == EMPTY_OUTPUT, "wrong_modality": chosen["rule"] == WRONG_MODALITY}
    groups = chosen.assign(**counted).groupby("system", sort=False)
    means = groups[["coverage", "recall", "hallucination", "unsupported", "hallucinated"]].mean()
    if as_released:
        means["hallucination, as released"] = groups["hallucination"].agg(lambda of: released_corpus(of.to_numpy()))
    return means.join(groups[list(counted)].sum())


def divergence_report(run: Run) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Relative entropies (a line per method and cut), the atomic one under other choices, and why there are none."""
    if not divergence_path(run).exists():
        return pd.DataFrame(), pd.DataFrame(), "07_nli_evaluation has not run"
    found = read_json(divergence_path(run))
    table = pd.DataFrame(found["table"])
    numbers = table.columns.difference(["method", "reason"])
    return table.astype(dict.fromkeys(numbers, float)), pd.DataFrame(found["sensitivity"]), found["not_run"]
