"""Score every system that has predictions: metrics, per-row values, entailment."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lmolt_utils.crossnli import EMPTY_REFERENCE, rules_of, texts_of
from lmolt_utils.featurise import Featuriser
from lmolt_utils.files import fingerprint, read_rows, write_json, write_rows
from lmolt_utils.intervals import intervals, write_statistics
from lmolt_utils.models import fingerprintable
from lmolt_utils.nli import LABELS, Classifier, Pair
from lmolt_utils.nli_cache import Answer, PairScorer, answer_file
from lmolt_utils.paths import from_root
from lmolt_utils.predictions import PREDICTION_COLUMNS, prediction_path, rule_of, scored_answers
from lmolt_utils.prompts import TASKS, Task
from lmolt_utils.scoring import Scorer
from lmolt_utils.systems import System

_UNDEFINED: Answer = (math.nan,) * 3
_NEUTRAL: Answer = (0.0, 0.0, 1.0)  # contradiction, entailment, neutral


def predicted(run: Any, systems: Sequence[System]) -> list[System]:
    """The systems whose predictions for both tasks are there."""
    return [s for s in systems if all(prediction_path(run, s.name, task).exists() for task in TASKS)]


def scorer(run: Any) -> Scorer:
    """A scorer with the run's settings; one for all systems parses and featurises each molecule once."""
    return Scorer(from_root(run.caption_tokenizer), run.invalid, featuriser=Featuriser())


def score_systems(run: Any, systems: Sequence[System]) -> None:
    """All metrics of all systems on both tasks, each step skipped where it is up to date."""
    shared = scorer(run)
    for system in systems:
        for task in TASKS:
            score_system(run, system, task, shared)


def score_system(run: Any, system: System, task: Task, shared: Scorer | None = None) -> None:
    """All metrics of one system on one task: ``scores/<system>.<task>.json``, its rows and per-row statistics
    beside it.

    Scored are the raw outputs after the system's rule for post-processing. ``shared``: the scorer of the systems
    before. What "auto" means for tokenizer and METEOR is part of what the scores are known by: when SciBERT or WordNet
    appears, they are made again.
    """
    used = shared or scorer(run)
    predictions = prediction_path(run, system.name, task)
    whole = run.path("scores", f"{system.name}.{task}.json")
    rows = run.path("scores", f"{system.name}.{task}.samples.jsonl")
    statistics = run.path("scores", f"{system.name}.{task}.statistics.npz")

    def make() -> None:
        frame = read_rows(predictions, PREDICTION_COLUMNS)
        result = used.score(frame, task, rule=rule_of(run, system))
        found = {name: interval.to_dict() for name, interval in intervals(result).items()}
        made_from = {"system": system.name, "predictions": fingerprint(predictions)}
        write_json(whole, {**made_from, **result.to_dict(), "intervals": found})
        write_rows(rows, result.samples)
        write_statistics(statistics, result.statistics)

    settings = used.caption_conventions() if task == "mol2cap" else {"invalid": run.invalid}
    run.step(
        f"score {system.name} {task}",
        make,
        outputs=[whole, rows, statistics],
        params={**settings, "postprocess": rule_of(run, system)},
        inputs={"predictions": predictions},
        modules=["lmolt_utils.scoring", "lmolt_utils.intervals"],
        say=_only_news,
    )


def entail_systems(run: Any, systems: Sequence[System]) -> None:
    """Probability that the reference entails the caption, per row: ``scores/<system>.nli.jsonl``.

    By the rules of :mod:`~lmolt_utils.crossnli`: the model is not asked about an output that is empty or no caption,
    its entailment is 0 (neutral 1); with an empty reference all three are undefined. ``rule`` says so. The model is
    loaded only if a system needs it, once for all of them, and asked about equal pairs once; its answers are kept for
    cross-NLI, whose full-text method asks about the same pairs.
    """
    loaded: list[PairScorer] = []

    def ask(pairs: list[Pair]) -> Mapping[Pair, Answer]:
        if not loaded:
            model = Classifier(run.nli_model, device=run.device, dtype=run.dtype, batch_tokens=run.nli_batch_tokens)
            loaded.append(PairScorer(model, answer_file(run)))
        return loaded[0](pairs)

    for system in systems:
        predictions = prediction_path(run, system.name, "mol2cap")
        output = run.path("scores", f"{system.name}.nli.jsonl")

        def make(system: System = system, output: Any = output) -> None:
            frame = scored_answers(run, system, "mol2cap")
            pairs, rules = texts_of(frame), rules_of(frame)
            answers = ask([pair for pair, rule in zip(pairs, rules, strict=True) if not rule])
            rows = [
                answers[pair] if not rule else _UNDEFINED if rule == EMPTY_REFERENCE else _NEUTRAL
                for pair, rule in zip(pairs, rules, strict=True)
            ]
            result = pd.DataFrame(rows, columns=list(LABELS), dtype=float)
            write_rows(output, result.assign(id=frame["id"], rule=rules)[["id", *LABELS, "rule"]])

        run.step(
            f"entailment {system.name}",
            make,
            outputs=[output],
            params={
                "batch_tokens": run.nli_batch_tokens,
                "dtype": run.dtype,
                "device": run.device,
                "postprocess": rule_of(run, system),
            },
            inputs={"predictions": predictions, "model": fingerprintable(run.nli_model)},
            modules=["lmolt_utils.crossnli", "lmolt_utils.nli_cache"],
            say=_only_news,
        )


def _only_news(line: str) -> None:
    if not line.endswith("up to date"):
        print(line)
