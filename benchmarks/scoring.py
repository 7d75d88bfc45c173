"""Scoring against the official way of computing the same metrics, on the same pairs, in one run.

    python -m benchmarks.scoring [--captions FILE] [--molecules FILE] [--tokenizer FOLDER]

The official way, written here from its description: captions are padded to 512 pieces and the special tokens filtered
out; BLEU-2 and BLEU-4 are two calls of nltk, METEOR one per row, ROUGE one of rouge_score per row. Molecules are parsed
anew for each script (strings, fingerprints, FCD) and nothing is shared between rows. Values must be equal, or the
benchmark fails. FILE: MolT5's published predictions (github.com/blender-nlp/MolT5, evaluation), 3,300 pairs each.

Models, vocabularies and WordNet are loaded before either clock starts.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fcd_torch
import numpy as np
from nltk.stem.porter import PorterStemmer
from nltk.translate.bleu_score import corpus_bleu
from nltk.translate.meteor_score import meteor_score
from rapidfuzz.distance import Levenshtein
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.rdMolDescriptors import GetMACCSKeysFingerprint
from rouge_score.rouge_scorer import RougeScorer

from benchmarks.timing import show, timed
from lmolt_utils.metrics.captions import CaptionTokenizer, caption_scores, caption_tokenizer, meteor_matcher
from lmolt_utils.metrics.molecules import features, molecule_scores
from lmolt_utils.metrics.prediction_files import read_predictions

Pairs = list[tuple[str, str]]
CUT = 512
TOLERANCE = {"FCD": 1e-4}


def official_captions(pairs: Pairs, tokenizer: CaptionTokenizer, wordnet: Any | None) -> dict[str, float]:
    """BLEU-2/4, METEOR (without synonyms where there is no WordNet) and ROUGE, one caption, one call at a time."""
    references, hypotheses, meteors = [], [], []
    how: Any = {"stemmer": PorterStemmer(), "wordnet": wordnet or SimpleNamespace(synsets=lambda word: [])}
    for pair in pairs:
        sides = []
        for text in pair:
            pieces = tokenizer.split([text])[0][:CUT]
            pieces = pieces + ["[PAD]"] * (CUT - len(pieces))
            for special in ("[PAD]", "[CLS]", "[SEP]"):
                pieces = list(filter((special).__ne__, pieces))
            sides.append(pieces)
        references.append([sides[0]])
        hypotheses.append(sides[1])
        meteors.append(meteor_score([sides[0]], sides[1], **how))
    values = {"METEOR": float(np.mean(meteors))}
    for order in (2, 4):
        values[f"BLEU-{order}"] = float(corpus_bleu(references, hypotheses, (1 / order,) * order))
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    rows = [scorer.score(output, reference) for reference, output in pairs]
    for key in ("rouge1", "rouge2", "rougeL"):
        values[f"ROUGE-{key[5:]}"] = float(np.mean([row[key].fmeasure for row in rows]))
    return values


def official_molecules(pairs: Pairs, chemnet: Any | None) -> dict[str, float]:
    """Character BLEU, exact match, Levenshtein, the three similarities (L+M-24: 0 where invalid), and FCD if asked."""
    values = {
        "BLEU": float(corpus_bleu([[list(r)] for r, _ in pairs], [list(p) for _, p in pairs])),
        "Levenshtein": float(np.mean([Levenshtein.distance(p, r) for r, p in pairs])),
    }

    def readable() -> list[list[Chem.Mol]]:  # parsed anew for each script
        parsed = [[Chem.MolFromSmiles(text) for text in texts] for texts in pairs]
        return [mols for mols in parsed if None not in mols]

    values["Exact"] = sum(Chem.MolToInchi(r) == Chem.MolToInchi(p) for r, p in readable()) / len(pairs)
    kept = readable()
    kinds: dict[str, Callable[[Chem.Mol], Any]] = {
        "MACCS": GetMACCSKeysFingerprint,
        "RDK": Chem.RDKFingerprint,
        "Morgan": rdFingerprintGenerator.GetMorganGenerator(radius=2).GetSparseCountFingerprint,
    }
    for name, fingerprint in kinds.items():
        found = [DataStructs.TanimotoSimilarity(fingerprint(r), fingerprint(p)) for r, p in kept]
        values[name] = sum(found) / len(pairs)
    if chemnet is not None:
        anew = [map(Chem.MolFromSmiles, side) for side in zip(*pairs, strict=True)]
        sides = [[Chem.MolToSmiles(mol) for mol in mols if mol] for mols in anew]
        values["FCD"] = float(chemnet(*sides))
    return values


def compared(what: str, pairs: Pairs, official: Callable[[], dict[str, float]], here: Callable[[], Any]) -> None:
    """Print a line; raises RuntimeError where the two ways differ."""
    theirs, slow = timed(official)
    scores, fast = timed(here)
    differences = {name: abs(scores.metrics[name] - value) for name, value in theirs.items()}
    for name, difference in differences.items():
        if not difference <= TOLERANCE.get(name, 1e-12):
            raise RuntimeError(f"{name}: {scores.metrics[name]!r} here and {theirs[name]!r} the official way")
    row = {"what": what, "rows": len(pairs), "official, s": slow, "here, s": fast, "ratio": slow / fast}
    show([row | {"largest difference": max(differences.values())}])


def read(path: Path) -> Pairs:
    """References and predictions of a file."""
    frame = read_predictions(path)
    return list(zip(frame["reference"], frame["prediction"], strict=True))


def captions(pairs: Pairs, tokenizer: str) -> None:
    """All six caption metrics."""
    references, outputs = map(list, zip(*pairs, strict=True))
    words, matcher = caption_tokenizer(tokenizer), meteor_matcher()
    if matcher.wordnet:
        for word in {word for pieces in words.split(references + outputs) for word in pieces}:
            matcher.wordnet.synsets(word)  # nltk reads its files: nobody's speed
    compared(
        f"captions ({words.name}, {matcher.name})",
        pairs,
        lambda: official_captions(pairs, words, matcher.wordnet),
        lambda: caption_scores(references, outputs, words, matcher),
    )


def molecules(pairs: Pairs, chemnet: Any | None) -> None:
    """All molecule metrics, FCD where its network is given."""
    references, outputs = map(list, zip(*pairs, strict=True))
    molecule_scores(references[:2], outputs[:2])  # loads ChemNet
    features.cache_clear()
    compared(
        f"molecules with{'' if chemnet else 'out'} FCD",
        pairs,
        lambda: official_molecules(pairs, chemnet),
        lambda: molecule_scores(references, outputs, fcd=chemnet is not None),
    )


def main() -> None:
    """Print the comparisons of the files that are given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--captions", type=Path, help="predictions of a captioner")
    parser.add_argument("--molecules", type=Path, help="predictions of a molecule generator")
    parser.add_argument("--tokenizer", default="auto", help="of BLEU and METEOR")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # fcd_torch's uses of deprecated numpy names, nltk's of empty outputs
    rdBase.DisableLog("rdApp.*")
    if given.captions:
        captions(read(given.captions), given.tokenizer)
    if given.molecules:
        for chemnet in (None, fcd_torch.FCD(device="cpu", n_jobs=1, canonize=False)):
            molecules(read(given.molecules), chemnet)


if __name__ == "__main__":
    main()
