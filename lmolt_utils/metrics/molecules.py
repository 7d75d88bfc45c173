"""Molecule metrics as the L+M-24 evaluation defines them.

BLEU, Exact, Levenshtein, similarity by MACCS, RDK and Morgan fingerprints, FCD and Validity.

What counts as a molecule is what RDKit makes of the raw output, as in the official scripts:
- text after the first whitespace is ignored by the parser, so "CCO is ethanol" is a valid ethanol, while BLEU
  and Levenshtein see the whole string;
- an empty output is the empty molecule: valid, similar to nothing, and left out of FCD;
- an output that does not parse is invalid: `lpm24` counts its similarities as 0, `molt5` leaves the row out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from rapidfuzz.distance import Levenshtein
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.rdMolDescriptors import CalcMolFormula, GetMACCSKeysFingerprint

from lmolt_utils.metrics.captions import bleu

MOLECULE_METRICS = ("BLEU", "Exact", "Levenshtein", "MACCS", "RDK", "Morgan", "FCD", "Validity")
SIMILARITIES = ("MACCS", "RDK", "Morgan")

InvalidConvention = Literal["lpm24", "molt5"]

FCD_WIDTH = 350  # tokens that ChemNet reads, the end mark among them
FCD_FULL_RANK = 513  # molecules from which a covariance of ChemNet's 512 activations can have full rank


def parse_smiles(smiles: str) -> Chem.Mol | None:
    """RDKit's molecule, or None for whatever it cannot read: never raises, never logs."""
    with rdBase.BlockLogs():
        try:
            return Chem.MolFromSmiles(smiles)
        except Exception:  # text that has no UTF-8 form, for one
            return None


class _Molecule:
    """One distinct string of a file: parsed once, each feature computed once, when first asked for."""

    def __init__(self, smiles: str) -> None:
        self.mol = parse_smiles(smiles)

    @cached_property
    def canonical(self) -> str:
        return Chem.MolToSmiles(self.mol)

    @cached_property
    def formula(self) -> str:
        return CalcMolFormula(self.mol)

    @cached_property
    def inchi(self) -> str:
        """Empty where InChI has no name for it (any-atom, more than 1,024 atoms)."""
        try:
            return Chem.MolToInchi(self.mol)
        except Exception:  # InChI refuses some molecules that RDKit accepts
            return ""

    @cached_property
    def MACCS(self) -> Any:  # noqa: N802 - named as the metric
        return GetMACCSKeysFingerprint(self.mol)

    @cached_property
    def RDK(self) -> Any:  # noqa: N802
        return Chem.RDKFingerprint(self.mol)

    @cached_property
    def Morgan(self) -> Any:  # noqa: N802
        return _morgan_generator().GetSparseCountFingerprint(self.mol)


@lru_cache(maxsize=1)
def _morgan_generator() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=2)


@dataclass(frozen=True)
class FCD:
    """Fréchet ChemNet Distance and what went into it.

    value: 0 is best, no upper bound; NaN where it is not defined (then `note` says why).
    references, predictions: molecules that went in. dropped: parsable but empty ones that did not.
    over_length: molecules of more than 349 characters, of which ChemNet may not read the end.
    fragments: molecules of several fragments, of which ChemNet reads the first.
    note: a warning for the reader, or empty.
    """

    value: float
    references: int
    predictions: int
    dropped: int
    over_length: int
    fragments: int
    note: str


@dataclass(frozen=True, eq=False)
class MoleculeScores:
    """metrics: corpus value per name of `MOLECULE_METRICS`, NaN where undefined.

    samples: per-row values, arrays of shape (n,), whose mean without NaN is the corpus value: Exact,
    Levenshtein, MACCS, RDK, Morgan, Validity. unparsable_references: rows whose reference RDKit cannot read.
    """

    metrics: dict[str, float]
    samples: dict[str, np.ndarray]
    fcd: FCD
    unparsable_references: int


def molecule_scores(
    references: Sequence[str], predictions: Sequence[str], invalid: InvalidConvention = "lpm24"
) -> MoleculeScores:
    """All molecule metrics of n pairs of SMILES strings.

    invalid: "lpm24" means similarities over all rows with 0 where one of the two does not parse (L+M-24's
    tables), "molt5" over the rows where both parse (MolT5's and ChEBI-20's tables), NaN where there is none.
    BLEU, Exact and Levenshtein (edits, lower is better) are over all rows, Validity is the share of outputs
    that parse.

    Exact is equality of InChI. Two molecules that InChI cannot name are equal only if their canonical SMILES
    are (the official script takes any two such molecules as equal; there is none in its published outputs).

    Raises ValueError where the lists are empty or differ in length, or for another convention.
    """
    if invalid not in ("lpm24", "molt5"):
        raise ValueError(f"unknown convention for invalid molecules {invalid!r}: give 'lpm24' or 'molt5'")
    if len(references) != len(predictions) or not references:
        raise ValueError(f"{len(references)} references and {len(predictions)} predictions: give n >= 1 of each")

    table = {smiles: _Molecule(smiles) for smiles in dict.fromkeys([*references, *predictions])}
    pairs = [(table[r], table[p]) for r, p in zip(references, predictions, strict=True)]
    missing = 0.0 if invalid == "lpm24" else math.nan
    with rdBase.BlockLogs():
        samples = {
            "Exact": np.array([_same_molecule(r, p) for r, p in pairs], dtype=float),
            "Levenshtein": np.array(
                [Levenshtein.distance(p, r) for r, p in zip(references, predictions, strict=True)],
                dtype=float,
            ),
        }
        for name in SIMILARITIES:
            samples[name] = np.array([_tanimoto(r, p, name, missing) for r, p in pairs], dtype=float)
        samples["Validity"] = np.array([p.mol is not None for _, p in pairs], dtype=float)
        fcd = frechet_chemnet_distance(
            [r.canonical for r, _ in pairs if r.mol is not None],
            [p.canonical for _, p in pairs if p.mol is not None],
        )

    values = {"BLEU": bleu(references, predictions, (4,))[0], "FCD": fcd.value}
    values |= {name: _mean(column) for name, column in samples.items()}
    return MoleculeScores(
        {name: values[name] for name in MOLECULE_METRICS},
        samples,
        fcd,
        sum(r.mol is None for r, _ in pairs),
    )


