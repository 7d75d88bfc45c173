"""``lmolt score FILE``: every metric of one predictions file, as a table, JSON and CSV."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.files import BadFileError, as_json, fingerprint, write_text
from lmolt_utils.metrics.captions import caption_tokenizer
from lmolt_utils.metrics.featurise import Featuriser
from lmolt_utils.metrics.intervals import intervals
from lmolt_utils.metrics.prediction_files import read_predictions
from lmolt_utils.metrics.scoring import Scorer, Scores

#: Conventions that the table names above the numbers: no number is read without them.
_TOLD = {
    "mol2cap": ("tokenizer", "meteor_matcher", "postprocess"),
    "cap2mol": ("invalid", "rdkit_version", "postprocess"),
}
#: Counts of what was odd, and notes: shown below the table where there are any.
_ODD = (
    *("missing_", "empty_", "invalid_", "unparsable_", "doubled_", "fcd_", "rdkit_gave_up", "wrong_modality"),
    "postprocess: ",
)


def run(arguments: argparse.Namespace) -> int:
    """Score one file, print its table, write what was asked for; returns the exit status.

    Raises ValueError or OSError with a message that says what to do, before anything is computed where it can.
    """
    file, reference, json, csv = (
        None if name is None else Path(name)
        for name in (arguments.file, arguments.reference, arguments.json, arguments.csv)
    )
    assert file is not None
    check_outputs([json, csv], [file, reference])
    frame = read_predictions(file, task=arguments.task, reference=reference)
    scorer = Scorer(
        caption_tokenizer(arguments.tokenizer), arguments.invalid, arguments.meteor, Featuriser(arguments.workers)
    )
    scores = scorer.score(frame, arguments.task, rule=arguments.postprocess)
    report = to_report(scores, arguments.resamples)
    table = to_table(report)
    print(show(file, scores, table))
    for note in frame.attrs["notes"]:
        print(f"note: {note}")
    if json is not None:
        write_output(json, as_json({**report, "files": told_files(file, reference, frame)}))
    if csv is not None:
        write_output(csv, table.to_csv(index=False))
    return 0


def check_outputs(outputs: Sequence[Path | None], inputs: Sequence[Path | None]) -> None:
    """Raise :class:`BadFileError`, before anything is computed, for a file that cannot or must not be written."""
    kept = {path.resolve() for path in inputs if path is not None}
    for output in (path for path in outputs if path is not None):
        if not output.absolute().parent.is_dir():
            raise BadFileError(f"{output} cannot be written: there is no folder {output.parent}")
        if output.is_dir():
            raise BadFileError(f"{output} cannot be written: it is a folder; name a file")
        if output.resolve() in kept:
            raise BadFileError(f"{output} is also given as another file: name one that may be replaced")
        if output.is_file() or not output.exists():  # two reports may both go to the screen
            kept.add(output.resolve())


def write_output(path: Path, text: str) -> None:
    """Write a report: a file as a whole, a link's target, a device or pipe (``/dev/stdout``) in place."""
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as handle:
            handle.write(text)
    else:
        write_text(path.resolve(), text)


def told_files(file: Path, reference: Path | None, frame: pd.DataFrame) -> dict[str, Any]:
    """Which files a report is made from, and how they were read."""
    inputs = {"predictions": file, "references": reference}
    files: dict[str, Any] = {
        name: {"name": path.name, "sha256": fingerprint(path) if path.is_file() else None}
        for name, path in inputs.items()
        if path is not None
    }
    return {**files, "notes": frame.attrs["notes"]}


def to_report(scores: Scores, resamples: int = 1000) -> dict[str, Any]:
    """Task, rows, conventions, and for each metric value, low, high (95 %), n and how the interval was made.

    Fit for strict JSON: what is undefined is null, and `reason` says why.
    """
    found = intervals(scores, resamples=resamples)
    return {**scores.to_dict(), "metrics": {name: interval.to_dict() for name, interval in found.items()}}


def to_table(report: dict[str, Any]) -> pd.DataFrame:
    """One row per metric: metric, value, low, high, n."""
    rows = [{"metric": name, **entry} for name, entry in report["metrics"].items()]
    return pd.DataFrame(rows)[["metric", "value", "low", "high", "n"]].astype(
        {"value": float, "low": float, "high": float}
    )


def show(path: Path, scores: Scores, table: pd.DataFrame) -> str:
    """The table as text, under what it depends on and above what was odd in the file."""
    told = ", ".join(f"{name} {scores.conventions[name]}" for name in _TOLD[scores.task])
    odd = [
        f"{name}: {value}"
        for name, value in scores.conventions.items()
        if value and name.startswith(_ODD) and not name.endswith("_version")
    ]
    lines = [f"{path.name}: {scores.task}, {scores.n} rows; {told}", table.to_string(index=False, na_rep="-")]
    return "\n".join(lines + (["", *odd] if odd else []))
