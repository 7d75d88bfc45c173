"""Molecule metrics as the L+M-24 evaluation defines them.

BLEU, Exact, Levenshtein, similarity by MACCS, RDK and Morgan fingerprints, FCD and Validity.

What counts as a molecule is what RDKit makes of the raw output, as in the official scripts:
- text after the first whitespace is ignored by the parser, so "CCO is ethanol" is a valid ethanol, while BLEU
  and Levenshtein see the whole string;
- an empty output is the empty molecule: valid, similar to nothing, and left out of FCD;
- a fingerprint that RDKit cannot finish within a limit of time (:mod:`lmolt_utils.metrics.featurise`) is treated like
  one of an invalid output, and counted.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
from rapidfuzz.distance import Levenshtein
from rdkit import DataStructs

from lmolt_utils.metrics.featurise import Featuriser, Molecule
from lmolt_utils.metrics.ngrams import BLEU_ORDERS, BleuStatistics, bleu_statistics

MOLECULE_METRICS = ("BLEU", "Exact", "Levenshtein", "MACCS", "RDK", "Morgan", "FCD", "Validity", "Uniqueness")
SIMILARITIES = ("MACCS", "RDK", "Morgan")

InvalidConvention = Literal["lpm24", "molt5"]

FCD_WIDTH = 350  # tokens that ChemNet reads, the end mark among them
FCD_FULL_RANK = 513  # molecules from which a covariance of ChemNet's 512 activations can have full rank
_BATCH = 32  # molecules that go through ChemNet together


@dataclass(frozen=True, eq=False)
class FCDStatistics:
    """activations: ChemNet's, one row per distinct canonical SMILES, float32, shape (m, 512).

    references, predictions: which of them each row's two molecules have, -1 where left out, shape (n,).
    """

    activations: np.ndarray
    references: np.ndarray
    predictions: np.ndarray


@dataclass(frozen=True, eq=False)
class FCD:
    """Fréchet ChemNet Distance, NaN where it is not defined; then there are no ``statistics`` for a resample either.

    counts: fcd_references, fcd_predictions (molecules that count), fcd_dropped_empty, fcd_over_349_characters (of which
    ChemNet may not read the end), fcd_several_fragments (of which it reads the first), fcd_note (a warning, or empty).
    """

    value: float
    counts: dict[str, str | int]
    statistics: FCDStatistics | None


@dataclass(frozen=True, eq=False)
class MoleculeScores:
    """metrics: corpus value per name of `MOLECULE_METRICS`, NaN where undefined.

    samples: per-row values, arrays of shape (n,), whose mean without NaN is the corpus value; and length_deviation
    (output minus reference, in characters). counts: FCD's; invalid_predictions; unparsable_references; rdkit_gave_up:
    rows with a molecule that is too long for RDKit or reached its limit of time or memory.
    """

    metrics: dict[str, float]
    samples: dict[str, np.ndarray]
    bleu: BleuStatistics
    fcd: FCDStatistics | None
    counts: dict[str, str | int]


def molecule_scores(
    references: Sequence[str],
    predictions: Sequence[str],
    invalid: InvalidConvention = "lpm24",
    *,
    featuriser: Featuriser | None = None,
    chemnet: "ChemNet | None" = None,
    fcd: bool = True,
) -> MoleculeScores:
    """All molecule metrics of n pairs of SMILES strings.

    invalid: "lpm24" means similarities over all rows with 0 where one of the two does not parse (L+M-24's
    tables), "molt5" over the rows where both parse (MolT5's and ChEBI-20's tables), NaN where there is none.
    featuriser, chemnet: what earlier calls computed is taken from them. fcd: False leaves FCD out (NaN).

    BLEU, Exact and Levenshtein (edits, lower is better) are over all rows. Validity is the share of outputs that parse,
    Uniqueness distinct valid outputs, as strings, over valid ones. Exact is equality of InChI; two molecules that InChI
    cannot name are equal only if their canonical SMILES are (the official script takes any two such as equal).

    Raises ValueError where the lists are empty or differ in length, or for another convention.
    """
    if invalid not in ("lpm24", "molt5"):
        raise ValueError(f"unknown convention for invalid molecules {invalid!r}: give 'lpm24' or 'molt5'")
    if len(references) != len(predictions) or not references:
        raise ValueError(f"{len(references)} references and {len(predictions)} predictions: give n >= 1 of each")

    featuriser = featuriser or Featuriser()
    table = featuriser.molecules([*references, *predictions])
    rows = list(zip(references, predictions, strict=True))
    pairs = [(table[r], table[p]) for r, p in rows]
    # InChI is the slow part of equality; molecules of different composition cannot share one.
    featuriser.add_inchi([s for r, p in rows if r != p and _like(table[r], table[p]) for s in (r, p)])
    missing = 0.0 if invalid == "lpm24" else math.nan
    columns: dict[str, list[Any]] = {
        "Exact": [_same_molecule(r, p) for r, p in pairs],
        "Levenshtein": [Levenshtein.distance(p, r) for r, p in rows],
    }
    for name in SIMILARITIES:
        columns[name] = [_tanimoto(getattr(r, name), getattr(p, name), missing) for r, p in pairs]
    columns["Validity"] = [p.valid for _, p in pairs]
    samples = {name: np.array(column, dtype=float) for name, column in columns.items()}

    counts = bleu_statistics(references, predictions)
    sides = [r.canonical for r, _ in pairs], [p.canonical for _, p in pairs]
    distance = frechet_chemnet_distance(*(sides if fcd else ([], [])), chemnet)
    valid = [text for (_, text), (_, p) in zip(rows, pairs, strict=True) if p.valid]
    values = {
        "BLEU": counts.score(BLEU_ORDERS["BLEU"]),
        "FCD": distance.value,
        "Uniqueness": len(set(valid)) / len(valid) if valid else math.nan,
    }
    values |= {name: _mean(column) for name, column in samples.items()}
    samples["length_deviation"] = np.array([len(p) - len(r) for r, p in rows])
    odd: dict[str, str | int] = {
        **distance.counts,
        "invalid_predictions": sum(not p.valid for _, p in pairs),
        "unparsable_references": sum(not r.valid for r, _ in pairs),
        "rdkit_gave_up": sum(r.gave_up or p.gave_up for r, p in pairs),
    }
    metrics = {name: values[name] for name in MOLECULE_METRICS}
    return MoleculeScores(metrics, samples, counts, distance.statistics, odd)


def _mean(column: np.ndarray) -> float:
    kept = column[~np.isnan(column)]
    return float(kept.mean()) if kept.size else math.nan


def _like(reference: Molecule, prediction: Molecule) -> bool:
    return reference.valid and prediction.valid and reference.formula == prediction.formula is not None


def _same_molecule(reference: Molecule, prediction: Molecule) -> bool:
    if reference is prediction:
        return reference.valid
    if not _like(reference, prediction) or reference.inchi != prediction.inchi:
        return False
    return bool(reference.inchi) or reference.canonical == prediction.canonical is not None


def _tanimoto(reference: Any, prediction: Any, missing: float) -> float:
    """Tanimoto similarity of two fingerprints, `missing` where there is none of one.

    Two empty fingerprints score 0, even of one and the same molecule (methane has no path for RDK): RDKit's
    own rule, and so the official value. "Equal strings score 1" would be a shortcut to another number.
    """
    if reference is None or prediction is None:
        return missing
    return float(DataStructs.TanimotoSimilarity(reference, prediction))


# ------------------------------------------------------------------------------------------------------ FCD


@dataclass
class ChemNet:
    """ChemNet's last-but-one layer by canonical SMILES: each distinct molecule goes through the network once.

    The network and its weights are fcd_torch's. Every batch has the same shape and goes through one thread (three
    would divide it unevenly): a molecule's numbers do not depend on which others are new, and a resumed run gives the
    same bytes.
    """

    table: dict[str, np.ndarray] = field(default_factory=dict)

    def activations(self, canonical_smiles: Sequence[str]) -> np.ndarray:
        """For n non-empty canonical SMILES: float32 of shape (n, 512)."""
        new = [smiles for smiles in dict.fromkeys(canonical_smiles) if smiles not in self.table]
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            filled = [*batch, *["C"] * (_BATCH - len(batch))]
            self.table |= zip(batch, _on_one_thread(filled), strict=False)
        return np.array([self.table[smiles] for smiles in canonical_smiles], dtype=np.float32).reshape(-1, 512)


def _on_one_thread(canonical_smiles: Sequence[str]) -> np.ndarray:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fcd_torch's uses of deprecated numpy names
            return np.asarray(chemnet_network().get_predictions(canonical_smiles))
    finally:
        torch.set_num_threads(threads)


@cache
def chemnet_network() -> Any:
    """fcd_torch's ChemNet on the CPU, loaded once per process."""
    import fcd_torch  # here, since it imports torch: captions do not need it

    return fcd_torch.FCD(device="cpu", n_jobs=1, canonize=False)