def _mean(column: np.ndarray) -> float:
    kept = column[~np.isnan(column)]
    return float(kept.mean()) if kept.size else math.nan


def _same_molecule(reference: _Molecule, prediction: _Molecule) -> bool:
    if reference.mol is None or prediction.mol is None:
        return False
    if reference is prediction:
        return True
    # InChI is the slow part; molecules of different composition cannot share one.
    if reference.formula != prediction.formula or reference.inchi != prediction.inchi:
        return False
    return bool(reference.inchi) or reference.canonical == prediction.canonical


def _tanimoto(reference: _Molecule, prediction: _Molecule, fingerprint: str, missing: float) -> float:
    """Tanimoto similarity of a pair, `missing` where one does not parse.

    Two empty fingerprints score 0, even of one and the same molecule (methane has no path for RDK): RDKit's
    own rule, and so the official value. "Equal strings score 1" would be a shortcut to another number.
    """
    if reference.mol is None or prediction.mol is None:
        return missing
    similarity = DataStructs.TanimotoSimilarity(getattr(reference, fingerprint), getattr(prediction, fingerprint))
    return float(similarity)


# ------------------------------------------------------------------------------------------------------ FCD


def frechet_chemnet_distance(references: Sequence[str], predictions: Sequence[str]) -> FCD:
    """FCD of two sets of canonical SMILES, as fcd 1.1 and fcd_torch define it (unpaired; duplicates count).

    ChemNet's activations come from fcd_torch. The Fréchet distance is computed here, from the factors of the
    covariances: unlike the usual matrix square root of their product (a SciPy call on its way out) this stays
    exact when a covariance is singular, as it is with fewer than 513 molecules. Such small sets give large
    values that compare only with sets of the same size.
    """
    kept_references = [smiles for smiles in references if smiles]
    kept_predictions = [smiles for smiles in predictions if smiles]
    everything = kept_references + kept_predictions
    smallest = min(len(kept_references), len(kept_predictions))
    value, notes = math.nan, []
    if smallest < 2:
        notes.append(
            f"FCD needs two molecules on each side, got {len(kept_references)} references and "
            f"{len(kept_predictions)} predictions"
        )
    else:
        distinct = {smiles: i for i, smiles in enumerate(dict.fromkeys(everything))}
        activations = chemnet_activations(list(distinct))
        value = _frechet_distance(
            activations[[distinct[smiles] for smiles in kept_references]],
            activations[[distinct[smiles] for smiles in kept_predictions]],
        )
        if smallest < FCD_FULL_RANK:
            notes.append(
                f"fewer than {FCD_FULL_RANK} molecules ({smallest}): the covariance is singular, compare "
                "only sets of the same size"
            )
    return FCD(
        value,
        len(kept_references),
        len(kept_predictions),
        dropped=len(references) + len(predictions) - len(everything),
        over_length=sum(len(smiles) >= FCD_WIDTH for smiles in everything),
        fragments=sum("." in smiles for smiles in everything),
        note="; ".join(notes),
    )


def chemnet_activations(canonical_smiles: Sequence[str]) -> np.ndarray:
    """ChemNet's last-but-one layer for non-empty canonical SMILES, float64 of shape (n, 512)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fcd_torch's uses of deprecated numpy names
        return np.asarray(_chemnet().get_predictions(list(canonical_smiles)), dtype=np.float64)


@lru_cache(maxsize=1)
def _chemnet() -> Any:
    import fcd_torch  # here, since it imports torch: captions do not need it

    return fcd_torch.FCD(device="cpu", n_jobs=1, canonize=False)


def _frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Squared Fréchet distance of Gaussians fitted to two samples, shapes (n, d) and (m, d), n, m >= 2."""
    difference = x.mean(axis=0) - y.mean(axis=0)
    # With covariances X = P'P and Y = Q'Q, Tr sqrt(XY) is the sum of the singular values of PQ'.
    p, q = _covariance_factor(x), _covariance_factor(y)
    cross = np.linalg.svd(p @ q.T, compute_uv=False).sum()
    return float(difference @ difference + np.sum(p**2) + np.sum(q**2) - 2.0 * cross)


def _covariance_factor(x: np.ndarray) -> np.ndarray:
    """P with P'P = cov(x), for x of shape (n, d): shape (min(n, d), d)."""
    return np.asarray(np.linalg.qr((x - x.mean(axis=0)) / np.sqrt(len(x) - 1), mode="r"))
