"""What a test set shares with other molecules: similarities by hand and by RDKit, scaffolds, duplicates, test sets."""

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from lmolt_utils.data.baselines import as_bits
from lmolt_utils.data.molecules import medoid, molecule, nearest, parse, rewritten
from lmolt_utils.data.overlap import initialisation_data, overlap_report, shared_table
from lmolt_utils.data.sample import property_key
from lmolt_utils.embedded.corpus import MODEL_ROWS, MODEL_SEED, generate
from lmolt_utils.figures.data import neighbour_similarity
from lmolt_utils.paths import root


def test_what_identifies_a_molecule_and_what_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    for text in ("not a molecule", "", "C1CC", "\ud800", None):
        assert parse(text) is molecule(text) is None  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", ""), "read quietly"
    found = molecule("OCCc1ccccc1")
    assert found is not None
    assert (found.canonical, found.scaffold, found.formula) == ("OCCc1ccccc1", "c1ccccc1", "C8H10O")
    assert found.inchikey == "WRMNZCZEMHIOCP-UHFFFAOYSA-N"  # 2-phenylethanol, PubChem CID 6054


def test_another_smiles_is_of_the_same_molecule() -> None:
    known = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", r"CC/C=C\C[C@@H](N)C(=O)O", "C[N+](=O)[O-].Cl"]
    for smiles in known:
        other = rewritten(smiles, seed=0)
        assert other == rewritten(smiles, seed=0) != smiles
        assert Chem.MolToInchi(Chem.MolFromSmiles(other)) == Chem.MolToInchi(Chem.MolFromSmiles(smiles))
    assert len({rewritten(known[1], seed) for seed in range(5)}) > 1
    for only in ("C", "no molecule", ""):
        assert rewritten(only, seed=0) == only, "what has no other form stays"


def test_similarity_by_hand() -> None:
    """Ethanol has 6 environments up to radius 2, propanol 8; CH3, CH2, OH, CH3-C and HO-C are in both."""
    ethanol, propanol, water = (found.fingerprint for text in ("CCO", "CCCO", "O") if (found := molecule(text)))
    assert nearest(ethanol, [water, propanol, propanol]) == (1, pytest.approx(5 / (6 + 8 - 5))), "the first of equals"
    assert nearest(propanol, [ethanol, propanol]) == (1, 1.0)
    with pytest.raises(ValueError, match="empty"):
        nearest(ethanol, [])
    (one, empty), (other, none) = as_bits([{"x", "y", "z"}, set()], [{"y", "z", "w"}, set()])
    assert nearest(one, [none, other]) == (1, 0.5)
    assert nearest(empty, [none, other]) == (0, 0.0)


def test_medoid_is_the_most_central_and_counts_copies() -> None:
    (sets,) = as_bits([{"a"}, {"b"}, {"b"}, {"a", "b"}])
    # Means over the four: a .375, b .625 (twice), both .625; of equals the first.
    assert medoid(sets) == 1
    assert medoid(sets, among=[0, 3]) == 3


def test_counts_by_hand() -> None:
    test = pd.DataFrame(
        [
            ("a", "OCC", "p|q", "It is p."),  # the same molecule written otherwise, same set in another order
            ("b", "Oc1ccccn1", "r", "It is r."),  # a tautomer: one InChIKey, two canonical SMILES
            ("c", "CCc1ccccc1", "", "new"),  # the scaffold only; no property set
            ("d", "CCCCC", "P", "It  is q."),  # acyclic: no scaffold to share with ethanol
        ],
        columns=["id", "molecule", "properties", "caption"],
    )
    assert property_key("Q| p") == property_key("P|q") == "p|q"
    train = pd.DataFrame(
        {
            "molecule": ["CCO", "O=c1cccc[nH]1", "Cc1ccccc1", "CCO"],
            "properties": ["q|p", "s", "t", "q|p"],
            "caption": ["It is p.", "x", "y", "It is q."],
        }
    )
    report = overlap_report(test, {"training": train, "bare": train.assign(properties=""), "nobody": train.head(0)})
    found = report.counts.set_index(["reference", "by"])
    pairs = {by: (row["seen"], row["of"]) for (name, by), row in found.iterrows() if name == "training"}
    assert pairs == {
        "canonical SMILES": (1, 4),
        "InChIKey": (2, 4),
        "scaffold": (1, 2),  # 2-hydroxypyridine's scaffold is pyridine, its tautomer's pyridone
        "property set": (1, 3),
        "caption": (2, 4),
    }
    assert found.loc[("bare", "property set"), "of"] == 0, "nothing to compare is not nothing shared"
    assert np.isnan(found.loc[("bare", "property set"), "share"])
    table = shared_table(report.counts)
    assert table.loc["training", "caption"] == "2 of 4 (50 %)"
    assert (table.loc["nobody"] == "nothing to compare").all()
    near = report.neighbours().loc["training"]
    assert (near["of"], near["share = 1"]) == (4, 1 / 4)
    assert near["mean"] == pytest.approx(report.similarities["training"].mean())
    figure, _ = neighbour_similarity(report.similarities[["id", "nobody"]])
    assert "nothing to compare" in figure.legends[0].get_texts()[0].get_text()


def test_what_the_initial_models_were_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = generate(200, 3)
    monkeypatch.setattr("lmolt_utils.data.overlap.MODEL_ROWS", 150)  # the card states 6,000, which takes seconds
    for model, frame in (("language-plus-molecules/Meditron7b", corpus), ("embedded:cap2mol", generate(150, 0))):
        found = initialisation_data(corpus, model)["molecule"]
        assert found.tolist() == frame.loc[frame["split"] == "train", "molecule"].tolist()
    card = root() / "lmolt_utils" / "embedded" / "models" / "cap2mol" / "README.md"
    assert f"embedded corpus, {MODEL_ROWS} molecules, seed {MODEL_SEED}, training split" in card.read_text()
