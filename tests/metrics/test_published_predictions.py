"""Published predictions against what the official scripts print of them; skipped where LMOLT_SHARED_DATA has none.

The official scripts' values on made-up pairs, which need no data, stand in the tests of each metric. Only here:
SciBERT's own word pieces, FCD of sets large enough for a covariance of full rank, L+M-24's whole tree of properties.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lmolt_utils.data.captioner import knowledge
from lmolt_utils.data.sources import Source
from lmolt_utils.metrics.captions import SCIBERT, caption_scores, caption_tokenizer, meteor_matcher
from lmolt_utils.metrics.molecules import SIMILARITIES, molecule_scores
from lmolt_utils.metrics.prediction_files import read_predictions
from lmolt_utils.metrics.properties import property_scores

SHARED = Path(os.environ.get("LMOLT_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not there: published predictions are not part of the repository")
    return SHARED / name


def pairs(name: str, task: str, rows: int) -> tuple[list[str], list[str]]:
    frame = read_predictions(shared(name))
    assert (set(frame["task"]), len(frame)) == ({task}, rows)
    return list(frame["reference"]), list(frame["prediction"])


def oracle(name: str) -> Any:
    return json.loads(shared(name).read_text(encoding="utf-8"))


def test_captions_of_molt5_and_lpm24() -> None:
    scibert, matcher = caption_tokenizer(str(shared("scibert/vocab.txt"))), meteor_matcher()
    assert scibert.name == SCIBERT
    molt5 = oracle("molt5/oracle_molt5-large.json")["molt5-large-smiles2caption"]["metrics"]
    for name, rows, official in (
        ("molt5/molt5-large-smiles2caption.tsv.gz", 3300, molt5),
        ("lpm24/smiles2caption_example.tsv", 199, oracle("lpm24/oracle_example.json")["smiles2caption"]),
    ):
        ours = caption_scores(*pairs(name, "mol2cap", rows), scibert, matcher).metrics
        for metric in ("BLEU-2", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L"):
            assert ours[metric] == pytest.approx(official[metric], abs=1e-6), metric
        synonyms = 0 if matcher.wordnet else 0.002  # what WordNet adds here
        assert official["METEOR"] - synonyms - 1e-6 <= ours["METEOR"] <= official["METEOR"] + 1e-6


@pytest.mark.slow
def test_molecules_of_molt5_and_lpm24_in_both_conventions() -> None:
    molt5 = oracle("molt5/oracle_molt5-large.json")["molt5-large-caption2smiles"]
    many = pairs("molt5/molt5-large-caption2smiles.tsv.gz", "cap2mol", 3300)
    few = pairs("lpm24/caption2smiles_example.tsv", "cap2mol", 200)
    scores = molecule_scores(*many, "molt5")
    counts = scores.conventions
    assert (counts["fcd_references"], counts["fcd_predictions"], counts["fcd_note"]) == (3300, 3163, "")
    zeros = {name: molt5["lpm24_style"][name] for name in (*SIMILARITIES, "Validity")}
    for found, official in (
        (scores, molt5["metrics"]),
        (molecule_scores(*many, fcd=False), zeros),
        (molecule_scores(*few, fcd=False), oracle("lpm24/oracle_example.json")["caption2smiles"]),
    ):
        for name, value in official.items():
            assert found.metrics[name] == pytest.approx(value, abs=1e-6), name


def test_properties_of_lpm24() -> None:
    known = knowledge(Source(str(shared("lpm24/additional_data.zip"))))  # its tree and pairs lie in the zip
    captions = pairs("lpm24/smiles2caption_example.tsv", "mol2cap", 199)
    tokenizer = caption_tokenizer(str(shared("scibert")))
    found = property_scores(*captions, known.tree or {}, tokenizer, combinations=known.withheld)
    official = oracle("lpm24/oracle_example.json")
    compared = 0
    for ours, theirs in (("precision", "Precision"), ("recall", "Recall"), ("f1", "F-1"), ("accuracy", "Accuracy")):
        mine = pd.concat([found.properties[ours], found.categories[ours]])
        for name, value in official["properties"][theirs].items():
            assert mine[name] == pytest.approx(value, abs=1e-6), (theirs, name)
            compared += 1
    assert compared == 2793 + 80 + 173 + 177
    for name, value in official["combo"].items():
        assert found.combinations[name] == pytest.approx(math.nan if value is None else value, abs=1e-6, nan_ok=True)
