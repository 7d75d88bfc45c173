"""Cross-NLI of a run's systems, from predictions to the files that notebook 07 shows and 08 draws."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.config.systems import System
from lmolt_utils.files import write_json, write_rows
from lmolt_utils.metrics.distributions import word_count
from lmolt_utils.models.loading import model_identity
from lmolt_utils.models.predictions import prediction_path, rule_of, scored_answers
from lmolt_utils.nli.answers import PairScorer, answer_file
from lmolt_utils.nli.baselines import methods_for
from lmolt_utils.nli.classifier import Classifier
from lmolt_utils.nli.cross_nli import QUANTITIES, cross_nli, rules_of, texts_of
from lmolt_utils.nli.decomposition import answers_path, decomposer, language_model
from lmolt_utils.nli.divergence import CUTS, by_length, sensitivity
from lmolt_utils.nli.results import (
    DISPREFERRED,
    PREFERRED,
    cross_nli_rows,
    divergence_path,
    report_path,
    rows_path,
)
from lmolt_utils.nli.truth import correlations, truth
from lmolt_utils.run.notebook import Run


def cross_nli_systems(run: Run, systems: Sequence[System]) -> None:
    """All NLI methods on all systems in one step, so that equal pairs are asked once over all of them.

    Writes ``scores/crossnli.json`` (pair counts, correlations with the property sets) and
    ``scores/<system>.crossnli.jsonl`` (the rows, with property recall and hallucinated-property rate). The NLI model's
    answers are kept in ``cache/nli.sqlite``: a system added later costs its new pairs only. With ``decomposer: llm``
    the atomic method compares the language model's facts; what is known of the captions still comes from the rules.
    """
    whole = report_path(run)
    by_model = run.params.decomposer == "llm"
    tree = run.path("data", "property_tree.json")

    def make(_: Path) -> None:
        reader = decomposer(run)
        model = language_model(run, reader) if by_model else None
        classifier = Classifier(
            run.params.nli_model,
            device=run.params.device,
            dtype=run.params.dtype,
            batch_tokens=run.params.nli_batch_tokens,
        )
        scorer = PairScorer(classifier, answer_file(run))
        frames = {system.name: scored_answers(run, system, "mol2cap") for system in systems}
        references = sorted({text for frame in frames.values() for text in frame["reference"]})
        methods, left_out = methods_for(
            references, reader, scorer, run.params.seed, atoms=model.units if model else None
        )
        rows, pairs = cross_nli(frames, methods, scorer)
        for system in systems:
            frame = frames[system.name]
            judged = texts_of(frame)
            known = truth([reference for reference, _ in judged], [output for _, output in judged], reader)
            known["words"] = word_count(list(frame["reference"]))
            copies = pd.concat([known] * len(methods), ignore_index=True)
            rows[system.name] = pd.concat([rows[system.name], copies], axis=1)
            write_rows(rows_path(run, system), rows[system.name])
        # A method's rows must be those of the truth, in its order: method by method, the systems one after another.
        everything = pd.concat(
            [rows[system.name][rows[system.name]["method"] == method.name] for method in methods for system in systems],
            ignore_index=True,
        )
        first = everything[everything["method"] == methods[0].name]
        # What a rule decides says nothing of a method: 0 for SMILES on both sides would flatter every one of them.
        decided = [bool(rule) for system in systems for rule in rules_of(frames[system.name])]
        everything.loc[decided * len(methods), list(QUANTITIES)] = math.nan
        table = correlations(everything, first, seed=run.params.seed)
        texts = [text for frame in frames.values() for pair in texts_of(frame) for text in pair]
        write_json(
            whole,
            {
                "systems": list(rows),
                "model": classifier.identity,
                "decomposer": run.params.decomposer,
                "captions_without_facts": len(model.unanswered(texts)) if model else 0,
                "pairs": asdict(pairs),
                "truncated_pairs": classifier.truncated,
                "not_run": {"SummaC-Conv": left_out} if left_out else {},
                "correlations": _records(table),
            },
        )

    run.step(
        "cross-NLI",
        make,
        outputs=[whole, *(rows_path(run, system) for system in systems)],
        params={
            "batch_tokens": run.params.nli_batch_tokens,
            "dtype": run.params.dtype,
            "device": run.params.device,
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
    pair = [system for name in (PREFERRED, DISPREFERRED) for system in systems if system.name == name]
    missing = [name for name in (PREFERRED, DISPREFERRED) if name not in [system.name for system in pair]]
    output = divergence_path(run)

    def make(_: Path) -> None:
        table = moved = pd.DataFrame()
        if not missing:
            rows = cross_nli_rows(run, pair)
            table = divergences(rows, PREFERRED, DISPREFERRED, cuts=run.params.word_cuts, seed=run.params.seed)
            atomic = rows[rows["method"] == "atomic"]
            moved = sensitivity(
                *(atomic.loc[atomic["system"] == name, "coverage"].to_numpy() for name in (PREFERRED, DISPREFERRED))
            )
        write_json(
            output,
            {
                "preferred": PREFERRED,
                "dispreferred": DISPREFERRED,
                "not_run": f"{' and '.join(missing)} not run" if missing else "",
                "table": _records(table),
                "sensitivity": _records(moved),
            },
        )

    run.step(
        "relative entropy",
        make,
        outputs=[output],
        params={"cuts": run.params.word_cuts, "seed": run.params.seed, "missing": missing},
        inputs={} if missing else {system.name: rows_path(run, system) for system in pair},
    )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Lines fit for JSON: NaN as null."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in line.items()} for line in plain.to_dict("records")]


def divergences(
    rows: pd.DataFrame, preferred: str, dispreferred: str, *, cuts: Sequence[int] = CUTS, seed: int = 0
) -> pd.DataFrame:
    """Relative entropy in coverage between two systems for each method and cut (Figs. 6, 7 and 10).

    Columns: method and those of :func:`~lmolt_utils.nli.divergence.by_length`. Raises ``ValueError`` naming a system
    that has no rows.
    """
    frames: dict[str, Mapping[str, pd.DataFrame]] = {}
    for system in (preferred, dispreferred):
        chosen = rows[rows["system"] == system]
        if chosen.empty:
            raise ValueError(f"{system} has no NLI scores: run its notebook first")
        frames[system] = {str(name): group for name, group in chosen.groupby("method", sort=False)}
    tables = []
    for method, better in frames[preferred].items():
        worse = frames[dispreferred][method]
        if list(better["id"]) != list(worse["id"]):
            raise ValueError(f"{preferred} and {dispreferred} were not run on the same rows")
        scores = (better["coverage"].to_numpy(), worse["coverage"].to_numpy())
        tables.append(by_length(*scores, better["words"].to_numpy(), cuts=cuts, seed=seed).assign(method=method))
    table = pd.concat(tables, ignore_index=True)
    return table[["method", *(name for name in table.columns if name != "method")]]
