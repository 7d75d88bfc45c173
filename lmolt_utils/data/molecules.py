"""The one SMILES reader, what identifies a molecule (canonical form, scaffold, InChIKey), and which are most alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from rdkit import Chem, rdBase
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.DataStructs import BulkTanimotoSimilarity, ExplicitBitVect

#: Random walks through a molecule that are tried for another SMILES of it.
TRIES = 10
_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)


def parse(smiles: str) -> Chem.Mol | None:
    """RDKit's molecule; ``None`` for what it cannot read and for text without atoms. Never raises, never logs."""
    with rdBase.BlockLogs():
        try:
            mol = Chem.MolFromSmiles(smiles)
        except Exception:  # text without a UTF-8 form, or no text at all
            return None
    return mol if mol is not None and mol.GetNumAtoms() else None


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
        with rdBase.BlockLogs():
            try:
                return str(Chem.MolToInchiKey(parse(self.canonical)))
            except Exception:  # InChI refuses some molecules that RDKit accepts, with errors of several kinds
                return ""


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
