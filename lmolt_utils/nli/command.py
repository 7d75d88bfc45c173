"""``lmolt nli FILE``: atomic cross-NLI of one file of captions, and its baselines, as a table and JSON."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.files import BadFileError, as_json
from lmolt_utils.metrics.intervals import Scored, intervals
from lmolt_utils.metrics.prediction_files import check_outputs, read_predictions, told_files, write_output
from lmolt_utils.nli.atoms import decomposer_for
from lmolt_utils.nli.baselines import methods_for
from lmolt_utils.nli.classifier import Classifier, PairScorer
from lmolt_utils.nli.cross_nli import QUANTITIES, cross_nli, summary, texts_of
from lmolt_utils.nli.llm import agreement_with_rules, decomposer_by_model
from lmolt_utils.nli.results import plain


def run(arguments: argparse.Namespace) -> int:
    """Judge one file, print its table, write what was asked for; returns the exit status.

    Raises ValueError or OSError with a message that says what to do, before anything is computed where it can.
    """
    file = Path(arguments.file)
    reference, output, cache = (
        None if name is None else Path(name) for name in (arguments.reference, arguments.json, arguments.cache)
    )
    check_outputs([output], [file, reference, cache])
    if cache is not None and cache.resolve() in {path.resolve() for path in (file, reference) if path is not None}:
        raise BadFileError(f"{cache} is an input: name another file for --cache")
    frame = captions_of(read_predictions(file, task="mol2cap", reference=reference), file)
    rules = decomposer_for(arguments.vocabulary)
    where = {"device": arguments.device, "dtype": arguments.dtype}
    classifier = Classifier(_here(arguments.model), batch_tokens=arguments.batch_tokens, **where)
    scorer = PairScorer(classifier, cache)
    model = None
    if arguments.decomposer is not None:
        texts = [text for pair in texts_of(frame) for text in pair]
        model = decomposer_by_model(_here(arguments.decomposer), texts, rules, **where)
    methods, left_out = methods_for(list(frame["reference"]), rules, scorer, atoms=model.units if model else None)
    fitted = scorer.asked + scorer.cached
    rows, pairs = cross_nli({"": frame}, methods, scorer)
    table = means(rows[""], resamples=arguments.resamples)
    agreed = None if model is None else agreement_with_rules(model, rules)
    report = {
        "files": told_files(file, reference, frame),
        "model": classifier.identity,
        "decomposer": arguments.decomposer or "grammar",
        "agreement_with_rules": None if agreed is None else plain(pd.DataFrame([asdict(agreed)]))[0],
        "pairs": asdict(pairs),
        "pairs_to_fit_convolution": fitted,
        "truncated_pairs": classifier.truncated,
        "not_run": {"SummaC-Conv": left_out} if left_out else {},
        "means": plain(table),
        "rows": plain(rows[""]),
    }
    print(show(f"{file.name}: {len(frame)} captions", classifier, table, report))
    for note in frame.attrs["notes"]:
        print(f"note: {note}")
    if agreed is not None:
        print(f"facts by {arguments.decomposer}; {agreed}")
    if output is not None:
        write_output(output, as_json(report))
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


def means(rows: pd.DataFrame, *, resamples: int = 1000) -> pd.DataFrame:
    """:func:`~lmolt_utils.nli.cross_nli.summary` with the 95 % interval of each mean (low, high) and what it lacks."""
    table = summary(rows)
    columns = {
        f"{method}/{quantity}": group[quantity].to_numpy()
        for method, group in rows.groupby("method", sort=False)
        for quantity in QUANTITIES
    }
    metrics = dict(zip(columns, table["mean"].tolist(), strict=True))  # both by method, then quantity
    found = intervals(Scored(metrics, pd.DataFrame(columns)), resamples=resamples).values()
    return table.assign(low=[i.low for i in found], high=[i.high for i in found], reason=[i.reason for i in found])


def show(title: str, classifier: Classifier, table: pd.DataFrame, report: dict[str, Any]) -> str:
    """The table as text, under what it depends on and above what was odd."""
    pairs = report["pairs"]
    lines = [
        f"{title}, judged by {classifier.reference} ({classifier.identity['precision']})",
        table[["method", "quantity", "mean", "low", "high", "n"]].to_string(
            index=False, na_rep="-", float_format="%.4f"
        ),
        f"pairs: {pairs['naive']} naive, {pairs['distinct']} distinct, {pairs['cached']} of them from the cache",
    ]
    odd = {
        "empty outputs": int(table["empty_outputs"].max()),
        "outputs that are no caption (wrong modality)": int(table["wrong_modality"].max()),
        "empty references": int(table["empty_references"].max()),
        "captions of too many units, truncated": int(table["cut"].max()),
        "pairs longer than the model reads, truncated": report["truncated_pairs"],
    }
    lines += [f"{name}: {count}" for name, count in odd.items() if count]
    if table["empty_outputs"].max() or table["wrong_modality"].max():
        zero = table[(table["method"] == "atomic") & (table["quantity"] == "hallucination")]["mean_empty_as_0"]
        lines.append(f"atomic hallucination with 0 for these outputs: {float(zero.iloc[0]):.4f}")
    lines += [f"{name}: not run ({why})" for name, why in report["not_run"].items()]
    if classifier.reference.startswith("embedded:"):
        lines.append("the embedded model knows the facts of the embedded corpus; give --model for other captions")
    return "\n".join(lines)
