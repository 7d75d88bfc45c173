"""Molecule metrics against values by hand, RDKit, fcd_torch, and what the official scripts print of made-up ones."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from rdkit import Chem

from lmolt_utils.data.molecules import features
from lmolt_utils.metrics.fcd import chemnet, chemnet_network, frechet_chemnet_distance, frechet_distance
from lmolt_utils.metrics.molecules import SIMILARITIES, molecule_scores


def molecule_metrics(references: list[str], outputs: list[str], invalid: Any = "lpm24") -> dict[str, float]:
    return molecule_scores(references, outputs, invalid, fcd=False).metrics


# ---- by hand ----


def test_tanimoto_by_hand() -> None:
    # Morgan, radius 2, counts. Ethane: CH3 twice, its neighbourhood once (both ends cover the one bond).
    # Propane: CH3 twice, CH2 once, an end's neighbourhood twice, the middle's once. In common: CH3, twice.
    # RDK sets two bits for each distinct path. Ethane has C-C; propane has C-C and C-C-C.
    scores = molecule_metrics(["CC"], ["CCC"])
    assert scores["Morgan"] == pytest.approx(2 / (3 + 6 - 2))
    assert scores["RDK"] == pytest.approx(2 / 4)
    # Keys: water has O only, ethane CH3 and two CH3 and so on, never O.
    assert molecule_metrics(["O"], ["CC"])["MACCS"] == 0
    # Decane and undecane have the same kinds of environment (as bits they would score 1), in other numbers.
    # Decane: 10 atoms, 10 environments of radius 1, 8 of radius 2 (the ends' repeat ones of radius 1).
    # Undecane: 11, 11 and 9, with all of decane's among them.
    assert molecule_metrics(["C" * 10], ["C" * 11])["Morgan"] == pytest.approx(28 / 31)
    methane = molecule_metrics(["C"], ["C"])  # it has no path for RDK, and RDKit says 0
    assert (methane["MACCS"], methane["RDK"], methane["Morgan"], methane["Exact"]) == (1, 0, 1, 1)


def test_exact_is_inchi_equality() -> None:
    pairs = [
        ("OCC", "CCO", 1),
        ("Oc1ccccn1", "O=c1cccc[nH]1", 1),  # tautomers that share a standard InChI
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", 0),
        ("CCO", "COC", 0),  # same composition
        ("*CCO", "OCC*", 1),  # InChI has no name for an open valence: by canonical SMILES
        ("*CCO", "*C(C)O", 0),
        ("CCO", "CCO(", 0),
        ("CCO", "CCO is ethanol", 1),  # the parser stops at the space
    ]
    references, outputs, expected = zip(*pairs, strict=True)
    scores = molecule_scores(references, outputs, fcd=False)
    assert scores.samples["Exact"].tolist() == list(expected)
    assert scores.samples["Levenshtein"].tolist()[-1] == 11, "the text counts whole"


def test_conventions_for_invalid_outputs() -> None:
    """Of some outputs, and of all."""
    references, outputs = ["CC", "CCO", "CCN", "CCC"], ["CCC", "C1CC", "CCN", "not a molecule"]
    zero, left_out = (molecule_scores(references, outputs, convention) for convention in ("lpm24", "molt5"))
    assert zero.metrics["Validity"] == left_out.metrics["Validity"] == 0.5
    assert zero.samples["RDK"].tolist() == [0.5, 0, 1, 0]
    assert zero.metrics["RDK"] == pytest.approx(1.5 / 4)
    assert left_out.metrics["RDK"] == pytest.approx(1.5 / 2)
    for name in ("BLEU", "Exact", "Levenshtein", "FCD"):
        assert zero.metrics[name] == left_out.metrics[name]
    zero, left_out = (molecule_scores(["CCO", "CC"], ["C1CC", "\ud800"], of) for of in ("lpm24", "molt5"))
    assert [zero.metrics[name] for name in (*SIMILARITIES, "Validity", "Exact")] == [0] * 5
    assert all(math.isnan(left_out.metrics[name]) for name in (*SIMILARITIES, "FCD"))
    assert "2 references and 0 predictions" in str(zero.conventions["fcd_note"])


def test_uniqueness_and_unreadable_references() -> None:
    scores = molecule_scores(["junk", "CC", "CC", "CC"], ["CC", "CC", "C1CC", "C-C"], fcd=False)
    assert scores.metrics["Validity"] == 3 / 4
    assert scores.metrics["Uniqueness"] == pytest.approx(2 / 3)  # of strings: "C-C" is not "CC"
    assert (scores.conventions["unparsable_references"], scores.samples["RDK"].tolist()) == (1, [0, 1, 0, 1])
    assert math.isnan(molecule_metrics(["CC"], ["C1CC"])["Uniqueness"])
    assert molecule_metrics(["junk", "CC"], ["CC", "CC"], "molt5")["RDK"] == 1


def test_empty_output_is_a_valid_empty_molecule_outside_fcd() -> None:
    scores = molecule_scores(["CCO", "CCO", "CCN"], ["", "CCO", "CCN"])
    assert scores.samples["Validity"].tolist() == [1, 1, 1]
    assert [scores.samples[name][0] for name in ("Exact", "MACCS", "RDK", "Morgan")] == [0, 0, 0, 0]
    counts = scores.conventions
    assert (counts["fcd_references"], counts["fcd_predictions"], counts["fcd_dropped_empty"]) == (3, 2, 1)


# ---- what RDKit cannot finish ----


def test_a_molecule_with_too_many_paths_has_no_path_fingerprint() -> None:
    """Twelve atoms that are all bonded to each other: it parses, and has more paths than RDKit can list."""
    labels = [""] * 12
    for number, (i, j) in enumerate(((a, b) for a in range(12) for b in range(a + 2, 12)), start=1):
        labels[i], labels[j] = f"{labels[i]}%({number})", f"{labels[j]}%({number})"
    outputs = ["CCN", "".join(f"*{label}" for label in labels), "CCO"]
    scores = molecule_scores(["CCO"] * 3, outputs, fcd=False)
    assert (scores.conventions["rdkit_gave_up"], scores.metrics["Validity"]) == (1, 1)
    assert scores.samples["RDK"].tolist()[1:] == [0, 1]
    assert features(outputs[1]).MACCS is not None
    left_out = molecule_scores(["CCO"] * 3, outputs, "molt5", fcd=False)
    assert np.isnan(left_out.samples["RDK"]).tolist() == [False, True, False]


# ---- FCD ----


def test_chemnet_gives_the_same_bits_whatever_was_asked_before() -> None:
    smiles = [f"{'C' * n}{end}" for n in range(1, 12) for end in ("O", "N", "c1ccccc1", "C(=O)O")]
    whole = chemnet(smiles, {})
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            met: dict[str, Any] = {}
            for some in (smiles[40:], smiles[7:8], smiles[3:20]):
                chemnet(some, met)
            assert chemnet(smiles, met).tobytes() == whole.tobytes()
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)


def test_fcd_formula_on_known_gaussians() -> None:
    # Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2, here (3, 0), variances (2, 8) and (8, 2).
    x = np.array([[1, 0], [-1, 0], [0, 2], [0, -2]]) * math.sqrt(3)
    y = x[:, ::-1] + [3, 0]
    assert frechet_distance(x, y) == pytest.approx(9 + 2 * (math.sqrt(2) - math.sqrt(8)) ** 2)


def test_fcd_counts_what_it_cannot_read_in_full() -> None:
    _, statistics, counts = frechet_chemnet_distance(["C" * 349, "C" * 350, "CC.O"], ["CC", "CCO", "", None])
    assert list(counts.values())[:5] == [3, 2, 1, 1, 1]
    assert statistics is not None
    assert statistics.references.tolist() == [0, 1, 2]
    assert statistics.predictions.tolist() == [3, 4, -1, -1]
    first_only, _, counts = frechet_chemnet_distance(["CC.O", "CCO"], ["CCO", "CC"])
    assert first_only == pytest.approx(0, abs=1e-9)  # ChemNet reads the first fragment
    assert "singular" in counts["fcd_note"]


# ---- the official scripts ----

#: References and outputs. What L+M-24's mol_translation_metrics.py (a10dbee) and fingerprint_metrics.py (132c421) print
#: of them stands below; in the first an empty output and an unreadable one count as described in molecule_scores.
MADE_UP = (
    ("CCO", "OCC"),
    ("CC(=O)Oc1ccccc1C(=O)O", "CC(=O)Oc1ccccc1C(=O)N"),
    ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),
    ("CCCCCCCC/C=C\\CCCCCCCC(=O)O", "CCCCCCCCC=CCCCCCCCC(=O)O"),
    ("CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "Cn1cnc2c1c(=O)n(C)c(=O)n2C"),
    ("Oc1ccccn1", "O=c1cccc[nH]1"),
    ("CCCCO", "CCCCO is an alcohol"),
    ("c1ccccc1", "c1ccccc"),
    ("CCN", ""),
    ("C", "C"),
    ("[Na+].[Cl-]", "[Na+].[Br-]"),
    ("CCO", "OCC"),
    ("CC#N", "not a molecule"),
)
OFFICIAL = {
    "BLEU": 0.5532648334220205,
    "Exact": 6 / 13,
    "Levenshtein": 60 / 13,
    "Validity": 11 / 13,
    "Uniqueness": 10 / 11,
    "MACCS": 0.7036630036630036,
    "RDK": 0.5302210494518187,
    "Morgan": 0.6441273779983457,
}


def test_molecules_are_scored_as_by_the_official_scripts() -> None:
    references, outputs = map(list, zip(*MADE_UP, strict=True))
    assert molecule_metrics(references, outputs) | OFFICIAL == pytest.approx(
        molecule_metrics(references, outputs), abs=1e-12, nan_ok=True
    )
    # MolT5's script has the same sums over the eleven rows where both sides parse.
    molt5 = molecule_metrics(references, outputs, "molt5")
    for name in SIMILARITIES:
        assert molt5[name] == pytest.approx(OFFICIAL[name] * 13 / 11)


@pytest.mark.filterwarnings("ignore")  # fcd_torch's old numpy names
def test_fcd_is_fcd_torchs() -> None:
    ends = ("O", "N", "c1ccccc1", "C(=O)O", "Cl")
    references = [f"{'C' * n}{end}" for n in range(1, 9) for end in ends]
    outputs = [references[(7 * i) % 40] for i in range(36)] + ["C1CC", "not a molecule", "OCC", "CN(C)C"]
    canonical = [[Chem.CanonSmiles(text) for text in side] for side in (references, [*outputs[:36], *outputs[38:]])]
    # To 1e-3: with so few molecules fcd_torch's own matrix root is off by that much.
    assert molecule_scores(references, outputs).metrics["FCD"] == pytest.approx(chemnet_network()(*canonical), abs=1e-3)
