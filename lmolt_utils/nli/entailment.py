"""Whether the reference entails each caption: one question per row."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.config.systems import System
from lmolt_utils.files import write_rows
from lmolt_utils.models.loading import model_identity
from lmolt_utils.models.predictions import prediction_path, rule_of, scored_answers
from lmolt_utils.nli.answers import Answer, PairScorer, answer_file
from lmolt_utils.nli.classifier import LABELS, Classifier, Pair
from lmolt_utils.nli.cross_nli import EMPTY_REFERENCE, rules_of, texts_of
from lmolt_utils.run.notebook import Run

_UNDEFINED: Answer = (math.nan,) * 3
_NEUTRAL: Answer = (0.0, 0.0, 1.0)  # contradiction, entailment, neutral


def entail_systems(run: Run, systems: Sequence[System]) -> None:
    """Probability that the reference entails the caption, per row: ``scores/<system>.nli.jsonl``.

    By the rules of :mod:`~lmolt_utils.nli.cross_nli`: the model is not asked about an output that is empty or no
    caption, its entailment is 0 (neutral 1); with an empty reference all three are undefined. ``rule`` says so. The
    model is loaded only if a system needs it, once for all of them, and asked about equal pairs once; its answers are
    kept for cross-NLI, whose full-text method asks about the same pairs.
    """
    loaded: list[PairScorer] = []

    def ask(pairs: list[Pair]) -> Mapping[Pair, Answer]:
        if not loaded:
            model = Classifier(
                run.params.nli_model,
                device=run.params.device,
                dtype=run.params.dtype,
                batch_tokens=run.params.nli_batch_tokens,
            )
            loaded.append(PairScorer(model, answer_file(run)))
        return loaded[0](pairs)

    for system in systems:
        predictions = prediction_path(run, system.name, "mol2cap")
        output = run.path("scores", f"{system.name}.nli.jsonl")

        def make(_: Path, system: System = system, output: Any = output) -> None:
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
                "batch_tokens": run.params.nli_batch_tokens,
                "dtype": run.params.dtype,
                "device": run.params.device,
                "postprocess": rule_of(run, system),
            },
            inputs={"predictions": predictions, "model": model_identity(run.params.nli_model)},
            say=_only_news,
        )


def _only_news(line: str) -> None:
    if not line.endswith("up to date"):
        print(line)
