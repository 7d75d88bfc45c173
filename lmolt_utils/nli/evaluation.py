"""NLI of a run's systems, step by step, from predictions to the files that notebook 07 shows and 08 draws."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.config.systems import System
from lmolt_utils.files import write_json, write_rows
from lmolt_utils.metrics.intervals import strict_json
from lmolt_utils.metrics.scoring import only_news
from lmolt_utils.models.loading import model_identity
from lmolt_utils.models.predictions import prediction_path, rule_of, scored_answers
from lmolt_utils.nli.baselines import methods_for
from lmolt_utils.nli.classifier import LABELS, Classifier, PairScorer
from lmolt_utils.nli.cross_nli import EMPTY_REFERENCE, cross_nli, texts_and_rules
from lmolt_utils.nli.divergence import divergences, sensitivity
from lmolt_utils.nli.llm import LlmAnswerError, answers_path, decomposer, kept_decomposer
from lmolt_utils.nli.results import DISPREFERRED, PREFERRED, cross_nli_rows, divergence_path, report_path, rows_path
from lmolt_utils.nli.truth import correlations, truth
from lmolt_utils.run.notebook import Run

_UNDEFINED = (math.nan,) * 3
_NEUTRAL = (0.0, 0.0, 1.0)  # contradiction, entailment, neutral


def scorer_of(run: Run) -> PairScorer:
    """All that ask the run's model share the answers in ``cache/nli.jsonl``."""
    return PairScorer(Classifier(run.params.nli_model, **nli_settings(run)), run.path("cache", "nli.jsonl"))


def nli_settings(run: Run) -> dict[str, Any]:
    loading = {"batch_tokens": run.params.nli_batch_tokens, "dtype": run.params.dtype, "device": run.params.device}
    return loading | ({"as_released": True} if run.params.nli_code == "as_released" else {})


def entail_systems(run: Run, systems: Sequence[System]) -> None:
    """Probability that the reference entails the caption, per row: ``scores/<system>.nli.jsonl``.

    By the rules of cross-NLI the model is not asked about an output that is empty or no caption (neutral 1); with an
    empty reference all three are undefined. ``rule`` says so.
    """
    scorer = cache(lambda: scorer_of(run))  # only if a system needs it
    for system in systems:
        output = run.path("scores", f"{system.name}.nli.jsonl")

        def make(_: Path, system: System = system, output: Path = output) -> None:
            frame = scored_answers(run, system, "mol2cap")
            judged = list(zip(*texts_and_rules(frame), strict=True))
            answers = scorer()(pair for pair, rule in judged if not rule)
            rows = [
                answers[pair] if not rule else _UNDEFINED if rule == EMPTY_REFERENCE else _NEUTRAL
                for pair, rule in judged
            ]
            result = pd.DataFrame(rows, columns=list(LABELS), dtype=float)
            result = result.assign(id=frame["id"], rule=[rule for _, rule in judged])
            write_rows(output, result[["id", *LABELS, "rule"]])

        run.step(
            f"entailment {system.name}",
            make,
            outputs=[output],
            params={**nli_settings(run), "postprocess": rule_of(run, system)},
            inputs={
                "predictions": prediction_path(run, system.name, "mol2cap"),
                "model": model_identity(run.params.nli_model),
            },
            say=only_news,
        )


def cross_nli_systems(run: Run, systems: Sequence[System]) -> None:
    """All NLI methods on all systems in one step, so that equal pairs are asked once.

    Writes ``scores/crossnli.json`` (pair counts, correlations with the property sets) and
    ``scores/<system>.crossnli.jsonl`` (the rows, with the truth). With ``decomposer: llm`` the atomic method compares
    the language model's facts; the truth still comes from the rules.
    """
    by_model = run.params.decomposer == "llm"
    tree = run.path("data", "property_tree.json")

    def make(_: Path) -> None:
        rules = decomposer(run)
        model = kept_decomposer(run) if by_model else None
        if model and len(model.unanswered(model.answers)) == len(model.answers):
            raise LlmAnswerError(
                f"{run.params.decomposer_model} named no fact of any of {len(model.answers)} captions: choose an "
                "instruction-tuned model, or decomposer: rules"
            )
        scorer = scorer_of(run)
        frames = {system.name: scored_answers(run, system, "mol2cap") for system in systems}
        references = sorted({text for frame in frames.values() for text in frame["reference"]})
        atoms = model.units if model else None
        methods, left_out = methods_for(references, rules, scorer, run.params.seed, atoms=atoms)
        rows, pairs = cross_nli(frames, methods, scorer)
        captions = {name: texts_and_rules(frame)[0] for name, frame in frames.items()}
        for system in systems:
            words = [len(text.split()) for text in frames[system.name]["reference"]]
            known = truth(captions[system.name], rules).assign(words=words)
            rows[system.name] = rows[system.name].join(pd.concat([known] * len(methods), ignore_index=True))
            write_rows(rows_path(run, system), rows[system.name])
        every = (text for pairs_of in captions.values() for pair in pairs_of for text in pair)
        write_json(
            report_path(run),
            {
                "decomposer": run.params.decomposer,
                "nli_code": run.params.nli_code,
                "captions_without_facts": len(model.unanswered(every)) if model else 0,
                "pairs": pairs,
                "truncated_pairs": scorer.model.truncated,
                "not_run": {"SummaC-Conv": left_out} if left_out else {},
                "correlations": strict_json(correlations(pd.concat(rows.values()), seed=run.params.seed)),
            },
        )

    run.step(
        "cross-NLI",
        make,
        outputs=[report_path(run), *(rows_path(run, system) for system in systems)],
        params={
            **nli_settings(run),
            "decomposer": run.params.decomposer,
            "postprocess": {system.name: rule_of(run, system) for system in systems},
            "seed": run.params.seed,
        },
        inputs={
            **{system.name: prediction_path(run, system.name, "mol2cap") for system in systems},
            **({"answers": answers_path(run)} if by_model else {}),
            **({"property tree": tree} if tree.exists() else {}),
            "model": model_identity(run.params.nli_model),
        },
    )


def divergence_systems(run: Run, systems: Sequence[System]) -> None:
    """Relative entropy between SLERP+CPO's scores and Meditron's: ``scores/divergence.json``.

    Without both systems the file says which one is missing; another pair would not be the paper's comparison.
    """
    names = (PREFERRED, DISPREFERRED)
    pair = [system for system in systems if system.name in names]
    missing = [name for name in names if name not in [system.name for system in pair]]

    def make(_: Path) -> None:
        table = moved = pd.DataFrame()
        if not missing:
            rows = cross_nli_rows(run, pair)
            table = divergences(rows, *names, cuts=run.params.word_cuts, seed=run.params.seed)
            atomic = rows[rows["method"] == "atomic"]
            moved = sensitivity(*(atomic.loc[atomic["system"] == name, "coverage"].to_numpy() for name in names))
        write_json(
            divergence_path(run),
            {
                "not_run": f"{' and '.join(missing)} not run" if missing else "",
                "table": strict_json(table),
                "sensitivity": strict_json(moved),
            },
        )

    run.step(
        "relative entropy",
        make,
        outputs=[divergence_path(run)],
        params={"cuts": run.params.word_cuts, "seed": run.params.seed, "missing": missing},
        inputs={} if missing else {system.name: rows_path(run, system) for system in pair},
    )
