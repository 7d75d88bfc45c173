"""Data of a run: the sample and its pools, test sets, the pairs."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lmolt_utils.data.captioner import Knowledge, recaptioned
from lmolt_utils.data.prepare import make_corpus, make_sample_and_test, manifest_table, rejected_rows
from lmolt_utils.data.sample import TEST_SETS, draw, for_task, held_out, sample, source_of, triples
from lmolt_utils.data.sources import Source
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.errors import DataError
from lmolt_utils.files import fingerprint
from lmolt_utils.run.hub import LPM24, LPM24_EXTRA
from lmolt_utils.run.notebook import start


def run_of(**values: Any) -> Any:
    """01_data's view of a smoke run in which ``values`` are set."""
    values = {"profile": "smoke", "corpus_rows": 300, **values}
    cell = "# Parameters\n" + "\n".join(f"{name} = {value!r}" for name, value in values.items())
    return start("01_data", {"In": [cell], **values})


def test_the_papers_numbers_at_full_scale() -> None:
    splits = ["train"] * 126_864 + ["validation"] * 33_696  # L+M-24's
    corpus = pd.DataFrame({"id": range(len(splits)), "split": splits, "molecule": "C"})
    shared = sample(corpus, 0.1, 0)
    assert len(shared) == 12_686  # "about 12.7k"
    assert triples(shared) == 25_372  # the checkpoints: 1188 steps of 64 rows are 3 epochs of 25.4k
    assert -(-triples(shared) // 64) * 3 == pytest.approx(1188, abs=3)
    independent = sample(corpus, 0.1, 0, "independent")
    assert triples(independent) == 25_372
    assert len(independent) / 126_864 == pytest.approx(0.19, abs=0.002)
    assert [len(for_task(independent, task)) for task in ("mol2cap", "cap2mol")] == [12_686, 12_686]
    assert for_task(independent, "mol2cap")["id"].tolist() == shared["id"].tolist()
    assert set(independent["tasks"]) == {"mol2cap|cap2mol", "mol2cap", "cap2mol"}
    assert independent["id"].is_monotonic_increasing


def test_samples_follow_the_seed_and_empty_ones_are_refused() -> None:
    corpus = generate(300, 0)
    for pools in ("shared", "independent"):
        picked = sample(corpus, 0.1, 0, pools)
        assert picked.equals(sample(corpus, 0.1, 0, pools))
        assert not picked.equals(sample(corpus, 0.1, 1, pools))
        assert set(picked["split"]) == {"train"}
        assert picked["id"].is_unique
    with pytest.raises(DataError, match="raise sample_share"):
        sample(corpus, 0.005, 0)
    with pytest.raises(DataError, match=r"of the split 'withheld' .* or a larger corpus"):
        held_out(corpus[corpus["split"] != "withheld"], "withheld", 10, 0)


# ------------------------------------------------------------------------------------------- test sets


@pytest.mark.parametrize(("name", "split"), [("extra_train", "train"), ("extra_valid", "validation")])
def test_re_captioned_molecules_are_the_corpus_s_own(name: str, split: str) -> None:
    corpus = generate(300, 5)
    again = corpus.assign(caption=recaptioned(corpus, 5, 1)).set_index("id")
    drawn, loaded = draw(name, corpus, 20, 0, corpus_seed=5)
    assert loaded is None
    assert set(drawn["split"]) == {split}
    assert drawn["caption"].tolist() == again.loc[drawn["id"], "caption"].tolist()
    assert drawn["molecule"].tolist() == again.loc[drawn["id"], "molecule"].tolist()
    assert (drawn["caption"] != corpus.set_index("id").loc[drawn["id"], "caption"].to_numpy()).mean() > 0.5
    with pytest.raises(DataError, match="give the data set with the further captions as test_corpus"):
        draw(name, corpus.assign(properties=""), 20, 0)


def test_held_out_rows_with_a_withheld_pair_are_a_test_set() -> None:
    corpus = pd.DataFrame(
        {"split": ["train"] * 2 + ["validation"] * 4, "properties": ["a|b", "c", "a|c", "b", "b|c|a", ""]}
    )
    found = draw("withheld_combos", corpus.assign(families=""), 9, 0, known=Knowledge(withheld=[("a", "c")]))[0]
    assert found["properties"].tolist() == ["a|c", "b|c|a"]
    assert set(draw("withheld_combos", generate(1000, 0), 5, 0)[0]["split"]) == {"withheld"}


def test_where_each_test_set_comes_from() -> None:
    papers, own = Source(LPM24), Source("embedded", 300, 0)
    hub = {name: source.name for name in TEST_SETS if (source := source_of(name, papers, None, None))}
    assert hub == dict.fromkeys(("extra_valid", "extra_train"), LPM24_EXTRA)
    assert source_of("extra_train", own, None, None) is None
    assert source_of("extra_train", own, "copy", "r1") == Source("copy", 300, 0, "r1")
    with pytest.raises(DataError, match="leave test_corpus out"):
        source_of("test", own, "copy", None)


def test_the_first_caption_of_each_molecule_is_tested(tmp_path: Path) -> None:
    molecules = ["C" * n + "O" for n in range(1, 21) for _ in range(5)]
    frame = pd.DataFrame({"molecule": molecules, "caption": [f"caption {n % 5}" for n in range(100)]})
    frame.to_csv(tmp_path / "split_valid-0.csv", index=False)
    corpus = generate(300, 0)
    drawn, loaded = draw("extra_valid", corpus, 8, 0, source=Source(str(tmp_path)))
    assert len(drawn) == 8
    assert set(drawn["caption"]) == {"caption 0"}
    assert drawn["id"].is_unique
    assert list(drawn.columns) == list(corpus.columns)
    assert loaded is not None
    assert loaded.facts["exclusions"] == {"further captions of a molecule": 80}


# --------------------------------------------------------------------------------------- the steps of 01_data


def test_a_corpus_of_ones_own_from_rows_to_manifest(runs: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    lines = [f"{'C' * n}O\tIt has {n}.\ta|b{n % 9}" for n in range(1, 401)]
    lines[17] = "C(C\tbroken\ta|b"
    (mine / "train.tsv").write_text("\n".join(["SMILES\tdescription\tproperties", *lines[:300]]) + "\n")
    (mine / "test.tsv").write_text("\n".join(["SMILES\tdescription\tproperties", *lines[300:]]) + "\n")
    run = run_of(corpus=str(mine))
    corpus = make_corpus(run)
    make_sample_and_test(run)
    assert corpus["id"].is_unique
    assert corpus["split"].value_counts().to_dict() == {"train": 299, "test": 100}
    (bad,) = rejected_rows(run).to_dict("records")
    assert (bad["file"], bad["line"], bad["reason"]) == ("train.tsv", 19, "invalid SMILES")
    assert manifest_table(run).loc["corpus", ["rows read", "left out"]].tolist() == [400, "1 invalid SMILES"]
    make_corpus(run)  # up to date
    record = run.path("data", "corpus.manifest.json")
    whole = record.read_text()
    for damaged in ("", whole[: len(whole) // 2]):
        record.write_text(damaged)
        assert len(make_corpus(run)) == 399
        assert record.read_text() == whole, "a damaged manifest counts as none: it is made again"
    before = fingerprint(mine / "train.tsv")
    (mine / "train.tsv").write_text((mine / "train.tsv").read_text() + "CCS\tNew.\ta\n")
    with pytest.raises(DataError) as caught:
        make_corpus(run)
    for part in (
        f"{mine / 'train.tsv'} was edited",
        f"{before}, now {fingerprint(mine / 'train.tsv')}",
        f"delete {record}",
    ):
        assert part in str(caught.value)
    record.unlink()
    assert len(make_corpus(run)) == 400
    shutil.rmtree(mine)
    assert len(make_corpus(run)) == 400  # what was made from it is still there
