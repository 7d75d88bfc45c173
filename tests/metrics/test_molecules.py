"""Molecule metrics against values computed by hand, RDKit and fcd_torch, and what the official scripts print."""

import math
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fcd_torch import FCD
from rdkit import Chem, rdBase

from benchmarks.scoring import official_molecules
from lmolt_utils.data.molecules import parse
from lmolt_utils.errors import CompanionError
from lmolt_utils.metrics import featurise
from lmolt_utils.metrics.featurise import Featuriser
from lmolt_utils.metrics.molecules import (
    SIMILARITIES,
    ChemNet,
    chemnet_network,
    frechet_chemnet_distance,
    frechet_distance,
    molecule_scores,
)
from tests.metrics.shared_data import oracle, read_pairs


def molecule_metrics(references: list[str], outputs: list[str], invalid: Any = "lpm24") -> dict[str, float]:
    return molecule_scores(references, outputs, invalid, fcd=False).metrics


# ---- by hand ----


def test_character_bleu_by_hand() -> None:
    scores = molecule_metrics(["CNOS", "CNOS"], ["CNOS", "CNOF"])
    assert scores["BLEU"] == pytest.approx((7 / 8 * 5 / 6 * 3 / 4 * 1 / 2) ** (1 / 4))


def test_levenshtein_is_a_mean_over_all_rows() -> None:
    # One substitution; unreadable: four letters for three, all different; all of three gone.
    scores = molecule_scores(["CCO", "CCO", "CCO"], ["CCN", "junk", ""], fcd=False)
    assert scores.samples["Levenshtein"].tolist() == [1, 4, 3]
    assert scores.metrics["Levenshtein"] == pytest.approx(8 / 3)


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
    references, outputs = ["CC", "CCO", "CCN", "CCC"], ["CCC", "C1CC", "CCN", "not a molecule"]
    zero, left_out = (molecule_scores(references, outputs, convention) for convention in ("lpm24", "molt5"))
    assert zero.metrics["Validity"] == left_out.metrics["Validity"] == 0.5
    assert zero.samples["RDK"].tolist() == [0.5, 0, 1, 0]
    assert zero.metrics["RDK"] == pytest.approx(1.5 / 4)
    assert left_out.metrics["RDK"] == pytest.approx(1.5 / 2)
    for name in ("BLEU", "Exact", "Levenshtein", "FCD"):
        assert zero.metrics[name] == left_out.metrics[name]
    with pytest.raises(ValueError, match="unknown convention"):
        molecule_scores(references, outputs, "zero")  # type: ignore[arg-type]


def test_uniqueness_and_unreadable_references() -> None:
    scores = molecule_scores(["junk", "CC", "CC", "CC"], ["CC", "CC", "C1CC", "C-C"], fcd=False)
    assert scores.metrics["Validity"] == 3 / 4
    assert scores.metrics["Uniqueness"] == pytest.approx(2 / 3)  # of strings: "C-C" is not "CC"
    assert (scores.counts["unparsable_references"], scores.samples["RDK"].tolist()) == (1, [0, 1, 0, 1])
    assert math.isnan(molecule_metrics(["CC"], ["C1CC"])["Uniqueness"])
    assert molecule_metrics(["junk", "CC"], ["CC", "CC"], "molt5")["RDK"] == 1


def test_all_invalid() -> None:
    references, outputs = ["CCO", "CC"], ["C1CC", "\ud800"]
    zero, left_out = molecule_scores(references, outputs), molecule_metrics(references, outputs, "molt5")
    assert [zero.metrics[name] for name in ("MACCS", "RDK", "Morgan", "Validity", "Exact")] == [0] * 5
    assert all(math.isnan(left_out[name]) for name in ("MACCS", "RDK", "Morgan"))
    assert math.isnan(zero.metrics["FCD"])
    assert zero.fcd is None
    assert "2 references and 0 predictions" in str(zero.counts["fcd_note"])


def test_empty_output_is_a_valid_empty_molecule_outside_fcd() -> None:
    scores = molecule_scores(["CCO", "CCO", "CCN"], ["", "CCO", "CCN"])
    assert scores.samples["Validity"].tolist() == [1, 1, 1]
    assert [scores.samples[name][0] for name in ("Exact", "MACCS", "RDK", "Morgan")] == [0, 0, 0, 0]
    counts = scores.counts
    assert (counts["fcd_references"], counts["fcd_predictions"], counts["fcd_dropped_empty"]) == (3, 2, 1)


