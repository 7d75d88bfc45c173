"""``lmolt nli FILE``: atomic cross-NLI of one file of captions, and its rivals, as a table and JSON."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmolt_utils.files import BadFileError, as_json
from lmolt_utils.metrics.intervals import Scored, intervals
from lmolt_utils.metrics.prediction_files import check_outputs, read_predictions, told_files, write_output
from lmolt_utils.nli.answers import PairScorer
from lmolt_utils.nli.atoms import decomposer_for
from lmolt_utils.nli.baselines import methods_for
from lmolt_utils.nli.classifier import Classifier
from lmolt_utils.nli.cross_nli import QUANTITIES, PairCounts, cross_nli, summary, texts_of
from lmolt_utils.nli.llm import agreement_with_rules, decomposer_by_model


def means(rows: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """:func:`~lmolt_utils.nli.cross_nli.summary` with the 95 % interval of each mean (low, high) and what it lacks."""
    table = summary(rows)
    wide = {
        f"{method}/{quantity}": group[quantity].to_numpy()
        for method, group in rows.groupby("method", sort=False)
        for quantity in QUANTITIES
    }
    names = [f"{method}/{quantity}" for method, quantity in zip(table["method"], table["quantity"], strict=True)]
    metrics = dict(zip(names, table["mean"].tolist(), strict=True))
    found = intervals(Scored(metrics, pd.DataFrame(wide)), resamples=resamples, seed=seed).values()
    return table.assign(low=[i.low for i in found], high=[i.high for i in found], reason=[i.reason for i in found])


def run(arguments: argparse.Namespace) -> int:
    """Judge one file, print its table, write what was asked for; returns the exit status.

    Raises ValueError or OSError with a message that says what to do, before anything is computed where it can.
    """
    file = Path(arguments.file)
    reference = None if arguments.reference is None else Path(arguments.reference)
    json = None if arguments.json is None else Path(arguments.json)
    cache = None if arguments.cache is None else Path(arguments.cache)
    check_outputs([json], [file, reference, cache])
    if cache is not None and cache.resolve() in {path.resolve() for path in (file, reference) if path is not None}:
        raise BadFileError(f"{cache} is an input: name another file for --cache")
    frame = captions_of(read_predictions(file, task="mol2cap", reference=reference), file)
    decomposer = decomposer_for(arguments.vocabulary)
    classifier = Classifier(
        _here(arguments.model), device=arguments.device, dtype=arguments.dtype, batch_tokens=arguments.batch_tokens
    )
    scorer = PairScorer(classifier, cache)
    model = None
    if arguments.decomposer is not None:
        texts = [text for pair in texts_of(frame) for text in pair]
        model = decomposer_by_model(
            _here(arguments.decomposer), texts, decomposer, device=arguments.device, dtype=arguments.dtype
        )
    atoms = None if model is None else model.units
    methods, left_out = methods_for(list(frame["reference"]), decomposer, scorer, atoms=atoms)
    fitted = scorer.asked + scorer.cached
    rows, pairs = cross_nli({"": frame}, methods, scorer)
    table = means(rows[""], resamples=arguments.resamples)
    told = {"pairs": asdict(pairs), "pairs_to_fit_convolution": fitted, "truncated_pairs": classifier.truncated}
    print(show(file, len(frame), classifier, table, pairs, told, left_out))
    for note in frame.attrs["notes"]:
        print(f"note: {note}")
    agreed = None if model is None else agreement_with_rules(model, decomposer)
    if agreed is not None:
        print(f"facts by {arguments.decomposer}; {agreed}")
    if json is not None:
        report = {
            "files": told_files(file, reference, frame),
            "model": classifier.identity,
            "decomposer": arguments.decomposer or "grammar",
            "agreement_with_rules": None if agreed is None else _plain(pd.DataFrame([asdict(agreed)]))[0],
            **told,
            "not_run": {"SummaC-Conv": left_out} if left_out else {},
            "means": _plain(table),
            "rows": _plain(rows[""]),
        }
        write_output(json, as_json(report))
    return 0


def _here(model: str) -> str:
    """A command's relative folder is meant from where it is typed, a parameter's from the repository's root."""
    return str(Path(model).resolve()) if Path(model).exists() else model


def captions_of(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    """The frame, if it holds captions; raises :class:`BadFileError` if not."""
    if frame.empty:
        raise BadFileError(f"{file} has no rows")
    tasks = sorted({str(task) for task in frame["task"]}) if "task" in frame.columns else ["mol2cap"]
    if tasks != ["mol2cap"]:
        raise BadFileError(f"{file} holds rows of {', '.join(tasks)}: NLI judges captions (mol2cap) only")
    return frame


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Records fit for strict JSON: an undefined number is null."""

    def value(cell: Any) -> Any:
        if isinstance(cell, np.generic):
            cell = cell.item()
        return None if isinstance(cell, float) and math.isnan(cell) else cell

    return [{str(name): value(cell) for name, cell in line.items()} for line in frame.to_dict("records")]


def show(
    file: Path,
    n: int,
    classifier: Classifier,
    table: pd.DataFrame,
    pairs: PairCounts,
    told: dict[str, Any],
    left_out: str,
) -> str:
    """The table as text, under what it depends on and above what was odd."""
    shown = table[["method", "quantity", "mean", "low", "high", "n"]]
    lines = [
        f"{file.name}: {n} captions, judged by {classifier.reference} ({classifier.identity['precision']})",
        shown.to_string(index=False, na_rep="-", float_format="%.4f"),
        f"pairs: {pairs.naive} naive, {pairs.distinct} distinct, {pairs.cached} of them from the cache",
    ]
    odd = {
        "empty outputs": int(table["empty_outputs"].max()),
        "outputs that are no caption (wrong modality)": int(table["wrong_modality"].max()),
        "empty references": int(table["empty_references"].max()),
        "captions of too many units, cut": int(table["cut"].max()),
        "pairs longer than the model reads, cut": told["truncated_pairs"],
    }
    lines += [f"{name}: {count}" for name, count in odd.items() if count]
    if table["empty_outputs"].max() or table["wrong_modality"].max():
        zero = table[(table["method"] == "atomic") & (table["quantity"] == "hallucination")]["mean_empty_as_0"]
        lines.append(f"atomic hallucination with 0 for these outputs: {float(zero.iloc[0]):.4f}")
    if left_out:
        lines.append(f"SummaC-Conv: not run ({left_out})")
    if classifier.reference.startswith("embedded:"):
        lines.append("the embedded model knows the facts of the embedded corpus; give --model for other captions")
    return "\n".join(lines)
