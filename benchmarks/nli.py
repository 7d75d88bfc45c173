"""Atomic cross-NLI against a naive batched loop with the same model, on real captions, in one run.

    python -m benchmarks.nli FILE FILE --vocabulary nested_props.json [--model MODEL] [--rows 3000]

The files are captions of the same molecules, one per line (L+M-24's submissions): the first stands for the references.
The naive loop asks every pair of atoms of every row in both directions in the order they come, in batches of 128 padded
to their longest, and nothing is shared. It runs on evenly spaced rows (``--naive-rows``) and its time is scaled by
the number of pairs to all rows: that figure is an extrapolation, and says so. Both loops include cutting into atoms
and pooling; loading the model is left out of both. Scores must agree to 1e-5, or the benchmark fails.

Then memory: the same captions many times over, every answer known; and all lines of all files cut into facts, with
their repeats and each distinct one once.
"""

import argparse
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd

from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.metrics.prediction_files import read_predictions
from lmolt_utils.nli.classifier import Classifier, Pair, PairScorer
from lmolt_utils.nli.cross_nli import QUANTITIES, Method, canonical_atoms, cross_nli, pooled, texts_of

BATCH = 128
TOLERANCE = 1e-5


def naive(frame: pd.DataFrame, decompose: Decomposer, classifier: Classifier) -> tuple[np.ndarray, int]:
    """Scores of each row, shape (n, 3), and how many pairs were asked."""
    cut = canonical_atoms(decompose)
    atoms = [(cut(r), cut(p)) for r, p in texts_of(frame)]
    pairs: list[Pair] = []
    for wanted, said in atoms:
        pairs += [(premise, hypothesis) for hypothesis in said for premise in wanted]
        pairs += [(premise, hypothesis) for hypothesis in wanted for premise in said]
    blocks = [classifier.forward(pairs[start : start + BATCH]) for start in range(0, len(pairs), BATCH)]
    answers = np.concatenate(blocks)
    scores, place = [], 0
    for wanted, said in atoms:
        size = len(wanted) * len(said)
        forward, backward = answers[place : place + size], answers[place + size : place + 2 * size]
        place += 2 * size
        scores.append(
            pooled(forward.reshape(len(said), len(wanted), 3), backward.reshape(len(wanted), len(said), 3))
            if size
            else (np.nan,) * 3
        )
    return np.array(scores), len(pairs)


def _captions(file: str) -> list[str]:
    return list(read_predictions(Path(file), reference=Path(file))["prediction"])


def main() -> None:
    """Print the counts, the times and their ratio; raises ``SystemExit`` where the two ways disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="+", help="the first: references; each further one: a system")
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--model", default="embedded:nli")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--naive-rows", type=int, default=60)
    arguments = parser.parse_args()

    columns = [_captions(file) for file in arguments.files]
    chosen = np.linspace(0, len(columns[0]) - 1, arguments.rows).astype(int)
    references, *outputs = ([column[i] for i in chosen] for column in columns)
    frames = {
        f"system {number}": pd.DataFrame({"id": chosen, "reference": references, "prediction": texts})
        for number, texts in enumerate(outputs, start=1)
    }
    vocabulary = Vocabulary.read(Path(arguments.vocabulary))
    classifier = Classifier(arguments.model, batch_tokens=8192)
    list(classifier.batches([("warm", "up")]))

    scorer = PairScorer(classifier)
    decompose = Decomposer(vocabulary)
    results = {}
    seconds = 0.0
    for name, frame in frames.items():
        asked = scorer.asked
        started = time.perf_counter()
        rows, counts = cross_nli({name: frame}, [Method("atomic", canonical_atoms(decompose))], scorer)
        took = time.perf_counter() - started
        results[name] = rows[name][list(QUANTITIES)].to_numpy()
        if not seconds:
            seconds, whole = took, counts.naive
        print(
            f"{name}: {counts.naive} naive pairs, {counts.distinct} distinct "
            f"(1 in {counts.naive / counts.distinct:.0f}), {scorer.asked - asked} new, {took:.1f} s"
        )

    first = next(iter(frames.values()))
    some = np.linspace(0, arguments.rows - 1, arguments.naive_rows).astype(int)
    started = time.perf_counter()
    expected, asked = naive(first.iloc[some], Decomposer(vocabulary), classifier)
    took = time.perf_counter() - started
    told = results["system 1"][some]
    both = ~np.isnan(expected) & ~np.isnan(told)
    worst = float(np.abs(expected - told)[both].max())
    print(
        f"naive loop: {asked} pairs in {took:.1f} s on {arguments.naive_rows} rows; all {whole} pairs would take "
        f"{took * whole / asked:.0f} s (extrapolated), {took * whole / asked / seconds:.0f} times as long; "
        f"largest difference of a score {worst:.1e}"
    )
    if worst > TOLERANCE:
        raise SystemExit(f"scores differ by {worst}, more than {TOLERANCE}")

    memory(first, [Method("atomic", canonical_atoms(decompose))], scorer)
    captions = [caption for column in columns for caption in column]
    for name, texts in (("with their repeats", captions), ("distinct ones", list(dict.fromkeys(captions)))):
        cutting = Decomposer(vocabulary)  # it remembers the captions it has cut
        started = time.perf_counter()
        for text in texts:
            cutting.properties(text)
        took = time.perf_counter() - started
        print(f"cut into facts, {name}: {len(texts)} captions in {took:.2f} s, {len(texts) / took:.0f} per second")


def memory(frame: pd.DataFrame, methods: list[Method], scorer: PairScorer) -> None:
    """Print what judging takes beyond what is known, for the same captions once and thirty times over."""
    for times in (1, 30):
        longer = pd.concat([frame] * times, ignore_index=True)
        tracemalloc.start()
        rows, _ = cross_nli({"again": longer}, methods, scorer)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        returned = int(rows["again"].memory_usage(index=False).sum())
        print(
            f"memory at {len(longer)} captions: peak {peak / 2**20:.2f} MB, {peak / len(longer):.0f} bytes per caption "
            f"(the rows returned: {returned / len(longer):.0f})"
        )


if __name__ == "__main__":
    main()