def test_no_garbage_raises_and_rdkit_is_silent_only_inside(capfd: pytest.CaptureFixture[str]) -> None:
    before = rdBase.LogStatus()
    garbage = ["(" * 3000, "\0", "C\0C", "é", "   ", "['CCO']", "CCO\\n", "\ud800", "CCO |bad", "C" * 2000]
    scores = molecule_scores(["*CC"] * len(garbage), garbage, fcd=False)
    assert scores.samples["Validity"].tolist() == [0] * 9 + [1]
    assert 0 < scores.metrics["Levenshtein"] < math.inf
    assert (capfd.readouterr().err, rdBase.LogStatus()) == ("", before)


def test_order_and_side_do_not_matter() -> None:
    references = ["CCO", "c1ccccc1", "CCN(CC)CC", "CC(=O)O", "CCCl"]
    outputs = ["CCN", "c1ccncc1", "CCN(C)C", "CC(=O)O", "C1CC"]
    scores = molecule_scores(references, outputs)
    turned = molecule_scores(references[::-1], outputs[::-1])
    swapped = molecule_scores(outputs, references)
    for name, value in scores.metrics.items():
        assert turned.metrics[name] == pytest.approx(value, abs=1e-6), name
    for name in ("MACCS", "RDK", "Morgan", "Levenshtein", "Exact"):
        assert swapped.samples[name].tolist() == scores.samples[name].tolist(), name
    assert swapped.metrics["FCD"] == pytest.approx(scores.metrics["FCD"], abs=1e-6)


# ---- workers ----


def complete(atoms: int) -> str:
    """SMILES of atoms that are all bonded to each other: it parses, and has more paths than RDKit can list."""
    labels: list[str] = [""] * atoms
    pairs = [(i, j) for i in range(atoms) for j in range(i + 2, atoms)]
    for number, pair in enumerate(pairs, start=1):
        for atom in pair:
            labels[atom] += f"%({number})"
    return "".join(f"*{label}" for label in labels)


def test_a_molecule_that_rdkit_hangs_on_is_left_after_its_time() -> None:
    hangs, more = complete(12), ["C" * n for n in range(4, 140)]  # three tasks
    outputs = ["CCN", hangs, "CCO", hangs, *more]
    featuriser = Featuriser(workers=1, seconds=0.5)
    scores = molecule_scores(["CCO"] * len(outputs), outputs, featuriser=featuriser, fcd=False)
    assert scores.counts["rdkit_gave_up"] == 2
    assert scores.metrics["Validity"] == 1
    assert scores.samples["RDK"].tolist()[1:4] == [0, 1, 0]
    assert scores.samples["RDK"][4:].min() > 0, "the others are not lost with it"
    assert featuriser.table[hangs].canonical, "its fingerprints are missing, not the molecule"
    left_out = molecule_scores(["CCO"] * 4, outputs[:4], "molt5", featuriser=featuriser, fcd=False)
    assert np.isnan(left_out.samples["RDK"]).tolist() == [False, True, False, True]
    assert left_out.metrics["RDK"] == pytest.approx(np.mean(left_out.samples["RDK"][[0, 2]]))


def test_workers_that_die_are_an_error_and_no_invalid_molecules(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    featurise._pool.cache_clear()
    monkeypatch.setattr(featurise, "_start_worker", os.abort)
    with pytest.raises(CompanionError, match="worker processes die"):
        molecule_scores(["CC"], ["CCO"], fcd=False)
    monkeypatch.undo()
    assert molecule_scores(["CC"], ["CC"], fcd=False).metrics["Exact"] == 1, "the next ones are new"


def test_workers_live_with_less_memory_than_they_would_take() -> None:
    # As on a cluster: a hard limit below the workers' own. The interpreter of this test itself stays as it is.
    program = (
        "from lmolt_utils.metrics.featurise import Featuriser as F; print(F(1).molecules(['CCO', 'C1CC'])['CCO'].valid)"
    )
    command = f'ulimit -v 2000000; exec {sys.executable} -c "{program}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_workers_start_where_the_main_module_has_no_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in some notebook kernels."""
    featurise._pool.cache_clear()
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace())
    assert molecule_scores(["CC"], ["CC"], fcd=False).metrics["Exact"] == 1


def test_rdkit_is_not_asked_about_endless_strings() -> None:
    # Each would take RDKit seconds, or all of its time.
    outputs = ["C" * 30_000, "c1ccccc1" * 2_500, "(" * 20_000, "CCO"]
    scores = molecule_scores(["CCO"] * 4, outputs, fcd=False)
    assert scores.counts["rdkit_gave_up"] == 3
    assert scores.samples["Validity"].tolist() == [0, 0, 0, 1]


# ---- FCD ----


def test_fcd_of_a_set_with_itself_is_zero() -> None:
    smiles = ["CCO", "c1ccccc1", "CC(=O)O", "CCO"]
    fcd = frechet_chemnet_distance(smiles, smiles[::-1])
    assert fcd.value == pytest.approx(0, abs=1e-9)
    assert "singular" in str(fcd.counts["fcd_note"])


