"""The one SMILES reader."""

from rdkit import Chem, rdBase


def parse(smiles: str) -> Chem.Mol | None:
    """RDKit's molecule; ``None`` for what it cannot read and for text without atoms. Never raises, never logs."""
    with rdBase.BlockLogs():
        try:
            mol = Chem.MolFromSmiles(smiles)
        except Exception:  # text without a UTF-8 form, or no text at all
            return None
    return mol if mol is not None and mol.GetNumAtoms() else None
