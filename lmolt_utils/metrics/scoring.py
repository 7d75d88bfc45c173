"""One scorer for every system and both tasks: predictions in, every metric and row value out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmolt_utils.metrics.bleu import BleuStatistics
from lmolt_utils.metrics.captions import (
    CAPTION_METRICS,
    CaptionTokenizer,
    MeteorMatcher,
    caption_scores,
    caption_tokenizer,
    meteor_matcher,
    strip_cls,
)
from lmolt_utils.metrics.distributions import (
    character_edits,
    character_ter,
    chr_f,
    length_deviation,
    word_count,
    wrong_modality_rate,
)
from lmolt_utils.metrics.featurise import Featuriser
from lmolt_utils.metrics.molecules import ChemNet, FCDStatistics, InvalidConvention, molecule_scores
from lmolt_utils.metrics.prediction_files import read_predictions
from lmolt_utils.models.postprocess import Rule, postprocess, postprocess_references

TASKS = ("mol2cap", "cap2mol")
COLUMNS = ("reference", "prediction")


@dataclass(frozen=True, eq=False)
class Statistics:
    """Per row, and without the texts: what BLEU and FCD need of it.

    bleu: n-gram counts, of word pieces (captions) or characters (molecules). fcd: ChemNet's activations; None
    for captions, and where FCD is not defined.
    """

    bleu: BleuStatistics
    fcd: FCDStatistics | None


@dataclass(frozen=True, eq=False)
class Scores:
    """What one system got on one task.

    metrics: corpus values by name, NaN where undefined (`conventions` says why).
    conventions: everything a value depends on besides the data: tokenizer, METEOR matcher, convention for
    invalid molecules, post-processing, what went into FCD, library versions; and counts of what was odd.
    samples: one row per prediction, in the order given: id, the per-row metrics, length_deviation (pieces for
    captions, characters for molecules) and length_deviation_characters, chr_f, word_count, and the edits and
    reference_characters whose sums give CER. NaN marks a row that a metric leaves out.
    statistics: what the metrics that are no mean of rows need to be computed again for a resample of them.
    """

    task: str
    n: int
    metrics: dict[str, float]
    conventions: dict[str, str | int | float]
    samples: pd.DataFrame
    statistics: Statistics

    def to_dict(self) -> dict[str, Any]:
        """Metrics and conventions, fit for strict JSON: an undefined value is null."""
        metrics = {name: None if math.isnan(value) else value for name, value in self.metrics.items()}
        return {"task": self.task, "n": self.n, "metrics": metrics, "conventions": dict(self.conventions)}


@dataclass
class Scorer:
    """Settings, and what can be kept from one system to the next: models, molecules, words.

    With one scorer for the systems of one test set, its references and every distinct output are parsed and
    featurised once. tokenizer, meteor: for captions, see `caption_tokenizer` and `meteor_matcher`. invalid: for
    molecules, see `molecule_scores`. featuriser: how many processes, and how long one molecule may take.
    """

    tokenizer: str | CaptionTokenizer = "auto"
    invalid: InvalidConvention = "lpm24"
    meteor: str | MeteorMatcher = "auto"
    featuriser: Featuriser = field(default_factory=Featuriser)
    chemnet: ChemNet = field(default_factory=ChemNet)

    def score(
        self, predictions: pd.DataFrame | str | Path, task: str | None = None, *, rule: Rule | None = None
    ) -> Scores:
        """Score the predictions of one system on one task.

        predictions: a frame with one row per pair and the columns reference and prediction (and id, if there is
        one; else rows are numbered from 0), or a file that `read_predictions` knows. A missing prediction (None,
        NaN) is scored as an empty one.
        task: "mol2cap" or "cap2mol"; None where the file's header or the column `task` says it.
        rule: None scores `prediction` as it stands; a rule of `postprocess` is applied to the column `raw`
        (`prediction` where there is none), `clean` to the references too; what it changed is counted in the
        conventions.

        Raises ValueError for a missing column, no rows, an id that comes twice, a missing reference, a cell that is
        no text, another task's rows or an unknown setting.
        """
        frame = predictions if isinstance(predictions, pd.DataFrame) else read_predictions(predictions, task=task)
        task = _task(frame, task)
        ids = _ids(frame)
        references, mended = postprocess_references(_texts(frame, "reference"), rule or "none")
        column = "raw" if rule is not None and "raw" in frame.columns else "prediction"
        missing = int(frame[column].isna().sum())
        outputs, changes = postprocess(_texts(frame, column), rule or "none")
        if task == "mol2cap":
            metrics, conventions, columns, statistics = self._captions(references, outputs)
            outputs = [strip_cls(text) for text in outputs]  # as caption_scores does
        else:
            metrics, conventions, columns, statistics = self._molecules(references, outputs)
        conventions |= {
            "missing_predictions": missing,
            "empty_predictions": sum(not text.strip() for text in outputs),
            "wrong_modality_rate": wrong_modality_rate(outputs, task),
            "postprocess": rule or "as given",
        }
        if rule not in (None, "none"):
            conventions |= {f"postprocess: {name}": count for name, count in changes.items()}
            conventions["postprocess: references changed"] = mended
        doubled = sum(_backslashes(r) * _backslashes(o) < 0 for r, o in zip(references, outputs, strict=True))
        if doubled:
            conventions["doubled_backslashes_on_one_side"] = doubled  # as edits; the rule `clean` makes them single
        edits = character_edits(references, outputs)
        columns |= {
            "chr_f": chr_f(references, outputs),
            "word_count": word_count(outputs),
            "length_deviation_characters": length_deviation(edits[:, 1], [len(text) for text in outputs]),
            "edits": edits[:, 0],
            "reference_characters": edits[:, 1],
        }
        # The papers' own, of single predictions: mean Chr-F, character error rate of the corpus, mean CharacTER.
        columns["Chr-F"] = columns["chr_f"]
        metrics["Chr-F"] = float(np.mean(columns["chr_f"]))
        characters = edits[:, 1].sum()
        metrics["CER"] = float(edits[:, 0].sum() / characters) if characters else math.nan
        if task == "cap2mol":  # a caption's word moves would take longer than everything else together
            columns["CharacTER"] = character_ter(references, outputs)
            metrics["CharacTER"] = float(np.mean(columns["CharacTER"]))
        return Scores(task, len(ids), metrics, conventions, pd.DataFrame({"id": ids, **columns}), statistics)

    def caption_conventions(self) -> dict[str, str]:
        """Which tokenizer and METEOR matcher "auto" means here: scores of other ones are other numbers."""
        tokenizer, matcher = self._words()
        return {"tokenizer": tokenizer.name, "meteor_matcher": matcher.name, "wordnet": matcher.version}

    def _words(self) -> tuple[CaptionTokenizer, MeteorMatcher]:
        if isinstance(self.tokenizer, str):
            self.tokenizer = caption_tokenizer(self.tokenizer)
        if isinstance(self.meteor, str):
            self.meteor = meteor_matcher(self.meteor)
        return self.tokenizer, self.meteor

    def _captions(self, references: Sequence[str], outputs: Sequence[str]) -> _Parts:
        tokenizer, matcher = self._words()
        scores = caption_scores(references, outputs, tokenizer, matcher)
        conventions: dict[str, str | int | float] = {
            **self.caption_conventions(),
            **_versions("nltk", "rapidfuzz", "tokenizers"),
        }
        columns: dict[str, Any] = dict(scores.samples)
        columns["length_deviation"] = length_deviation(scores.reference_lengths, scores.prediction_lengths)
        metrics = {name: scores.metrics[name] for name in CAPTION_METRICS}
        return metrics, conventions, columns, Statistics(scores.bleu, None)

    def _molecules(self, references: Sequence[str], outputs: Sequence[str]) -> _Parts:
        scores = molecule_scores(references, outputs, self.invalid, featuriser=self.featuriser, chemnet=self.chemnet)
        fcd = scores.fcd
        conventions: dict[str, str | int | float] = {
            "invalid": self.invalid,
            "invalid_predictions": int((scores.samples["Validity"] == 0).sum()),
            "unparsable_references": scores.unparsable_references,
            "fcd_references": fcd.references,
            "fcd_predictions": fcd.predictions,
            "fcd_dropped_empty": fcd.dropped_empty,
            "fcd_dropped_invalid": fcd.dropped_invalid,
            "fcd_over_349_characters": fcd.over_length,
            "fcd_several_fragments": fcd.fragments,
            "fcd_note": fcd.note,
            "rdkit_gave_up": sum(scores.gave_up.values()),
            "rdkit_gave_up_on": ", ".join(f"{name}: {count}" for name, count in scores.gave_up.items()),
            "rdkit_seconds_per_molecule": self.featuriser.seconds,
            **_versions("rdkit", "fcd_torch", "rapidfuzz"),
        }
        columns: dict[str, Any] = dict(scores.samples)
        columns["length_deviation"] = length_deviation([len(r) for r in references], [len(o) for o in outputs])
        return scores.metrics, conventions, columns, Statistics(scores.bleu, fcd.statistics)


_Parts = tuple[dict[str, float], dict[str, str | int | float], dict[str, Any], Statistics]


def score(
    predictions: pd.DataFrame | str | Path,
    task: str | None = None,
    *,
    tokenizer: str | CaptionTokenizer = "auto",
    invalid: InvalidConvention = "lpm24",
    meteor: str | MeteorMatcher = "auto",
    rule: Rule | None = None,
) -> Scores:
    """Score one system on one task, from a frame or a file; see `Scorer` for the settings and
    `Scorer.score` for the rest.

    >>> score(pd.DataFrame({"reference": ["CCO"], "prediction": ["OCC"]}), task="cap2mol").metrics["Exact"]
    1.0
    """
    return Scorer(tokenizer, invalid, meteor).score(predictions, task, rule=rule)


def _task(frame: pd.DataFrame, task: str | None) -> str:
    """The task of a frame; raises ValueError for whatever keeps it from being scored."""
    if task is not None and task not in TASKS:
        raise ValueError(f"unknown task {task!r}: give 'mol2cap' or 'cap2mol'")
    absent = [column for column in COLUMNS if column not in frame.columns]
    if absent:
        raise ValueError(
            f"predictions lack the column(s) {', '.join(absent)}; needed are {', '.join(COLUMNS)}, "
            f"given are {', '.join(map(str, frame.columns))}"
        )
    if frame.empty:
        raise ValueError("there are no predictions to score: the table has no rows")
    told = sorted({str(name) for name in frame["task"]}) if "task" in frame.columns else []
    if task is None and len(told) != 1:
        raise ValueError(
            f"the predictions do not say which task they are of (column task: {', '.join(told) or 'none'}): "
            "give task='mol2cap' or task='cap2mol'"
        )
    task = task or told[0]
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r} in the column task: it must be 'mol2cap' or 'cap2mol'")
    if set(told) - {task}:
        raise ValueError(f"asked to score {task}, but the predictions hold rows of {sorted(set(told) - {task})}")
    return task


def _ids(frame: pd.DataFrame) -> np.ndarray:
    ids = frame["id"] if "id" in frame.columns else pd.Series(range(len(frame)), index=frame.index)
    twice = ids.duplicated()
    if twice.any():
        place = int(np.flatnonzero(twice)[0])
        raise ValueError(f"id {ids.iloc[place]!r} comes twice, the second time in row {place + 1}: one row per id")
    no_reference = frame["reference"].isna()
    if no_reference.any():
        raise ValueError(
            f"{int(no_reference.sum())} rows have no reference, the first is "
            f"id {ids[no_reference].iloc[0]!r}: without one nothing can be scored"
        )
    return ids.to_numpy()


def _texts(frame: pd.DataFrame, column: str) -> list[str]:
    """The cells of a column, a missing one as an empty text."""
    cells = ["" if gone else cell for cell, gone in zip(frame[column], frame[column].isna(), strict=True)]
    for row, cell in enumerate(cells, start=1):
        if not isinstance(cell, str):
            raise ValueError(f"{column} in row {row} is {type(cell).__name__} ({cell!r:.40}): text is needed")
    return cells


def _backslashes(text: str) -> int:
    """1: doubled ones, -1: single ones only, 0: none."""
    return 1 if "\\\\" in text else -1 if "\\" in text else 0


def _versions(*packages: str) -> dict[str, str]:
    return {f"{package}_version": version(package) for package in packages}