def test_chemnet_gives_the_same_bits_whatever_was_asked_before() -> None:
    smiles = [f"{'C' * n}{end}" for n in range(1, 12) for end in ("O", "N", "c1ccccc1", "C(=O)O")]
    whole = ChemNet().activations(smiles)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            resumed = ChemNet()
            for some in (smiles[40:], smiles[7:8], smiles[3:20]):
                resumed.activations(some)
            assert resumed.activations(smiles).tobytes() == whole.tobytes()
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)


def test_fcd_formula_on_known_gaussians() -> None:
    # Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2, here (3, 0), variances (2, 8) and (8, 2).
    x = np.array([[1, 0], [-1, 0], [0, 2], [0, -2]]) * math.sqrt(3)
    y = x[:, ::-1] + [3, 0]
    assert frechet_distance(x, y) == pytest.approx(9 + 2 * (math.sqrt(2) - math.sqrt(8)) ** 2)


def test_fcd_counts_what_it_cannot_read_in_full() -> None:
    fcd = frechet_chemnet_distance(["C" * 349, "C" * 350, "CC.O"], ["CC", "CCO", "", None])
    assert list(fcd.counts.values())[:5] == [3, 2, 1, 1, 1]
    assert fcd.statistics is not None
    assert fcd.statistics.references.tolist() == [0, 1, 2]
    assert fcd.statistics.predictions.tolist() == [3, 4, -1, -1]
    first_only = frechet_chemnet_distance(["CC.O", "CCO"], ["CC", "CCO"])
    assert first_only.value == pytest.approx(0, abs=1e-9)  # ChemNet reads the first fragment


# ---- the official scripts ----


@pytest.mark.filterwarnings("ignore")  # nltk's advice to smooth; fcd_torch's old numpy names
def test_molecules_are_the_official_scripts_on_made_up_pairs() -> None:
    """The scripts' own steps (every string parsed anew, a call of a library per row), written out."""
    ends = ("O", "N", "c1ccccc1", "C(=O)O", "Cl")
    references = [f"{'C' * n}{end}" for n in range(1, 9) for end in ends]
    outputs = [references[(7 * i) % 40] for i in range(36)] + ["C1CC", "not a molecule", "OCC", "N(C)C"]
    scores = molecule_scores(references, outputs)
    official = official_molecules(list(zip(references, outputs, strict=True)), chemnet_network())
    assert scores.metrics["FCD"] == pytest.approx(official.pop("FCD"), abs=1e-3)
    assert scores.metrics == pytest.approx(scores.metrics | official, abs=1e-12, nan_ok=True)


def test_molecules_agree_with_the_official_script_of_lpm24() -> None:
    official = oracle("lpm24/oracle_example.json")["caption2smiles"]
    references, outputs = read_pairs("lpm24/caption2smiles_example.tsv")
    scores = molecule_scores(references, outputs)
    assert len(references) == 200
    for name in ("BLEU", "Exact", "Levenshtein", "MACCS", "RDK", "Morgan", "Validity", "Uniqueness"):
        assert scores.metrics[name] == pytest.approx(official[name], abs=1e-6), name
    readable = [[Chem.MolToSmiles(mol) for mol in map(parse, side) if mol] for side in (references, outputs)]
    assert [scores.counts["fcd_references"], scores.counts["fcd_predictions"]] == [200, 174] == list(map(len, readable))
    # Relative: with 174 molecules fcd_torch's own matrix root is off by some 1e-5 of 24.4.
    assert scores.metrics["FCD"] == pytest.approx(FCD(canonize=False)(*readable), rel=1e-6)


@pytest.mark.slow
def test_molecules_agree_with_the_official_script_of_molt5_in_both_conventions() -> None:
    official = oracle("molt5/oracle_molt5-large.json")["molt5-large-caption2smiles"]
    pairs, featuriser = read_pairs("molt5/molt5-large-caption2smiles.tsv.gz"), Featuriser()
    scores = molecule_scores(*pairs, "molt5", featuriser=featuriser)
    for name, value in official["metrics"].items():
        assert scores.metrics[name] == pytest.approx(value, abs=1e-6), name
    counts = scores.counts
    assert (counts["fcd_references"], counts["fcd_predictions"], counts["fcd_note"]) == (3300, 3163, "")
    zeros = molecule_scores(*pairs, "lpm24", featuriser=featuriser, fcd=False)
    for name in (*SIMILARITIES, "Validity"):
        assert zeros.metrics[name] == pytest.approx(official["lpm24_style"][name], abs=1e-6), name
    assert int(scores.samples["Exact"].sum()) == official["counts"]["inchi_equal"]
