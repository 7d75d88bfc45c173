"""Molecule metrics as the L+M-24 evaluation defines them.

BLEU, Exact, Levenshtein, similarity by MACCS, RDK and Morgan fingerprints, FCD and Validity.

What counts as a molecule is what RDKit makes of the raw output, as in the official scripts:
- text after the first whitespace is ignored by the parser, so "CCO is ethanol" is a valid ethanol, while BLEU
  and Levenshtein see the whole string;
- an empty output is the empty molecule: valid, similar to nothing, and left out of FCD.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
from rapidfuzz.distance import Levenshtein
from rdkit.DataStructs import TanimotoSimilarity

from lmolt_utils.data.molecules import features, inchi
from lmolt_utils.metrics.fcd import frechet_chemnet_distance
from lmolt_utils.metrics.intervals import Scored
from lmolt_utils.metrics.ngrams import BLEU_ORDERS, bleu_statistics

MOLECULE_METRICS = ("BLEU", "Exact", "Levenshtein", "MACCS", "RDK", "Morgan", "FCD", "Validity", "Uniqueness")
SIMILARITIES = ("MACCS", "RDK", "Morgan")

InvalidConvention = Literal["lpm24", "molt5"]


def molecule_scores(
    references: Sequence[str], predictions: Sequence[str], invalid: InvalidConvention = "lpm24", *, fcd: bool = True
) -> Scored:
    """All molecule metrics of n pairs of SMILES strings, NaN where undefined.

    invalid: "lpm24" means similarities over all rows with 0 where one of the two does not parse (L+M-24's
    tables), "molt5" over the rows where both parse (MolT5's and ChEBI-20's tables). fcd: False leaves FCD out.

    BLEU, Exact and Levenshtein (edits, lower is better) are over all rows. Validity is the share of outputs that parse,
    Uniqueness distinct valid outputs, as strings, over valid ones. The mean of a sample's column without NaN is the
    corpus value; length_deviation: output minus reference, in characters. Raises ValueError for another convention.
    """
    if invalid not in ("lpm24", "molt5"):
        raise ValueError(f"unknown convention for invalid molecules {invalid!r}: give 'lpm24' or 'molt5'")
    rows = list(zip(references, predictions, strict=True))
    pairs = [(features(r), features(p)) for r, p in rows]
    missing = {"lpm24": 0.0, "molt5": math.nan}[invalid]
    columns: dict[str, list[Any]] = {
        "Exact": [same_molecule(r, p) for r, p in rows],
        "Levenshtein": [Levenshtein.distance(p, r) for r, p in rows],
    }
    for name in SIMILARITIES:
        columns[name] = [_tanimoto(getattr(r, name), getattr(p, name), missing) for r, p in pairs]
    columns["Validity"] = [p.valid for _, p in pairs]
    samples = pd.DataFrame(columns, dtype=float)
    means = {name: float(column.dropna().to_numpy().mean()) for name, column in samples.items() if column.notna().any()}

    counts = bleu_statistics(references, predictions)
    sides = [r.canonical for r, _ in pairs], [p.canonical for _, p in pairs]
    distance, statistics, odd = frechet_chemnet_distance(*(sides if fcd else ([], [])))
    valid = [text for (_, text), (_, p) in zip(rows, pairs, strict=True) if p.valid]
    values = {
        **means,
        "BLEU": counts.score(BLEU_ORDERS["BLEU"]),
        "FCD": distance,
        "Uniqueness": len(set(valid)) / len(valid) if valid else math.nan,
    }
    samples["length_deviation"] = [len(p) - len(r) for r, p in rows]
    odd |= {
        "invalid_predictions": sum(not p.valid for _, p in pairs),
        "unparsable_references": sum(not r.valid for r, _ in pairs),
        "rdkit_gave_up": sum(r.gave_up or p.gave_up for r, p in pairs),
    }
    metrics = {name: values.get(name, math.nan) for name in MOLECULE_METRICS}
    return Scored(metrics, samples, counts, statistics, odd)


def same_molecule(reference: str, prediction: str) -> bool:
    """Whether both are valid and of one InChI; without one, of one canonical SMILES (officially any two are equal)."""
    one, other = features(reference), features(prediction)
    # InChI is slow; molecules of different composition cannot share one.
    if not (one.valid and other.valid) or one.formula != other.formula:
        return False
    if reference == prediction:
        return True
    name = inchi(reference)
    return name == inchi(prediction) and (bool(name) or one.canonical == other.canonical)


def _tanimoto(reference: Any, prediction: Any, missing: float) -> float:
    """RDKit's, as officially: 0 for two empty fingerprints, even of one molecule (methane has no path for RDK)."""
    if reference is None or prediction is None:
        return missing
    return float(TanimotoSimilarity(reference, prediction))
