"""Data of a run: any folder with molecules and captions, the sample, the test set, the pairs."""

from pathlib import Path

import pandas as pd
import pytest

from lmolt_utils.data import DataError, Source, held_out, load_corpus, overlap, sample
from lmolt_utils.embedded.corpus import generate


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


def test_overlap_counts_by_hand() -> None:
    columns = ["split", "molecule", "properties"]
    corpus = pd.DataFrame(
        [("train", "A", "p"), ("train", "B", "q"), ("test", "B", "q"), ("test", "C", "p|q")], columns=columns
    )
    tested = corpus[corpus["split"] == "test"]
    found = overlap(corpus.iloc[:1], tested, corpus).set_index(["in", "test rows with the"])["rows"]
    assert found["the 10 % sample", "same molecule"] == 0
    assert found["all training molecules", "same molecule"] == 1
    assert found["all training molecules", "same property set"] == 1