def frechet_chemnet_distance(
    references: Sequence[str | None], predictions: Sequence[str | None], chemnet: ChemNet | None = None
) -> FCD:
    """FCD of two sets of canonical SMILES, as fcd 1.1 and fcd_torch define it (unpaired; duplicates count).

    None stands for a string that does not parse, "" for an empty molecule: both are left out. The distance is computed
    here, from the factors of the covariances: unlike the usual matrix square root of their product this stays exact
    when a covariance is singular, as with fewer than 513 molecules. Such small sets give large values that compare only
    with sets of the same size.
    """
    sides = (list(references), list(predictions))
    kept = [[smiles for smiles in side if smiles] for side in sides]
    everything = kept[0] + kept[1]
    smallest = min(map(len, kept))
    value, statistics, note = math.nan, None, ""
    if smallest < 2:
        note = f"FCD needs two molecules on each side, got {len(kept[0])} references and {len(kept[1])} predictions"
    else:
        distinct: dict[str | None, int] = {smiles: i for i, smiles in enumerate(dict.fromkeys(everything))}
        activations = (chemnet or ChemNet()).activations([smiles for smiles in distinct if smiles])
        value = frechet_distance(
            *(activations[[distinct[smiles] for smiles in side]].astype(np.float64) for side in kept)
        )
        statistics = FCDStatistics(
            activations, *(np.array([distinct.get(smiles, -1) for smiles in side], dtype=np.int64) for side in sides)
        )
        if smallest < FCD_FULL_RANK:
            note = (
                f"fewer than {FCD_FULL_RANK} molecules ({smallest}): the covariance is singular, compare "
                "only sets of the same size"
            )
    counts: dict[str, str | int] = {
        "fcd_references": len(kept[0]),
        "fcd_predictions": len(kept[1]),
        "fcd_dropped_empty": sum(smiles == "" for side in sides for smiles in side),
        "fcd_over_349_characters": sum(len(smiles) >= FCD_WIDTH for smiles in everything),
        "fcd_several_fragments": sum("." in smiles for smiles in everything),
        "fcd_note": note,
    }
    return FCD(value, counts, statistics)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Squared Fréchet distance of Gaussians fitted to two samples, shapes (n, d) and (m, d), n, m >= 2."""
    difference = x.mean(axis=0) - y.mean(axis=0)
    # With covariances X = P'P and Y = Q'Q, Tr sqrt(XY) is the sum of the singular values of PQ'.
    centred = ((side - side.mean(axis=0)) / np.sqrt(len(side) - 1) for side in (x, y))
    p, q = (np.asarray(np.linalg.qr(side, mode="r")) for side in centred)
    cross = np.linalg.svd(p @ q.T, compute_uv=False).sum()
    return float(difference @ difference + np.sum(p**2) + np.sum(q**2) - 2.0 * cross)


def fcd_influence(fcd: FCDStatistics) -> np.ndarray:
    """How much each row moves FCD, shape (n,): the derivative by the row's weight, which sums to 0.

    With X and Y the centred activations over sqrt(size - 1), the term Tr sqrt(cov X cov Y) is the sum of the
    singular values of X Y'; its derivative by the weight of row i of X is half the diagonal entry i of
    sqrt(XY'YX'), so one decomposition gives all of them (the infinitesimal jackknife; Efron 1982, chapter 6).
    """
    activations = np.asarray(fcd.activations, dtype=float)
    sides = (fcd.references, fcd.predictions)
    rows = [np.flatnonzero(side >= 0) for side in sides]
    values = [activations[side[kept]] for side, kept in zip(sides, rows, strict=True)]
    shift = values[0].mean(axis=0) - values[1].mean(axis=0)
    centred = [x - x.mean(axis=0) for x in values]
    bases, factors = zip(*(np.linalg.qr(x / math.sqrt(len(x) - 1)) for x in centred), strict=True)
    left, singular, right = np.linalg.svd(factors[0] @ factors[1].T, full_matrices=False)
    cross = singular.sum()
    influence = np.zeros(len(sides[0]))
    for sign, kept, x, basis, factor, turn in zip((1, -1), rows, centred, bases, factors, (left, right.T), strict=True):
        spread, size = np.sum(factor**2), len(x)
        own = ((basis @ turn) ** 2) @ singular
        influence[kept] += (sign * 2 * x @ shift - spread + cross) / size + np.sum(x**2, axis=1) / (size - 1) - own
    return influence
