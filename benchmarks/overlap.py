"""The overlap report at several sizes: seconds, rows per second, peak memory, and other ways of doing it beside it.

    python -m benchmarks.overlap [--molecules molecule_properties.tsv.gz] [--rows 1000 10000 160560]

Molecules come from L+M-24's ``molecule_properties.tsv.gz`` if it is given (or found through ``LMOLT_SHARED_DATA``),
else from the embedded corpus. The other ways work on a subset, in the same process right after; their times are
extrapolated in proportion to the pairs, and the last columns are ratios to :func:`lmolt_utils.data.similarity.nearest`.
Rows of growing size are measured in one process, so the peak memory of a row is that of the largest so far.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import rdFingerprintGenerator

from lmolt_utils.data.molecules import FINGERPRINT_BITS, Molecules, fingerprints
from lmolt_utils.data.overlap import overlap_report
from lmolt_utils.data.similarity import nearest
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.run.steps import peak_memory_mb

TEST_ROWS, REPEATS = 3000, 3
#: Queries for RDKit's bulk function and for packed words, and queries and references for the naive way.
SUBSET, NAIVE = 60, (10, 60)


def unpacked(bits: np.ndarray) -> list[Any]:
    """Packed rows as RDKit's bit vectors."""
    return [DataStructs.CreateFromBinaryText(row.tobytes()) for row in bits]


def by_bulk(queries: Sequence[Any], references: Sequence[Any]) -> np.ndarray:
    """RDKit's own way: one bit vector against all references at a time; shape (queries,)."""
    return np.array([max(DataStructs.BulkTanimotoSimilarity(one, references)) for one in queries])


def by_words(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Bits counted in packed 64-bit words, one query at a time; shape (queries,)."""
    asked, known = queries.view(np.uint64), references.view(np.uint64)
    sizes = np.bitwise_count(known).sum(axis=1, dtype=np.int32)
    best = np.zeros(len(asked))
    for number, row in enumerate(asked):
        shared = np.bitwise_count(row & known).sum(axis=1, dtype=np.int32)
        best[number] = (shared / (np.bitwise_count(row).sum() + sizes - shared)).max()
    return best


def naively(queries: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Pair by pair, both SMILES parsed anew each time; shape (queries,)."""
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=FINGERPRINT_BITS)
    best = np.zeros(len(queries))
    for number, query in enumerate(queries):
        for reference in references:
            one, other = (morgan.GetFingerprint(Chem.MolFromSmiles(text)) for text in (query, reference))
            best[number] = max(best[number], DataStructs.TanimotoSimilarity(one, other))
    return best


def _seconds(do: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median wall time of ``repeats`` calls."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        do()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(corpus: pd.DataFrame, test_rows: int = TEST_ROWS) -> dict[str, float]:
    """One line of the table: ``corpus`` (molecule, properties) against a test set drawn from it."""
    test = corpus.sample(min(test_rows, len(corpus)), random_state=0)
    start = time.perf_counter()
    molecules = Molecules()
    found = [one for one in molecules.of(corpus["molecule"]) if one]
    parsed = time.perf_counter() - start
    start = time.perf_counter()
    overlap_report(test, {"all": corpus}, molecules)
    reported = time.perf_counter() - start
    known, asked = fingerprints(found), fingerprints([one for one in molecules.of(test["molecule"]) if one])
    here = _seconds(lambda: nearest(asked, known))
    pairs = len(asked) * len(known)
    few = asked[:SUBSET]
    vectors, few_vectors = unpacked(known), unpacked(few)
    bulk = _seconds(lambda: by_bulk(few_vectors, vectors), 1) * len(asked) / len(few)
    words = _seconds(lambda: by_words(few, known), 1) * len(asked) / len(few)
    some, others = test["molecule"].tolist()[: NAIVE[0]], corpus["molecule"].tolist()[: NAIVE[1]]
    with rdBase.BlockLogs():
        naive = _seconds(lambda: naively(some, others)) / (len(some) * len(others)) * pairs
    return {
        "rows": len(corpus),
        "test": len(test),
        "distinct fingerprints": len(np.unique(known, axis=0)),
        "parse s": parsed,
        "rows/s": len(corpus) / parsed,
        "report s": reported,
        "nearest s": here,
        "peak MB": peak_memory_mb(),
        "bulk x": bulk / here,
        "words x": words / here,
        "naive x": naive / here,
    }


def molecules_of(path: Path | None, rows: int) -> pd.DataFrame:
    """``rows`` molecules of L+M-24's file in random order (seed 0), or of the embedded corpus without one."""
    if path is None:
        return generate(rows, 0)
    frame = pd.read_csv(path, sep="\t", names=["molecule", "properties"], header=0, quoting=3, keep_default_na=False)
    return frame.sample(min(rows, len(frame)), random_state=0)


def main() -> None:
    """Print one line per size."""
    shared = os.environ.get("LMOLT_SHARED_DATA")
    default = Path(shared) / "lpm24" / "molecule_properties.tsv.gz" if shared else None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", type=Path, default=default if default and default.exists() else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 160_560])
    arguments = parser.parse_args()
    print(f"molecules: {arguments.molecules.name if arguments.molecules else 'embedded corpus'}")
    for number, rows in enumerate(sorted(arguments.rows)):
        line = pd.DataFrame([measure(molecules_of(arguments.molecules, rows))])
        print(line.to_string(index=False, header=not number, float_format="{:,.1f}".format, col_space=10), flush=True)


if __name__ == "__main__":
    main()
