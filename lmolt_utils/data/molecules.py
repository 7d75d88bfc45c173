"""The one SMILES reader, and what identifies a molecule: canonical form, scaffold, InChIKey, fingerprint."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from rdkit.Chem.Scaffolds import MurckoScaffold

FINGERPRINT_BITS = 2048
_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=FINGERPRINT_BITS)


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
    """One molecule: canonical isomeric SMILES, Bemis-Murcko scaffold (empty without a ring), formula, Morgan bits."""

    canonical: str
    scaffold: str
    formula: str
    fingerprint: bytes

    @cached_property
    def inchikey(self) -> str:
        """Empty where InChI has no name for it. The costliest feature, so it is worked out when first asked for.

        The molecule is read again then: kept, its 2 kB would slow down 160,000 molecules more than that does.
        """
        with rdBase.BlockLogs():
            try:
                return str(Chem.MolToInchiKey(parse(self.canonical)))
            except Exception:  # InChI refuses some molecules that RDKit accepts, with errors of several kinds
                return ""


def molecule(smiles: str) -> Molecule | None:
    """The features of the molecule that ``smiles`` stands for; ``None`` as :func:`parse`."""
    mol = parse(smiles)
    if mol is None:
        return None
    scaffold = MurckoScaffold.MurckoScaffoldSmiles(mol=mol) if mol.GetRingInfo().NumRings() else ""
    return Molecule(
        canonical=Chem.MolToSmiles(mol),
        scaffold=scaffold,
        formula=CalcMolFormula(mol),
        fingerprint=DataStructs.BitVectToBinaryText(_MORGAN.GetFingerprint(mol)),
    )


class Molecules:
    """Molecules by SMILES, each distinct text parsed once however often it is asked for."""

    def __init__(self) -> None:
        self._known: dict[str, Molecule | None] = {}

    def __getitem__(self, smiles: str) -> Molecule | None:
        if smiles not in self._known:
            self._known[smiles] = molecule(smiles)
        return self._known[smiles]

    def of(self, smiles: Iterable[str]) -> list[Molecule | None]:
        """The molecules of many SMILES, in order."""
        return [self[text] for text in smiles]

    def __len__(self) -> int:
        return len(self._known)


def fingerprints(molecules: Iterable[Molecule]) -> np.ndarray:
    """Morgan fingerprints (radius 2) of molecules as packed bits, shape (n, 256)."""
    rows = [found.fingerprint for found in molecules]
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), FINGERPRINT_BITS // 8)
