"""The shortcut audit against facts known from outside, and against pairs that leak by construction."""

import gzip
import os
import random
from pathlib import Path

import pandas as pd
import pytest

from lmolt_utils.negatives.shortcuts import absent_characters, audit, fold_groups, most_frequent, separability, surface

SHARED = Path(os.environ.get("LMOLT_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def _pairs(chosen: list[str], rejected: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"task": "mol2cap", "source": "C", "chosen": chosen, "rejected": rejected})


def _accuracies(pairs: pd.DataFrame) -> "pd.Series[float]":
    table = separability(pairs, seed=0).set_index("features")
    assert ((table["low"] <= table["accuracy"]) & (table["accuracy"] <= table["high"])).all()
    return table["accuracy"]


def test_surface_facts_by_hand() -> None:
    facts = surface(["ab", "ab", "bcde"])
    assert (facts["texts"], facts["distinct"], facts["characters"]) == (3, 2, "abcde")
    assert facts["distinct share"] == pytest.approx(2 / 3)
    assert facts["mean length"] == pytest.approx(8 / 3)
    table = audit(_pairs(["a", "b", "c"], ["a", "", "x"])).loc["mol2cap"]
    assert table.loc["rejected", ["equal to the other", "empty", "distinct"]].tolist() == [1, 1, 3]
    assert table.loc["chosen", "empty"] == 0


def test_absent_characters_and_repeats_by_hand() -> None:
    found = absent_characters(["a#b", "a##", "ab\\"], ["ab", "ba"])
    assert found.to_numpy().tolist() == [["#", 2, 2 / 3], ["\\", 1, 1 / 3]]
    assert absent_characters(["ab"], ["ab"]).empty
    assert most_frequent(["x", "y", "y", "z"], top=2).to_numpy().tolist() == [["y", 2, 0.5], ["x", 1, 0.25]]


def test_each_leak_shows_in_its_own_features() -> None:
    rng = random.Random(0)
    words = ["toxin", "nutrient", "emulsifier", "solvent", "floral", "waxy"]
    texts = [" ".join([*rng.choices(words, k=rng.randint(4, 8)), str(n)]) for n in rng.sample(range(1000, 9999), 300)]
    chosen, other = texts[:150], texts[150:]
    marked = _accuracies(_pairs(chosen, [text + "#" for text in other]))
    assert marked["character set"] == marked["character pairs"] == 1.0
    assert marked["length"] < 0.65
    longer = _accuracies(_pairs(chosen, [f"{text} {text}" for text in other]))
    assert longer["length"] > 0.9 > longer["character set"]
    # A letter before its neighbour: the same characters, the same lengths, other pairs.
    swapped = _accuracies(_pairs(chosen, [text.replace("to", "ot").replace("fl", "lf") for text in other]))
    assert swapped["character pairs"] > 0.85 > 0.65 > max(swapped["length"], swapped["character set"])
    fair = separability(_pairs(chosen, other), 0)
    assert (fair["low"] < 0.5).all()
    assert (fair["high"] > 0.42).all()
    assert (fair["held_together"] == "pair and text").all()


def test_a_text_that_repeats_is_not_learned_by_heart() -> None:
    """Ten random texts on each side, repeated: folds that split them would let a classifier remember each."""
    rng = random.Random(1)
    texts = ["".join(rng.choices("abcdefgh", k=30)) for _ in range(20)]
    pairs = _pairs(texts[:10] * 20, texts[10:] * 20)
    table = separability(pairs, 0)
    assert (table["groups"] == 10).all()
    assert (table["accuracy"] < 0.8).all()


def test_groups_hold_pairs_and_texts_together() -> None:
    groups, held = fold_groups(["a", "b", "c", "d", "e"], ["x", "x", "y", "z", "w"])
    assert held == "pair and text"
    assert groups[0] == groups[1] == groups[5] == groups[6], "two pairs with one rejected text"
    assert len(set(groups)) == 4
    groups, held = fold_groups(["a", "b", "c"], ["b", "c", "a"])
    assert held == "text"
    assert groups.tolist() == [0, 1, 2, 1, 2, 0], "a permutation chains all pairs together"
    texts = [f"the molecule is a thing {n} of many" for n in range(40)]
    table = separability(_pairs(texts, [*texts[1:], texts[0]]), 0)
    assert table["accuracy"].tolist() == [0.5] * 3, "and cannot be told apart"


def test_few_pairs_or_one_answer_have_no_accuracy_and_many_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert separability(_pairs(["a", "b"], ["c", "d"]), 0)["accuracy"].isna().all()
    assert separability(_pairs(["a", "b"], ["a", ""]), 0)["pairs"].tolist() == [0] * 3
    # All of a generator's equal answers lie in one fold: a classifier without them has one class to learn from.
    assert separability(_pairs([f"CCO{'C' * n}" for n in range(30)], ["CCO"] * 30), 0)["accuracy"].isna().all()
    monkeypatch.setattr("lmolt_utils.negatives.shortcuts.MOST_PAIRS", 50)
    texts = [str(n) for n in range(120)]
    table = separability(_pairs(texts[:60], texts[60:]), 0)
    assert (table["pairs"] == 50).all()
    assert table.equals(separability(_pairs(texts[:60], texts[60:]), 0))


def test_molt5_larges_official_outputs_give_themselves_away() -> None:
    """The numbers of audit D24; the same functions are tested on made-up texts above."""
    folder = SHARED / "lpm24"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: the shared task's submissions are not part of the repository")

    def answers(task: str) -> list[str]:
        packed = (folder / f"submission_{task}_langmolecules_MolT5-Large.txt.gz").read_bytes()
        return gzip.decompress(packed).decode().removesuffix("\n").split("\n")

    captions, outputs = answers("captioning"), answers("molgen")
    facts = list(map(surface, (captions, outputs)))
    assert [(fact["texts"], fact["distinct"]) for fact in facts] == [(21_942, 473), (21_805, 642)]
    assert not set("#\\") & set("".join(captions))
    molecules = pd.read_csv(folder / "molecule_properties.tsv.gz", sep="\t", quoting=3)["molecule"]
    missing = absent_characters(list(molecules), outputs).set_index("character")["share"]
    assert missing["\\"] == missing.max() == pytest.approx(0.343, abs=5e-4)
    assert missing["#"] == pytest.approx(0.025, abs=5e-4)
