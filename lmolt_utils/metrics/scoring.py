"""One scorer for every system and both tasks: predictions in, every metric and row value out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.systems import System
from lmolt_utils.files import fingerprint, read_rows, write_json, write_rows
from lmolt_utils.metrics.captions import (
    CaptionTokenizer,
    MeteorMatcher,
    caption_scores,
    caption_tokenizer,
    meteor_matcher,
    strip_cls,
)
from lmolt_utils.metrics.distributions import character_ter, wrong_modality_rate
from lmolt_utils.metrics.intervals import Scored, intervals, strict_json, write_statistics
from lmolt_utils.metrics.molecules import InvalidConvention, molecule_scores
from lmolt_utils.metrics.ngrams import chr_f
from lmolt_utils.models.postprocess import Rule, postprocess, postprocess_references
from lmolt_utils.models.predictions import PREDICTION_COLUMNS, prediction_path, rule_of
from lmolt_utils.paths import from_root
from lmolt_utils.run.notebook import Run

#: Further metrics that are a mean over rows: their tasks, and the value of each row from references and outputs.
ROW_METRICS: dict[str, tuple[tuple[Task, ...], Callable[[Sequence[str], Sequence[str]], np.ndarray]]] = {
    "Chr-F": (TASKS, chr_f),
    "CharacTER": (("cap2mol",), character_ter),
}


@dataclass
class Scorer:
    """tokenizer, meteor: see `caption_tokenizer` and `meteor_matcher`. invalid: see `molecule_scores`."""

    tokenizer: str = "auto"
    invalid: InvalidConvention = "lpm24"
    meteor: str = "auto"

    def score(self, frame: pd.DataFrame, task: str | None = None, *, rule: Rule | None = None) -> Scored:
        """Score the predictions of one system on one task; its samples are in the order of the rows.

        frame: one row per pair with reference, prediction and, if there is one, id (else rows are numbered from 0). A
        missing prediction (None, NaN) is scored as an empty one. task: None where the column `task` says it.
        rule: None scores `prediction` as it stands; a rule of `postprocess` is applied to the column `raw`
        (`prediction` where there is none), `clean` to the references too.

        Raises ValueError for a table that cannot be scored or an unknown setting.
        """
        known = _task(frame, task)
        ids = _ids(frame)
        references, mended = postprocess_references(_texts(frame, "reference"), rule or "none")
        column = "raw" if rule is not None and "raw" in frame.columns else "prediction"
        outputs, changes = postprocess(_texts(frame, column), rule or "none")
        if known == "mol2cap":
            scored = caption_scores(references, outputs, *self._words)
            conventions = {**self.caption_conventions(), **_versions("nltk", "rouge_score", "tokenizers")}
            outputs = [strip_cls(text) for text in outputs]  # as caption_scores does
        else:
            scored = molecule_scores(references, outputs, self.invalid)
            conventions = {"invalid": self.invalid, **_versions("rdkit", "fcd_torch", "rapidfuzz")}
        conventions |= scored.conventions | {
            "missing_predictions": int(frame[column].isna().sum()),
            "empty_predictions": sum(not text.strip() for text in outputs),
            "wrong_modality_rate": wrong_modality_rate(outputs, known),
            "postprocess": rule or "as given",
        }
        if rule not in (None, "none"):
            conventions |= {f"postprocess: {name}": count for name, count in changes.items()}
            conventions["postprocess: references changed"] = mended
        doubled = sum(_backslashes(r) * _backslashes(o) < 0 for r, o in zip(references, outputs, strict=True))
        if doubled:
            conventions["doubled_backslashes_on_one_side"] = doubled  # as edits; the rule `clean` makes them single
        rows = {name: of(references, outputs) for name, (tasks, of) in ROW_METRICS.items() if known in tasks}
        metrics = scored.metrics | {name: float(np.mean(values)) for name, values in rows.items()}
        samples = pd.DataFrame({"id": ids, **scored.samples, **rows})
        return replace(scored, metrics=metrics, samples=samples, conventions=conventions, task=known)

    def caption_conventions(self) -> dict[str, Any]:
        """Which tokenizer and METEOR matcher "auto" means here: scores of other ones are other numbers."""
        tokenizer, matcher = self._words
        return {"tokenizer": tokenizer.name, "meteor_matcher": matcher.name}

    @cached_property
    def _words(self) -> tuple[CaptionTokenizer, MeteorMatcher]:
        return caption_tokenizer(self.tokenizer), meteor_matcher(self.meteor)


def _task(frame: pd.DataFrame, task: str | None) -> Task:
    """The task of a frame; raises ValueError for whatever keeps it from being scored."""
    if absent := [column for column in ("reference", "prediction") if column not in frame.columns]:
        there = ", ".join(map(str, frame.columns))
        raise ValueError(f"predictions lack the column(s) {', '.join(absent)}; they have {there}")
    if frame.empty:
        raise ValueError("there is nothing to score: the table has no rows")
    told = sorted({str(name) for name in frame["task"]}) if "task" in frame.columns else []
    if task is None and len(told) != 1:
        raise ValueError("the predictions do not say which task they are of: --task mol2cap or --task cap2mol")
    name = task or told[0]
    if others := [other for other in told if other != name]:
        raise ValueError(f"asked to score {name}, but the predictions hold rows of {others}")
    for known in TASKS:
        if name == known:
            return known
    raise ValueError(f"unknown task {name!r}: give 'mol2cap' or 'cap2mol'")


def _ids(frame: pd.DataFrame) -> np.ndarray:
    ids = frame["id"] if "id" in frame.columns else pd.Series(range(len(frame)), index=frame.index)
    twice = ids.duplicated()
    if twice.any():
        place = int(np.flatnonzero(twice)[0])
        raise ValueError(f"id {ids.iloc[place]!r} comes twice, the second time in row {place + 1}")
    no_reference = frame["reference"].isna()
    if no_reference.any():
        raise ValueError(f"{no_reference.sum()} rows have no reference, the first is id {ids[no_reference].iloc[0]!r}")
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


# ---- the systems of a run ----


def predicted(run: Run, systems: Sequence[System]) -> list[System]:
    """The systems whose predictions for both tasks are there."""
    return [s for s in systems if all(prediction_path(run, s.name, task).exists() for task in TASKS)]


def score_systems(run: Run, systems: Sequence[System]) -> None:
    """All metrics of all systems on both tasks."""
    scorer = Scorer(from_root(run.params.caption_tokenizer), run.params.invalid)
    for system in systems:
        for task in TASKS:
            score_system(run, system, task, scorer)


def score_path(run: Run, name: str, task: Task, kind: str) -> Path:
    """Where one of three files of a system's scores lies: ``json``, ``samples.jsonl`` or ``statistics.npz``."""
    return run.path("scores", f"{name}.{task}.{kind}")


