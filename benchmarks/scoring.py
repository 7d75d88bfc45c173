"""Scoring against the official way of computing the same metrics, on the same pairs, in one run.

    python -m benchmarks.scoring --captions FILE --molecules FILE [--tokenizer FOLDER]

The official way, written here from its description: captions are padded to 512 pieces, cut, and the special tokens
filtered out; BLEU-2 and BLEU-4 are two calls of nltk, METEOR one per row, ROUGE one of rouge_score per row. Molecules
are parsed anew for each script (strings, fingerprints, FCD) and nothing is shared between rows or systems. Values
must be equal, or the benchmark fails. FILE: MolT5's published predictions (github.com/blender-nlp/MolT5,
evaluation), 3,300 pairs each.

Models, vocabularies and WordNet (4 to 5 seconds, once per process) are loaded before either clock starts.
"""

from __future__ import annotations

import argparse
import math
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rapidfuzz.distance import Levenshtein
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.rdMolDescriptors import GetMACCSKeysFingerprint

from lmolt_utils.data.molecules import parse
from lmolt_utils.metrics.captions import (
    CUT,
    CaptionTokenizer,
    MeteorMatcher,
    caption_scores,
    caption_tokenizer,
    meteor_matcher,
    stem,
    strip_cls,
)
from lmolt_utils.metrics.featurise import Featuriser
from lmolt_utils.metrics.molecules import ChemNet, chemnet_network, frechet_chemnet_distance, molecule_scores
from lmolt_utils.metrics.prediction_files import read_predictions

Pairs = tuple[list[str], list[str]]


# ------------------------------------------------------------------------------------- the official way


def official_captions(pairs: Pairs, tokenizer: CaptionTokenizer, matcher: MeteorMatcher) -> dict[str, float]:
    """BLEU-2/4, METEOR and ROUGE, one caption, one call at a time."""
    from nltk.stem.porter import PorterStemmer
    from nltk.translate.bleu_score import corpus_bleu
    from nltk.translate.meteor_score import meteor_score
    from rouge_score.rouge_scorer import RougeScorer

    class NoSynonyms:
        def synsets(self, _: str) -> list[Any]:
            return []

    wordnet = matcher.wordnet or NoSynonyms()
    references, hypotheses, meteors = [], [], []
    for reference, output in zip(*pairs, strict=True):
        sides = []
        for text in (reference, strip_cls(output)):
            pieces = tokenizer.split([text])[0][:CUT]
            pieces = pieces + ["[PAD]"] * (CUT - len(pieces))
            for special in ("[PAD]", "[CLS]", "[SEP]"):
                pieces = list(filter((special).__ne__, pieces))
            sides.append(pieces)
        references.append([sides[0]])
        hypotheses.append(sides[1])
        meteors.append(meteor_score([sides[0]], sides[1], stemmer=PorterStemmer(), wordnet=wordnet))
    values = {"METEOR": float(np.mean(meteors))}
    for order in (2, 4):
        values[f"BLEU-{order}"] = float(corpus_bleu(references, hypotheses, (1 / order,) * order))
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    rows = [scorer.score(strip_cls(output), reference) for reference, output in zip(*pairs, strict=True)]
    for key in ("rouge1", "rouge2", "rougeL"):
        values[f"ROUGE-{key[5:]}"] = float(np.mean([row[key].fmeasure for row in rows]))
    return values


def official_molecules(pairs: Pairs) -> dict[str, float]:
    """Character BLEU, exact match, Levenshtein and the three similarities (L+M-24: 0 where invalid)."""
    from nltk.translate.bleu_score import corpus_bleu

    rows = list(zip(*pairs, strict=True))
    values = {
        "BLEU": float(corpus_bleu([[list(r)] for r, _ in rows], [list(p) for _, p in rows])),
        "Levenshtein": float(np.mean([Levenshtein.distance(p, r) for r, p in rows])),
    }
    exact = 0
    for reference, output in rows:
        ours, theirs = parse(reference), parse(output)
        exact += None not in (ours, theirs) and Chem.MolToInchi(ours) == Chem.MolToInchi(theirs)
    values["Exact"] = exact / len(rows)
    parsed = [(parse(r), parse(p)) for r, p in rows]
    kept = [(r, p) for r, p in parsed if r is not None and p is not None]
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2)
    kinds: dict[str, Callable[[Chem.Mol], Any]] = {
        "MACCS": GetMACCSKeysFingerprint,
        "RDK": Chem.RDKFingerprint,
        "Morgan": morgan.GetSparseCountFingerprint,
    }
    for name, fingerprint in kinds.items():
        found = [DataStructs.TanimotoSimilarity(fingerprint(r), fingerprint(p)) for r, p in kept]
        values[name] = sum(found) / len(rows)
    values["Validity"] = len(kept) / len(rows)
    return values


