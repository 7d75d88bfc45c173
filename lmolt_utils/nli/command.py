"""``lmolt nli FILE``: atomic cross-NLI of one file of captions, and its baselines."""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.files import BadFileError
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.metrics.intervals import Scored, intervals, strict_json
from lmolt_utils.metrics.prediction_files import read_predictions, refuse_molecules, report_paths, write_report
from lmolt_utils.nli.baselines import methods_for
from lmolt_utils.nli.classifier import Classifier, PairScorer
from lmolt_utils.nli.cross_nli import QUANTITIES, UNJUDGED, cross_nli, released_corpus


def judge(arguments: argparse.Namespace, rules: Decomposer) -> int:
    """Judge one file, print its table, write JSON where asked; returns the exit status."""
    file, reference, output = report_paths(arguments)
    frame = read_predictions(file, task="mol2cap", reference=reference)
    if frame.empty:
        raise BadFileError(f"{file} has no rows")
    if tasks := set(frame["task"]) - {"mol2cap"}:
        raise BadFileError(f"{file} holds rows of {', '.join(sorted(tasks))}: NLI judges captions (mol2cap) only")
    refuse_molecules(frame["prediction"].tolist(), file)
    # A command's relative folder is meant from where it is typed, a parameter's from the repository's root.
    model = str(Path(arguments.model).resolve()) if Path(arguments.model).exists() else arguments.model
    options = {"device": arguments.device, "dtype": arguments.dtype, "batch_tokens": arguments.batch_tokens}
    classifier = Classifier(model, as_released=arguments.as_released, **options)
    scorer = PairScorer(classifier)
    methods, left_out = methods_for(list(frame["reference"]), rules, scorer)
    found, pairs = cross_nli({"": frame}, methods, scorer)
    rows = found[""]
    table = means(rows)
    counts = rows.loc[rows["method"] == "atomic", "rule"].value_counts().reindex(UNJUDGED, fill_value=0).to_dict()
    counts["truncated pair"] = classifier.truncated

    print(f"{file.name}: {len(frame)} captions, judged by {model} ({classifier.identity['precision']})")
    print(table.to_string(index=False, na_rep="-", float_format="%.4f"))
    print(f"pairs: {pairs['naive']} naive, {pairs['distinct']} distinct")
    corpus = {}
    if arguments.as_released:
        atomic = rows.loc[rows["method"] == "atomic", "hallucination"]
        corpus = {"last row / rows": released_corpus(atomic.to_numpy()), "mean": float(atomic.mean())}
        told = ", ".join(f"{name} {value:.6f}" for name, value in corpus.items())
        print(f"labels by index; hallucination of the corpus as cross-nli 0.1.0 returns it: {told}")
    for name, count in counts.items():
        if count:
            print(f"{name}: {count}")
    if left_out:
        print(f"SummaC-Conv: not run ({left_out})")
    if model.startswith("embedded:"):
        print("the embedded model knows the facts of the embedded corpus; give --model for other captions")
    report: dict[str, Any] = {
        "model": classifier.identity,
        "pairs": pairs,
        "counts": counts,
        "not_run": {"SummaC-Conv": left_out} if left_out else {},
        "as_released": strict_json(corpus),
        "means": strict_json(table),
        "rows": strict_json(rows),
    }
    write_report(output, report, file, reference, frame)
    return 0


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Means of one file's rows with 95 % intervals, a line per method and quantity; n: rows that count."""
    groups = rows.groupby("method", sort=False)
    columns = {(method, name): group[name].to_numpy() for method, group in groups for name in QUANTITIES}
    samples = pd.DataFrame({f"{method}/{name}": values for (method, name), values in columns.items()})
    metrics = {str(name): float(value) for name, value in samples.mean().items()}
    found = intervals(Scored(metrics, samples)).values()
    lines = [(*key, *interval) for key, interval in zip(columns, found, strict=True)]
    return pd.DataFrame(lines, columns=["method", "quantity", "mean", "low", "high", "n"])
