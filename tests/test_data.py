"""Data of a run: any folder with molecules and captions, the sample, the test set, the pairs."""

from pathlib import Path

import pandas as pd
import pytest

from lmolt_utils.data import DataError, Source, held_out, load_corpus, sample
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.negatives import audit, preference_pairs, usable


def _folder(tmp_path: Path) -> Source:
    frame = pd.DataFrame(
        {"molecule": ["C" * n + "O" for n in range(1, 41)], "caption": [f"It is {n}." for n in range(40)]}
    )
    for name, rows in {"train": frame[:30], "validation": frame[30:35], "test": frame[35:]}.items():
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
    return Source(str(tmp_path), rows=0, seed=0)


def test_a_folder_of_csv_files_is_a_corpus(tmp_path: Path) -> None:
    corpus = load_corpus(_folder(tmp_path))
    assert corpus["split"].value_counts().to_dict() == {"train": 30, "validation": 5, "test": 5}
    assert corpus["id"].is_unique
    picked = sample(corpus, 0.1, seed=0)
    assert len(picked) == 3
    assert set(picked["split"]) == {"train"}
    assert picked.equals(sample(corpus, 0.1, seed=0))
    assert not picked.equals(sample(corpus, 0.1, seed=1))


def test_unreachable_and_wrong_data_sets_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give the folder's path as corpus"):
        load_corpus(Source("nobody/nothing", rows=0, seed=0))
    pd.DataFrame({"smiles": ["C"], "caption": ["x"]}).to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(DataError, match="no column 'molecule'"):
        load_corpus(Source(str(tmp_path), rows=0, seed=0))


def test_empty_samples_are_refused() -> None:
    corpus = generate(150, 0)
    with pytest.raises(DataError, match="raise sample_share"):
        sample(corpus, 0.005, 0)
    with pytest.raises(DataError, match="raise corpus_rows"):
        held_out(corpus[corpus["split"] != "withheld"], "withheld", 10, 0)


def test_pairs_hold_both_directions_and_drop_what_prefers_nothing() -> None:
    sampled = pd.DataFrame({"id": ["a", "b"], "molecule": ["CCO", "CCN"], "caption": ["one", "two"]})
    pairs = preference_pairs(sampled, {"mol2cap": ["one", "uno"], "cap2mol": ["", "CCC"]})
    assert list(pairs["task"]) == ["mol2cap", "mol2cap", "cap2mol", "cap2mol"]
    assert pairs.iloc[1].tolist() == ["b", "mol2cap", "CCN", "two", "uno"]
    assert usable(pairs)["rejected"].tolist() == ["uno", "CCC"]


def test_audit_finds_a_surface_difference_and_only_that() -> None:
    texts = [f"the molecule is a thing {n} of many" for n in range(40)]
    frame = {"id": range(40), "task": "mol2cap", "source": "C", "chosen": texts}
    marked = audit(pd.DataFrame({**frame, "rejected": [t + "#" for t in texts]}), seed=0).loc["mol2cap"]
    assert marked["separable"] == 1.0
    assert (marked["equal"], marked["empty"], marked["distinct"]) == (0, 0, 1.0)
    same = audit(pd.DataFrame({**frame, "rejected": [*texts[1:], texts[0]]}), seed=0).loc["mol2cap"]
    assert same["separable"] < 0.7