def official_fcd(pairs: Pairs, network: Any) -> float:
    """FCD of the canonical SMILES of all molecules that parse, by fcd_torch alone."""
    sides = [[Chem.MolToSmiles(mol) for mol in map(parse, side) if mol is not None] for side in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(network([s for s in sides[0] if s], [s for s in sides[1] if s]))


# --------------------------------------------------------------------------------------------- measuring


def timed(work: Callable[..., Any], *arguments: Any, **settings: Any) -> tuple[Any, float]:
    """What `work` returns, and its wall time in seconds."""
    started = time.perf_counter()
    value = work(*arguments, **settings)
    return value, time.perf_counter() - started


def check_equal(ours: dict[str, float], official: dict[str, float], tolerance: float) -> float:
    """The largest difference; raises RuntimeError where it exceeds the tolerance."""
    differences = {name: abs(ours[name] - value) for name, value in official.items()}
    worst = max(differences, key=lambda name: differences[name])
    if not differences[worst] <= tolerance:
        raise RuntimeError(f"{worst}: {ours[worst]!r} here and {official[worst]!r} the official way")
    return differences[worst]


def captions(pairs: Pairs, tokenizer: str, repeats: int) -> dict[str, Any]:
    """All six caption metrics: medians of `repeats` alternating measurements, in seconds."""
    matcher = meteor_matcher()
    words = caption_tokenizer(tokenizer)
    _warm(pairs, words, matcher)
    ours, theirs = [], []
    for _ in range(repeats):
        stem.cache_clear()  # stems are part of the work; WordNet is loaded
        result, seconds = timed(caption_scores, *pairs, caption_tokenizer(tokenizer), matcher)
        ours.append(seconds)
        values, seconds = timed(official_captions, pairs, words, matcher)
        theirs.append(seconds)
    worst = check_equal(result.metrics, values, 1e-12)
    return _row(f"captions ({words.name}, {matcher.name})", len(pairs[0]), theirs, ours, worst)


def _warm(pairs: Pairs, words: CaptionTokenizer, matcher: MeteorMatcher) -> None:
    """Have nltk read every WordNet entry that either way asks for: the file reads are nobody's speed."""
    for word in {word for side in pairs for pieces in words.split(side) for word in pieces}:
        if matcher.wordnet is not None:
            matcher.wordnet.synsets(stem(word))


def molecules(pairs: Pairs, workers: int, repeats: int) -> list[dict[str, Any]]:
    """All molecule metrics but FCD, and FCD, of one file."""
    chemnet_network()
    ours, theirs, fcd_ours, fcd_theirs = [], [], [], []
    for _ in range(repeats):
        featuriser = Featuriser(workers)
        scores, seconds = timed(molecule_scores, *pairs, featuriser=featuriser, fcd=False)
        ours.append(seconds)
        values, seconds = timed(official_molecules, pairs)
        theirs.append(seconds)
        canonical = [[featuriser.table[text].canonical for text in side] for side in pairs]
        fcd, seconds = timed(frechet_chemnet_distance, *canonical)
        fcd_ours.append(seconds)
        value, seconds = timed(official_fcd, pairs, chemnet_network())
        fcd_theirs.append(seconds)
    n = len(pairs[0])
    return [
        _row("molecules without FCD", n, theirs, ours, check_equal(scores.metrics, values, 1e-12)),
        _row("FCD", n, fcd_theirs, fcd_ours, abs(fcd.value - value)),
        _row("molecules with FCD", n, np.add(theirs, fcd_theirs), np.add(ours, fcd_ours), abs(fcd.value - value)),
    ]


def systems(pairs: Pairs, count: int, workers: int, official: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per-system time of `count` systems on one test set, with one featuriser and one ChemNet.

    The systems are made from the file's: where it misses the reference, each writes its output with the atoms in
    another order, so no output but a correct one ever comes twice. Real systems agree more often.
    """
    references, outputs = pairs
    featuriser, chemnet = Featuriser(workers), ChemNet()
    without, fcd = 0.0, 0.0
    for seed in range(count):
        made = [o if o == r else _other_spelling(o, seed) for r, o in zip(references, outputs, strict=True)]
        _, seconds = timed(molecule_scores, references, made, featuriser=featuriser, fcd=False)
        without += seconds / count
        # The outputs as spelled: as canonical SMILES they would be the same molecules in every system.
        table = featuriser.table
        sides = [table[r].canonical for r in references], [p if table[p].valid else None for p in made]
        _, seconds = timed(frechet_chemnet_distance, *sides, chemnet)
        fcd += seconds / count
    n = len(references)
    return [
        _row(f"molecules without FCD, per system of {count}", n, [official[0]["official s"]], [without], math.nan),
        _row(
            f"molecules with FCD, per system of {count}",
            n,
            [official[2]["official s"]],
            [without + fcd],
            math.nan,
        ),
    ]


def scaling(
    caption_pairs: Pairs, molecule_pairs: Pairs, sizes: list[int], tokenizer: str, workers: int
) -> pd.DataFrame:
    """Our seconds for more and more rows: captions and, all spelled differently, molecules without FCD."""
    words, matcher = caption_tokenizer(tokenizer), meteor_matcher()
    rows = []
    for size in sizes:
        pairs = _repeat(caption_pairs, size)
        _, caption_seconds = timed(caption_scores, *pairs, words, matcher)
        pairs = _repeat(molecule_pairs, size)
        spelled = tuple([_other_spelling(t, i) for i, t in enumerate(side)] for side in pairs)
        _, molecule_seconds = timed(molecule_scores, *spelled, featuriser=Featuriser(workers), fcd=False)
        rows.append(
            {
                "rows": size,
                "captions s": caption_seconds,
                "captions ms/row": 1e3 * caption_seconds / size,
                "molecules s": molecule_seconds,
                "molecules ms/row": 1e3 * molecule_seconds / size,
            }
        )
    return pd.DataFrame(rows)


def _repeat(pairs: Pairs, size: int) -> Pairs:
    times = -(-size // len(pairs[0]))
    return (pairs[0] * times)[:size], (pairs[1] * times)[:size]


def _other_spelling(smiles: str, seed: int) -> str:
    """The same molecule with its atoms in another order; text that does not parse with a mark of the seed."""
    mol = parse(smiles)
    if mol is None or not mol.GetNumAtoms():
        return f"{smiles}({seed}"
    order = list(range(mol.GetNumAtoms()))
    random.Random(seed).shuffle(order)
    return str(Chem.MolToSmiles(Chem.RenumberAtoms(mol, order), canonical=False))


def _row(name: str, rows: int, official: Any, ours: Any, difference: float) -> dict[str, Any]:
    theirs, here = float(np.median(official)), float(np.median(ours))
    return {
        "what": name,
        "rows": rows,
        "official s": theirs,
        "ours s": here,
        "ratio": theirs / here,
        "largest difference": difference,
    }


def _pairs(path: Path, rows: int | None) -> Pairs:
    frame = read_predictions(path)[:rows]
    return list(frame["reference"]), list(frame["prediction"])


def main(argv: list[str] | None = None) -> int:
    """Entry point: prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--captions", type=Path, help="predictions of a captioner")
    parser.add_argument("--molecules", type=Path, help="predictions of a molecule generator")
    parser.add_argument("--tokenizer", default="auto", help="of BLEU and METEOR")
    parser.add_argument("--rows", type=int, help="only the first rows")
    parser.add_argument("--systems", type=int, default=10, help="on one test set; 0: skip (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes for RDKit (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="measurements, medians shown (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[], help="rows for the cost against rows")
    arguments = parser.parse_args(argv)
    with rdBase.BlockLogs():
        sides = [None if p is None else _pairs(p, arguments.rows) for p in (arguments.captions, arguments.molecules)]
        if sides[0] is not None:
            _show([captions(sides[0], arguments.tokenizer, arguments.repeats)])
        if sides[1] is not None:
            found = molecules(sides[1], arguments.workers, arguments.repeats)
            _show(found)
            if arguments.systems:
                _show(systems(sides[1], arguments.systems, arguments.workers, found))
        if arguments.sizes and sides[0] is not None and sides[1] is not None:
            table = scaling(sides[0], sides[1], arguments.sizes, arguments.tokenizer, arguments.workers)
            _show(table)
    return 0


def _show(rows: list[dict[str, Any]] | pd.DataFrame) -> None:
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format, na_rep="-") + "\n", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
