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
from lmolt_utils.nli.cross_nli import EMPTY_OUTPUT, QUANTITIES, UNJUDGED, WRONG_MODALITY, cross_nli, texts_and_rules
from lmolt_utils.nli.llm import agreement, decomposer_by_model
from lmolt_utils.nli.results import plain


def run(arguments: argparse.Namespace) -> int:
    """Judge one file, print its table, write what was asked for; returns the exit status."""
    file = Path(arguments.file)
    reference, output, cache = (
        None if name is None else Path(name) for name in (arguments.reference, arguments.json, arguments.cache)
    )
    check_outputs([output], [file, reference, cache])
    if cache is not None and cache.resolve() in {path.resolve() for path in (file, reference) if path is not None}:
        raise BadFileError(f"{cache} is an input: name another file for --cache")
    frame = read_predictions(file, task="mol2cap", reference=reference)
    if frame.empty:
        raise BadFileError(f"{file} has no rows")
    tasks = set(frame["task"]) if "task" in frame.columns else {"mol2cap"}
    if tasks != {"mol2cap"}:
        raise BadFileError(f"{file} holds rows of {', '.join(sorted(tasks))}: NLI judges captions (mol2cap) only")
    rules = decomposer_for(arguments.vocabulary)
    where = {"device": arguments.device, "dtype": arguments.dtype}
    classifier = Classifier(_here(arguments.model), batch_tokens=arguments.batch_tokens, **where)
    scorer = PairScorer(classifier, cache)
    model = None
    if arguments.decomposer is not None:
        texts = [text for pair in texts_and_rules(frame)[0] for text in pair]
        model = decomposer_by_model(_here(arguments.decomposer), texts, rules, **where)
    methods, left_out = methods_for(list(frame["reference"]), rules, scorer, atoms=model.units if model else None)
    fitted = scorer.asked + scorer.cached
    rows, pairs = cross_nli({"": frame}, methods, scorer)
    table = means(rows[""], resamples=arguments.resamples)
    agreed = agreement(model) if model else None
    report = {
        "files": told_files(file, reference, frame),
        "model": classifier.identity,
        "decomposer": arguments.decomposer or "grammar",
        "agreement_with_rules": plain(pd.DataFrame([asdict(agreed)]))[0] if agreed else None,
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


def means(rows: pd.DataFrame, *, resamples: int = 1000) -> pd.DataFrame:
    """Means of one file's rows, a line per method and quantity, with the 95 % interval and what the means leave out.

    Columns: method, quantity, mean, n (rows that count), mean_empty_as_0 (with 0 where an output that is empty or no
    caption leaves the quantity undefined), empty_references, empty_outputs, wrong_modality, low, high, reason.
    """
    counted = dict(zip(("empty_references", "empty_outputs", "wrong_modality"), UNJUDGED, strict=True))
    lines: list[dict[str, Any]] = []
    columns = {}
    for method, group in rows.groupby("method", sort=False):
        silent = group["rule"].isin([EMPTY_OUTPUT, WRONG_MODALITY])
        for quantity in QUANTITIES:
            values = group[quantity]
            columns[f"{method}/{quantity}"] = values.to_numpy()
            lines.append(
                {
                    "method": method,
                    "quantity": quantity,
                    "mean": float(values.mean()),
                    "n": int(values.notna().sum()),
                    "mean_empty_as_0": float(values.where(~silent, values.fillna(0.0)).mean()),
                    **{name: int((group["rule"] == rule).sum()) for name, rule in counted.items()},
                }
            )
    metrics = {name: line["mean"] for name, line in zip(columns, lines, strict=True)}
    found = intervals(Scored(metrics, pd.DataFrame(columns)), resamples=resamples).values()
    return pd.DataFrame(lines).assign(
        low=[i.low for i in found], high=[i.high for i in found], reason=[i.reason for i in found]
    )


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
