"""Atomic cross-NLI, each distinct pair asked once, against a naive batched loop with the same model on real captions.

    python -m benchmarks.nli REFERENCES OUTPUTS --vocabulary nested_props.json [--model MODEL] [--rows 3000]

The files are captions of the same molecules, one per line (L+M-24's submissions): the first stands for the references.
The naive loop asks every pair of atomic facts of every row in both directions in the order they come, in batches of
128, and nothing is shared. It runs on evenly spaced rows (``--naive-rows``), so times are per pair of the naive loop.
Both ways include decomposing and pooling; loading the model is left out of both. Scores must agree to 1e-5, or the
benchmark fails.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.timing import compare, show
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.metrics.prediction_files import read_predictions
from lmolt_utils.nli.classifier import Classifier, PairScorer
from lmolt_utils.nli.cross_nli import QUANTITIES, Method, canonical_atoms, cross_nli, pooled

BATCH = 128
TOLERANCE = 1e-5
Pair = tuple[str, str]


def decomposed(frame: pd.DataFrame, vocabulary: Vocabulary) -> list[tuple[list[str], list[str]]]:
    """The atomic facts of each row's reference and output."""
    facts = canonical_atoms(Decomposer(vocabulary))
    return [(facts(one), facts(other)) for one, other in zip(frame["reference"], frame["prediction"], strict=True)]


def count(frame: pd.DataFrame, vocabulary: Vocabulary) -> int:
    """How many pairs the naive loop asks."""
    return sum(2 * len(wanted) * len(said) for wanted, said in decomposed(frame, vocabulary))


def naive(frame: pd.DataFrame, vocabulary: Vocabulary, classifier: Classifier) -> np.ndarray:
    """:data:`QUANTITIES` of each row, shape (n, 3)."""
    sides = decomposed(frame, vocabulary)
    pairs: list[Pair] = []
    for wanted, said in sides:
        pairs += [(premise, hypothesis) for hypothesis in said for premise in wanted]
        pairs += [(premise, hypothesis) for hypothesis in wanted for premise in said]
    blocks = [classifier.forward(pairs[start : start + BATCH]) for start in range(0, len(pairs), BATCH)]
    answers, place, scores = np.concatenate(blocks), 0, []
    for wanted, said in sides:
        size = len(wanted) * len(said)
        forward, backward = answers[place : place + size], answers[place + size : place + 2 * size]
        place += 2 * size
        shapes = (len(said), len(wanted), 3), (len(wanted), len(said), 3)
        scores.append(pooled(forward.reshape(shapes[0]), backward.reshape(shapes[1])) if size else (np.nan,) * 3)
    return np.array(scores)


def main() -> None:
    """Print counts, times and their ratio; raises ``SystemExit`` where the two ways disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs=2, type=Path, help="references and outputs")
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--model", default="embedded:nli")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--naive-rows", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    references, outputs = (read_predictions(file, reference=file)["prediction"] for file in given.files)
    frame = pd.DataFrame({"id": range(len(references)), "reference": references, "prediction": outputs})
    frame = frame.iloc[np.linspace(0, len(frame) - 1, given.rows).astype(int)].reset_index(drop=True)
    some = np.linspace(0, given.rows - 1, given.naive_rows).astype(int)
    part = frame.iloc[some]
    vocabulary = Vocabulary.read(given.vocabulary)
    classifier = Classifier(given.model, batch_tokens=8192)

    def each_pair_once() -> Any:
        facts = canonical_atoms(Decomposer(vocabulary))
        return cross_nli({"system": frame}, [Method("atomic", facts)], PairScorer(classifier))

    row, found = compare(
        {
            "naive loop": (count(part, vocabulary), lambda: naive(part, vocabulary, classifier)),
            "each pair once": (count(frame, vocabulary), each_pair_once),
        },
        given.repeats,
        each="pair",
    )
    scores, counts = found["each pair once"]
    told, expected = scores["system"][list(QUANTITIES)].to_numpy()[some], found["naive loop"]
    worst = float(np.nanmax(np.where(np.isnan(expected), np.nan, np.abs(expected - told))))
    show(
        [
            {
                "rows": given.rows,
                "pairs": counts["naive"],
                "distinct": counts["distinct"],
                **row,
                "scores differ by": worst,
            }
        ]
    )
    if worst > TOLERANCE:
        raise SystemExit(f"scores differ by {worst}, more than {TOLERANCE}")


if __name__ == "__main__":
    main()