def score_system(run: Run, system: System, task: Task, scorer: Scorer) -> None:
    """All metrics of one system on one task: the three files of :func:`score_path`.

    What "auto" means is part of the step's key: when SciBERT or WordNet appears, scores are made again.
    """
    predictions = prediction_path(run, system.name, task)
    kinds = "json", "samples.jsonl", "statistics.npz"
    whole, rows, statistics = (score_path(run, system.name, task, kind) for kind in kinds)

    def make(_: Path) -> None:
        frame = read_rows(predictions, PREDICTION_COLUMNS)
        result = scorer.score(frame, task, rule=rule_of(run, system))
        found = {name: strict_json(interval._asdict()) for name, interval in intervals(result).items()}
        made_from = {"system": system.name, "predictions": fingerprint(predictions)}
        write_json(whole, {**made_from, **result.to_dict(), "intervals": found})
        write_rows(rows, result.samples)
        write_statistics(statistics, result)

    settings = scorer.caption_conventions() if task == "mol2cap" else {"invalid": run.params.invalid}
    run.step(
        f"score {system.name} {task}",
        make,
        outputs=[whole, rows, statistics],
        params={**settings, "postprocess": rule_of(run, system)},
        inputs={"predictions": predictions},
        say=only_news,
    )


def only_news(line: str) -> None:
    """Print what a step says, unless it is that nothing was to be done."""
    if not line.endswith("up to date"):
        print(line)
