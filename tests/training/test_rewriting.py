"""Another SMILES of the same molecule, and captions for it."""

import pytest
from rdkit import Chem

from lmolt_utils.training.rewriting import rewritten


@pytest.mark.parametrize("smiles", ["CCO", "CC(=O)Oc1ccccc1C(=O)O", r"CC/C=C\C[C@@H](N)C(=O)O", "C[N+](=O)[O-].Cl"])
def test_it_is_the_same_molecule_in_other_words(smiles: str) -> None:
    other = rewritten(smiles, seed=0)
    assert other != smiles
    assert Chem.MolToInchi(Chem.MolFromSmiles(other)) == Chem.MolToInchi(Chem.MolFromSmiles(smiles))
    assert other == rewritten(smiles, seed=0)


def test_what_has_no_other_form_stays() -> None:
    assert [rewritten(text, seed=0) for text in ("C", "no molecule", "")] == ["C", "no molecule", ""]
    assert len({rewritten("CC(=O)Oc1ccccc1C(=O)O", seed) for seed in range(5)}) > 1
