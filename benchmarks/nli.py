"""Atomic cross-NLI, each distinct pair asked once, against a naive batched loop with the same model on real captions.

    python -m benchmarks.nli REFERENCES OUTPUTS --vocabulary nested_props.json [--model MODEL] [--rows 3000]
        [--released]

The files are captions of the same molecules, one per line (L+M-24's submissions): the first stands for the references.
The naive loop asks every pair of atomic facts of every row in both directions in the order they come, in batches of
128, and nothing is shared. It runs on evenly spaced rows (``--naive-rows``), so times are per pair of the naive loop.
Both ways include decomposing and pooling. Scores must agree to 1e-5, or the benchmark fails. ``--released``: in place
of the naive loop the order of work of the authors' cross-nli 0.1.0, and labels as it reads them (switch ``nli``).
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.timing import show, timed
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.metrics.prediction_files import read_predictions
from lmolt_utils.nli.classifier import Classifier, PairScorer
from lmolt_utils.nli.cross_nli import QUANTITIES, Method, canonical_atoms, cross_nli, pooled

BATCH = 128
TOLERANCE = 1e-5


def naive(frame: pd.DataFrame, facts: Callable[[str], list[str]], classifier: Classifier) -> tuple[np.ndarray, int]:
    """:data:`QUANTITIES` of each row, shape (n, 3), and how many pairs were asked."""
    sides = [(facts(one), facts(other)) for one, other in zip(frame["reference"], frame["prediction"], strict=True)]
    pairs: list[tuple[str, str]] = []
    for wanted, said in sides:
        pairs += [(premise, hypothesis) for hypothesis in said for premise in wanted]
        pairs += [(premise, hypothesis) for hypothesis in wanted for premise in said]
    blocks = [classifier.forward(pairs[start : start + BATCH]) for start in range(0, len(pairs), BATCH)]
    answers, scores = np.concatenate(blocks), []
    for wanted, said in sides:
        forward, backward, answers = np.split(answers, [len(wanted) * len(said), 2 * len(wanted) * len(said)])
        shapes = (len(said), len(wanted), 3), (len(wanted), len(said), 3)
        empty = not wanted or not said
        scores.append((np.nan,) * 3 if empty else pooled(forward.reshape(shapes[0]), backward.reshape(shapes[1])))
    return np.array(scores), len(pairs)


def released(frame: pd.DataFrame, facts: Callable[[str], list[str]], classifier: Classifier) -> tuple[np.ndarray, int]:
    """The same a pair per forward pass, row by row, both directions, gradients on, nothing kept."""
    scores, asked = [], 0
    for reference, prediction in zip(frame["reference"], frame["prediction"], strict=True):
        golden, generated, answers = facts(reference), facts(prediction), []
        for hypotheses, premises in ((generated, golden), (golden, generated)):
            answers.append(np.zeros((len(hypotheses), len(premises), 3)))
            for i, hypothesis in enumerate(hypotheses):
                for j, premise in enumerate(premises):
                    ids = classifier.tokenizer(premise, hypothesis, truncation=True, return_tensors="pt")["input_ids"]
                    answers[-1][i, j] = torch.softmax(classifier.model(ids)["logits"][0], -1).tolist()
        asked += sum(side.shape[0] * side.shape[1] for side in answers)
        scores.append(pooled(*answers) if golden and generated else (np.nan,) * 3)
    return np.array(scores), asked


def main() -> None:
    """Print counts, times and their ratio; raises ``SystemExit`` where the two ways disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs=2, type=Path, help="references and outputs")
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--model", default="embedded:nli")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--naive-rows", type=int, default=60)
    parser.add_argument("--released", action="store_true")
    given = parser.parse_args()
    references, outputs = (read_predictions(file, reference=file)["prediction"] for file in given.files)
    frame = pd.DataFrame({"id": range(len(references)), "reference": references, "prediction": outputs})
    frame = frame.iloc[np.linspace(0, len(frame) - 1, given.rows).astype(int)].reset_index(drop=True)
    some = np.linspace(0, given.rows - 1, given.naive_rows).astype(int)
    facts = canonical_atoms(Decomposer(Vocabulary.read(given.vocabulary)))
    classifier = Classifier(given.model, batch_tokens=8192, as_released=given.released)
    loop = released if given.released else naive
    (expected, asked), slow = timed(lambda: loop(frame.iloc[some], facts, classifier))
    method = Method("atomic", facts)
    (scores, counts), fast = timed(lambda: cross_nli({"system": frame}, [method], PairScorer(classifier)))
    found = scores["system"][list(QUANTITIES)].to_numpy()[some]
    worst = float(np.nanmax(np.abs(found - expected)))
    alone, together = 1e3 * slow / asked, 1e3 * fast / counts["naive"]
    row = {"rows": given.rows, "pairs": counts["naive"], "distinct": counts["distinct"]}
    row |= {f"{loop.__name__} loop, ms/pair": alone, "each pair once, ms/pair": together, "ratio": alone / together}
    show([row | {"scores differ by": worst}])
    if worst > TOLERANCE:
        raise SystemExit(f"scores differ by {worst}, more than {TOLERANCE}")


if __name__ == "__main__":
    main()
