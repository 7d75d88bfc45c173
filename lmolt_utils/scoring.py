"""One scorer for every system and both tasks: a frame of predictions in, every metric and row value out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pandas as pd

from lmolt_utils.metrics.captions import (
    CAPTION_METRICS,
    CaptionTokenizer,
    MeteorMatcher,
    caption_scores,
    caption_tokenizer,
    meteor_matcher,
    strip_cls,
)
from lmolt_utils.metrics.distributions import chr_f, length_deviation, word_count, wrong_modality_rate
from lmolt_utils.metrics.molecules import InvalidConvention, molecule_scores

TASKS = ("mol2cap", "cap2mol")
COLUMNS = ("id", "source", "reference", "prediction")


@dataclass(frozen=True, eq=False)
class Scores:
    """What one system got on one task.

    metrics: corpus values by name, NaN where undefined (`conventions` says why).
    conventions: everything a value depends on besides the data: tokenizer, METEOR matcher, convention for
    invalid molecules, what went into FCD, library versions; and counts of what was odd in the outputs.
    samples: one row per prediction, in the order given: id, the per-row metrics, length_deviation (pieces for
    captions, characters for molecules), chr_f, word_count. NaN marks a row that a metric leaves out.
    """

    task: str
    n: int
    metrics: dict[str, float]
    conventions: dict[str, str | int | float]
    samples: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """All but the samples, fit for strict JSON: an undefined value is null."""
        metrics = {name: None if math.isnan(value) else value for name, value in self.metrics.items()}
        return {"task": self.task, "n": self.n, "metrics": metrics, "conventions": dict(self.conventions)}


def score(
    predictions: pd.DataFrame,
    task: str,
    *,
    tokenizer: str | CaptionTokenizer = "auto",
    invalid: InvalidConvention = "lpm24",
    meteor: str | MeteorMatcher = "auto",
) -> Scores:
    """Score the predictions of one system on one task.

    predictions: one row per pair with the columns id, source, reference and prediction. A missing prediction
    (None, NaN) is scored as an empty one. A column `task`, if there is one, must agree with `task`.
    task: "mol2cap" or "cap2mol".
    tokenizer, meteor: for captions, see `caption_tokenizer` and `meteor_matcher`.
    invalid: for molecules, see `molecule_scores`.

    Raises ValueError for a missing column, no rows, a missing reference, another task's rows or an unknown
    setting.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: give 'mol2cap' or 'cap2mol'")
    absent = [column for column in COLUMNS if column not in predictions.columns]
    if absent:
        raise ValueError(
            f"predictions lack the column(s) {', '.join(absent)}; needed are {', '.join(COLUMNS)}, "
            f"given are {', '.join(map(str, predictions.columns))}"
        )
    if predictions.empty:
        raise ValueError("there are no predictions to score: the table has no rows")
    if "task" in predictions.columns and (other := set(predictions["task"]) - {task}):
        raise ValueError(f"asked to score {task}, but the predictions hold rows of {sorted(map(str, other))}")
    no_reference = predictions["reference"].isna()
    if no_reference.any():
        raise ValueError(
            f"{int(no_reference.sum())} rows have no reference, the first is "
            f"id {predictions.loc[no_reference, 'id'].iloc[0]!r}: without one nothing can be scored"
        )

    references = [str(text) for text in predictions["reference"]]
    missing = predictions["prediction"].isna().tolist()
    outputs = ["" if gone else str(text) for text, gone in zip(predictions["prediction"], missing, strict=True)]
    if task == "mol2cap":
        metrics, conventions, columns = _score_captions(references, outputs, tokenizer, meteor)
        outputs = [strip_cls(text) for text in outputs]  # as caption_scores does
    else:
        metrics, conventions, columns = _score_molecules(references, outputs, invalid)
    conventions |= {
        "missing_predictions": sum(missing),
        "empty_predictions": sum(not text.strip() for text in outputs),
        "wrong_modality_rate": wrong_modality_rate(outputs, task),
    }
    columns |= {"chr_f": chr_f(references, outputs), "word_count": word_count(outputs)}
    samples = pd.DataFrame({"id": predictions["id"].to_numpy(), **columns})
    return Scores(task, len(samples), metrics, conventions, samples)


_Parts = tuple[dict[str, float], dict[str, str | int | float], dict[str, Any]]


def _score_captions(
    references: Sequence[str],
    outputs: Sequence[str],
    tokenizer: str | CaptionTokenizer,
    meteor: str | MeteorMatcher,
) -> _Parts:
    if isinstance(tokenizer, str):
        tokenizer = caption_tokenizer(tokenizer)
    if isinstance(meteor, str):
        meteor = meteor_matcher(meteor)
    scores = caption_scores(references, outputs, tokenizer, meteor)
    conventions: dict[str, str | int | float] = {
        "tokenizer": tokenizer.name,
        "meteor_matcher": meteor.name,
        "wordnet": meteor.version,
        **_versions("nltk", "rouge_score", "sacrebleu"),
    }
    columns = dict(scores.samples)
    columns["length_deviation"] = length_deviation(scores.reference_lengths, scores.prediction_lengths)
    return {name: scores.metrics[name] for name in CAPTION_METRICS}, conventions, columns


def _score_molecules(references: Sequence[str], outputs: Sequence[str], invalid: InvalidConvention) -> _Parts:
    scores = molecule_scores(references, outputs, invalid)
    conventions: dict[str, str | int | float] = {
        "invalid": invalid,
        "invalid_predictions": int((scores.samples["Validity"] == 0).sum()),
        "unparsable_references": scores.unparsable_references,
        "fcd_references": scores.fcd.references,
        "fcd_predictions": scores.fcd.predictions,
        "fcd_dropped_empty": scores.fcd.dropped,
        "fcd_over_349_characters": scores.fcd.over_length,
        "fcd_several_fragments": scores.fcd.fragments,
        "fcd_note": scores.fcd.note,
        **_versions("rdkit", "nltk", "fcd_torch", "rapidfuzz", "sacrebleu"),
    }
    columns: dict[str, Any] = dict(scores.samples)
    columns["length_deviation"] = length_deviation([len(r) for r in references], [len(o) for o in outputs])
    return scores.metrics, conventions, columns


def _versions(*packages: str) -> dict[str, str]:
    return {f"{package}_version": version(package) for package in packages}
