"""The one SMILES reader and all features: what identifies a molecule, what metrics compare, which are most alike."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.rdMolDescriptors import CalcMolFormula, GetMACCSKeysFingerprint
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.DataStructs import BulkTanimotoSimilarity, ExplicitBitVect

#: Random walks through a molecule that are tried for another SMILES of it.
TRIES = 10
#: Characters: RDKit is not asked about longer strings, for which its time grows with the square of the length. The
#: longest molecule of L+M-24 has 990.
LONGEST = 5_000
#: Walks of seven bonds: with more, RDKit's path fingerprint takes minutes and fills the memory. Ten wildcard atoms that
#: are all bonded to each other have 48 million, the densest molecule of ChEBI-20 has 0.2 million.
MOST_WALKS = 1_000_000

_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
_COUNTS = rdFingerprintGenerator.GetMorganGenerator(radius=2)


def parse(smiles: str) -> Chem.Mol | None:
    """RDKit's molecule; ``None`` for what it cannot read and for text without atoms. Never raises, never logs."""
    with rdBase.BlockLogs():
        try:
            mol = Chem.MolFromSmiles(smiles)
        except Exception:  # text without a UTF-8 form, or no text at all
            return None
    return mol if mol is not None and mol.GetNumAtoms() else None


def _named(name: Callable[[Any], object], mol: Chem.Mol | None) -> str:
    """What InChI calls a molecule; empty where it refuses what RDKit accepts, with errors of several kinds."""
    with rdBase.BlockLogs():
        try:
            return str(name(mol))
        except Exception:
            return ""


# ---- what identifies a molecule ----


@dataclass(frozen=True)
class Molecule:
    """Canonical isomeric SMILES, Bemis-Murcko scaffold (empty without a ring), formula, Morgan bits (radius 2)."""

    canonical: str
    scaffold: str
    formula: str
    fingerprint: ExplicitBitVect

    @cached_property
    def inchikey(self) -> str:
        """Empty where InChI has no name for it; the costliest feature, so it is worked out when first asked for."""
        return _named(Chem.MolToInchiKey, parse(self.canonical))


@lru_cache(maxsize=500_000)  # about 1 kB each; the overlap report and the dataset card ask for the same molecules
def molecule(smiles: str) -> Molecule | None:
    """What identifies the molecule that ``smiles`` stands for; ``None`` as :func:`parse`."""
    if (mol := parse(smiles)) is None:
        return None
    with rdBase.BlockLogs():
        return Molecule(
            canonical=Chem.MolToSmiles(mol),
            scaffold=MurckoScaffold.MurckoScaffoldSmiles(mol=mol) if mol.GetRingInfo().NumRings() else "",
            formula=CalcMolFormula(mol),
            fingerprint=_MORGAN.GetFingerprint(mol),
        )


def molecules(texts: Iterable[str]) -> list[Molecule]:
    """Those that can be read, as all of a corpus can."""
    return [found for found in map(molecule, texts) if found]


def rewritten(smiles: str, seed: int) -> str:
    """A random SMILES of the same molecule; ``smiles`` where no other is found (methane has none)."""
    if (mol := parse(smiles)) is None:
        return smiles
    same = Chem.MolToSmiles(mol)
    for number in range(TRIES):
        (text,) = Chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed * TRIES + number + 1)
        found = molecule(text)
        if text != smiles and found is not None and found.canonical == same:
            return str(text)
    return smiles


# ---- what metrics compare ----


@dataclass(frozen=True, eq=False)
class Features:
    """None where there is none; canonical is empty for the empty molecule; fingerprints: bits, bits, sparse counts.

    gave_up: RDKit was not asked, for the molecule or for its path fingerprint.
    """

    valid: bool = False
    gave_up: bool = False
    formula: str | None = None
    canonical: str | None = None
    MACCS: Any = None
    RDK: Any = None
    Morgan: Any = None


@lru_cache(maxsize=50_000)  # about 3 kB each
def features(smiles: str) -> Features:
    """The features of one string."""
    with rdBase.BlockLogs():
        # Officially, no output is a molecule without atoms.
        mol = None if len(smiles) > LONGEST else parse(smiles) if smiles else Chem.Mol()
        if mol is None:
            return Features(gave_up=len(smiles) > LONGEST)
        dense = _walks(mol) > MOST_WALKS
        return Features(
            valid=True,
            gave_up=dense,
            formula=CalcMolFormula(mol),
            canonical=Chem.MolToSmiles(mol),
            MACCS=GetMACCSKeysFingerprint(mol),
            RDK=None if dense else Chem.RDKFingerprint(mol),
            Morgan=_COUNTS.GetSparseCountFingerprint(mol),
        )


def _walks(mol: Chem.Mol) -> float:
    """Walks of seven bonds through a molecule."""
    ends = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()], dtype=np.int64).reshape(-1, 2)
    counts: np.ndarray = np.ones(mol.GetNumAtoms())
    for _ in range(7):
        counts = np.bincount(ends.ravel(), counts[ends[:, ::-1].ravel()], minlength=len(counts))
    return float(counts.sum())


@lru_cache(maxsize=50_000)
def inchi(smiles: str) -> str:
    """Empty where InChI has no name for the molecule."""
    return _named(Chem.MolToInchi, parse(smiles) if smiles else Chem.Mol())


# ---- which are most alike ----


def nearest(query: ExplicitBitVect, references: Sequence[ExplicitBitVect]) -> tuple[int, float]:
    """Number of the most similar reference by Tanimoto (Jaccard), of equals the first, and its similarity, 0 to 1.

    Two empty sets have similarity 0. Raises ``ValueError`` without references.
    """
    similarities = BulkTanimotoSimilarity(query, references)
    highest = max(similarities)
    return similarities.index(highest), float(highest)


def medoid(bits: Sequence[ExplicitBitVect], among: Sequence[int] | None = None) -> int:
    """Number of the row that is on average most similar to all rows; of equals the first.

    ``among``: the row numbers that are eligible, by default all. Time grows with the square of the rows.
    """
    totals = {row: sum(BulkTanimotoSimilarity(bits[row], bits)) for row in among or range(len(bits))}
    return max(totals, key=lambda row: round(totals[row], 6))
