"""Cross-NLI of a run's systems, from predictions to tables: what notebook 07 shows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.crossnli import COLUMNS, QUANTITIES, cross_nli
from lmolt_utils.divergence import by_length
from lmolt_utils.files import read_json, read_rows, write_json, write_rows
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.metrics.distributions import word_count
from lmolt_utils.models import fingerprintable
from lmolt_utils.nli import Classifier
from lmolt_utils.nli_cache import PairScorer
from lmolt_utils.nli_truth import TRUTH_OF, correlations, truth
from lmolt_utils.postprocess import postprocess
from lmolt_utils.predictions import PREDICTION_COLUMNS, prediction_path
from lmolt_utils.rivals import methods_for
from lmolt_utils.systems import System


def decomposer(run: Any) -> Decomposer:
    """Reads captions with L+M-24's property tree where the run has one, else with the shipped names and others."""
    if run.property_tree is not None:
        return Decomposer(Vocabulary.read(Path(run.property_tree)))
    return Decomposer(Vocabulary.embedded(), open_vocabulary=True)


def _captions(run: Any, system: System) -> pd.DataFrame:
    frame = read_rows(prediction_path(run, system.name, "mol2cap"), PREDICTION_COLUMNS)
    outputs, _ = postprocess(list(frame["raw"]), run.postprocess)
    return frame[["id", "reference"]].assign(prediction=outputs)


def rows_path(run: Any, system: System) -> Path:
    """Where a system's rows are: one line per NLI method and caption."""
    return Path(run.path("scores", f"{system.name}.crossnli.jsonl"))


def cross_nli_systems(run: Any, systems: Sequence[System]) -> None:
    """All NLI methods on all systems in one step, so that equal pairs are asked once over all of them.

    Writes ``scores/crossnli.json`` (pair counts, correlations with the property sets) and
    ``scores/<system>.crossnli.jsonl`` (the rows, with property recall and hallucinated-property rate). The model's
    answers are kept in ``cache/nli.sqlite``: a system added later costs its new pairs only.
    """
    whole = run.path("scores", "crossnli.json")

    def make() -> None:
        reader = decomposer(run)
        classifier = Classifier(run.nli_model, device=run.device, dtype=run.dtype, batch_tokens=run.nli_batch_tokens)
        scorer = PairScorer(classifier, run.path("cache", "nli.sqlite"))
        frames = {system.name: _captions(run, system) for system in systems}
        references = sorted({text for frame in frames.values() for text in frame["reference"]})
        methods, left_out = methods_for(references, reader, scorer, run.seed)
        rows, pairs = cross_nli(frames, methods, scorer)
        for system in systems:
            frame = frames[system.name]
            known = truth(list(frame["reference"]), list(frame["prediction"]), reader)
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
        table = correlations(everything, first, seed=run.seed)
        write_json(
            whole,
            {
                "systems": list(rows),
                "model": classifier.identity,
                "pairs": asdict(pairs),
                "truncated_pairs": classifier.truncated,
                "not_run": {"SummaC-Conv": left_out} if left_out else {},
                "correlations": table.astype(object).where(table.notna(), None).to_dict("records"),
            },
        )

    run.step(
        "cross-NLI",
        make,
        outputs=[whole, *(rows_path(run, system) for system in systems)],
        params={
            "batch_tokens": run.nli_batch_tokens,
            "dtype": run.dtype,
            "device": run.device,
            "postprocess": run.postprocess,
            "property_tree": run.property_tree,
            "seed": run.seed,
        },
        inputs={
            **{system.name: prediction_path(run, system.name, "mol2cap") for system in systems},
            "model": fingerprintable(run.nli_model),
        },
        modules=["lmolt_utils.nli_evaluation"],
    )


def cross_nli_rows(run: Any, systems: Sequence[System]) -> pd.DataFrame:
    """The rows of all systems that have them: system, :data:`~lmolt_utils.crossnli.COLUMNS`, truth and words."""
    frames = [
        read_rows(rows_path(run, system), COLUMNS).assign(system=system.name)
        for system in systems
        if rows_path(run, system).exists()
    ]
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["system", *COLUMNS])
    numbers = [name for name in (*QUANTITIES, "recall", "hallucinated") if name in table]
    return table.astype(dict.fromkeys(numbers, float))


def cross_nli_report(run: Any) -> dict[str, Any]:
    """``scores/crossnli.json``: pair counts and correlations."""
    return dict(read_json(run.path("scores", "crossnli.json")))


def correlation_table(run: Any) -> pd.DataFrame:
    """Correlation of each method's scores with what is known from the property sets, over all systems' captions."""
    return pd.DataFrame(cross_nli_report(run)["correlations"])


def mean_table(rows: pd.DataFrame, method: str = "atomic") -> pd.DataFrame:
    """Mean scores of each system by one method beside the truth they ought to follow; empty outputs counted."""
    chosen = rows[rows["method"] == method]
    names = list(dict.fromkeys(["coverage", "recall", "hallucination", "unsupported", "hallucinated"]))
    table = chosen.groupby("system", sort=False)[names].mean()
    empty = chosen["rule"].eq("empty output").groupby(chosen["system"], sort=False).sum()
    return table.assign(empty_outputs=empty)


def divergences(rows: pd.DataFrame, preferred: str, dispreferred: str, seed: int = 0) -> pd.DataFrame:
    """Relative entropy in coverage between two systems for each method and cut (Figs. 6, 7 and 10).

    Columns: method and those of :func:`~lmolt_utils.divergence.by_length`. Raises ``ValueError`` naming a system
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
        found = by_length(
            better["coverage"].to_numpy(), worse["coverage"].to_numpy(), better["words"].to_numpy(), seed=seed
        )
        tables.append(found.assign(method=method))
    table = pd.concat(tables, ignore_index=True)
    return table[["method", *(name for name in table.columns if name != "method")]]


def headline(table: pd.DataFrame) -> str:
    """Which method follows the truth best, by rank correlation, for coverage and hallucination."""
    told = []
    for quantity, wanted in TRUTH_OF.items():
        part = table[table["quantity"] == quantity].dropna(subset=["spearman"])
        if part.empty:
            told.append(f"{quantity}: undefined")
            continue
        best = part.iloc[int(part["spearman"].astype(float).to_numpy().argmax())]
        told.append(f"{quantity} follows {wanted} best by {best['method']} ({best['spearman']:.2f})")
    return "; ".join(told)
