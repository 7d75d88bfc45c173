"""Sources and bad rows: small made-up files always, the real release where it is."""

import gzip
import json
import os
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from datasets import load_dataset
from huggingface_hub import constants

from lmolt_utils.data.captioner import Knowledge, captioner, knowledge, reader
from lmolt_utils.data.card import property_sets, property_skew
from lmolt_utils.data.prepare import as_before, described
from lmolt_utils.data.rows import LPM24_SIZES, TEST_ROWS, divided, load, read_rows_of
from lmolt_utils.data.sample import draw
from lmolt_utils.data.sources import Source, select
from lmolt_utils.errors import DataError, TryAgainError
from lmolt_utils.files import fingerprint, write_json
from lmolt_utils.grammar.property_cells import names_in
from lmolt_utils.grammar.vocabulary import paths

SHARED = Path(os.environ.get("LMOLT_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def alcohols(rows: int, start: int = 1) -> pd.DataFrame:
    lengths = range(start, start + rows)
    return pd.DataFrame(
        {
            "molecule": ["C" * n + "O" for n in lengths],
            "caption": [f'The molecule is "{n}", long.' for n in lengths],
            "properties": [f"length {n}|alcohol" for n in lengths],
        }
    )


def write(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.assign(properties=frame["properties"].str.split("|")).to_parquet(path)  # a list, as on the hub
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        lines = ["\t".join(frame.columns), *("\t".join(row) for row in frame.itertuples(index=False))]
        path.write_text("\n".join(lines) + "\n")


def lay_out_like_the_hub(folder: Path) -> None:
    """``LPM-24_train``: two splits, and a third file with all of their rows again."""
    first, second = alcohols(30), alcohols(10, 31)
    write(first, folder / "data" / "split_train-00000-of-00001.parquet")
    write(second, folder / "data" / "split_valid-00000-of-00001.parquet")
    write(pd.concat([first, second]), folder / "data" / "train-00000-of-00001.parquet")


def test_hub_layout_is_read_as_the_datasets_library_reads_it(tmp_path: Path) -> None:
    lay_out_like_the_hub(tmp_path)
    files = {name: str(tmp_path / "data" / f"{name}-*.parquet") for name in ("split_train", "split_valid")}
    theirs = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    shutil.rmtree(tmp_path / "cache")
    ours = load(Source(str(tmp_path)))
    for split, hub in {"train": "split_train", "validation": "split_valid"}.items():
        mine = ours.frame[ours.frame["split"] == split]
        assert mine["caption"].tolist() == list(theirs[hub]["caption"])
        assert [text.split("|") for text in mine["properties"]] == [list(p) for p in theirs[hub]["properties"]]
    assert ours.facts["ignored_files"] == ["data/train-00000-of-00001.parquet"]  # both splits again
    assert len(ours.frame) == 40


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline hub cache with LPM-24_train at one commit."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    place = cache / "datasets--language-plus-molecules--LPM-24_train"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("c0ffee" * 6 + "abcd")
    lay_out_like_the_hub(place / "snapshots" / ("c0ffee" * 6 + "abcd"))
    return place


def test_offline_the_cached_commit_is_read_recorded_and_asked_for_again(hub_cache: Path, tmp_path: Path) -> None:
    source, commit = Source("language-plus-molecules/LPM-24_train"), "c0ffee" * 6 + "abcd"
    loaded = load(source)
    assert (loaded.facts["revision"], len(loaded.frame)) == (commit, 40)
    hashes = {name: entry["sha256"] for name, entry in loaded.facts["files"].items()}
    assert set(hashes) == {f"data/split_{s}-00000-of-00001.parquet" for s in ("train", "valid")}
    for name, found in hashes.items():
        assert found == fingerprint(hub_cache / "snapshots" / commit / name)
    record = tmp_path / "corpus.manifest.json"
    assert as_before(source, record) == source
    write_json(record, described(loaded))
    assert as_before(source, record) == replace(source, revision=commit), "a moving branch changes nothing"
    assert as_before(Source("another/set"), record).revision is None
    next(hub_cache.rglob("split_train*")).unlink()  # half a data set is no corpus
    with pytest.raises(DataError, match="cannot tell what data/train"):
        load(source)
    assert len(load(source, ("validation",)).frame) == 10


def test_a_hub_out_of_reach_says_what_and_how(hub_cache: Path) -> None:
    with pytest.raises(TryAgainError, match=r"abc123.*hf download \S+-extra --repo-type dataset .* as corpus"):
        load(Source("language-plus-molecules/LPM-24_train-extra", revision="abc123"), ("validation",))


def test_a_release_gets_captions_and_splits_and_brings_its_tree_and_pairs(tmp_path: Path) -> None:
    """L+M-24's has no header line, no captions, no splits."""
    source = Source(str(tmp_path / "additional_data.zip"))
    tree = {"Biomedical": ["alcohol", {"antis": ["anti viral"]}], "Odor": ["Odor_evaluation"]}
    rows = [f"{'C' * n}O\t{{'alcohol', \"length's {n % 7}\"}}" for n in range(1, 101)]
    rows[4] = "CCCCCO\t{'alcohol', 'anti viral'}"
    with zipfile.ZipFile(source.name, "w") as archive:
        archive.writestr("additional_data/train_props.txt", "\n".join(rows) + "\n")
        archive.writestr("additional_data/nested_props.json", json.dumps(tree))
        archive.writestr("additional_data/train_withheld_combos.txt", "('alcohol', 'anti viral')\t1\n")
    known = knowledge(source)
    assert (known.tree, known.withheld) == (tree, [("alcohol", "anti viral")])
    loaded = load(source, known=known)
    assert loaded.frame["split"].value_counts().to_dict() == {"train": 79, "validation": 19, "test": 2}
    held = loaded.frame.set_index("molecule").loc["CCCCCO"]
    assert (held["properties"], held["split"]) == ("alcohol|anti viral", "validation")
    assert held["caption"].count("alcohol") == held["caption"].count("anti viral") == 1
    assert "{" not in "".join(loaded.frame["caption"])
    assert loaded.frame["properties"].str.split("|").explode().nunique() == 9
    assert loaded.facts["properties"] == "stated"
    assert loaded.facts["notes"]["captions composed from property sets"] == 100
    assert divided(loaded.frame, 0, known.withheld) == loaded.frame["split"].tolist() != divided(loaded.frame, 1)
    other = tmp_path / "other.json"
    other.write_text('{"Mine": ["x"]}')
    assert knowledge(source, str(other)).tree == {"Mine": ["x"]}, "a file that is given goes first"
    corpus = loaded.frame[loaded.frame["split"] != "test"].assign(id=range(98))
    with pytest.raises(DataError, match=r"There is train \(79\), validation \(19\). Choose .* extra_valid"):
        draw("test", corpus, 5, 0)
    assert len(draw("extra_valid", corpus, 5, 0, known=known)[0]) == 5
    guess, names = captioner("a corpus without a tree"), ["breast cancer", "anti viral", "nutrient"]
    assert re.search("(impacts|effect on|affect) breast cancer", guess("C", names, 0, 0)), "an effect is no role"


def test_property_sets_are_read_off_captions_where_no_row_has_any(tmp_path: Path) -> None:
    captions = ["The molecule is a nutrient that impacts obesity.", "It is purple prose, and of no known form at all."]
    alcohols(60).assign(caption=captions * 30)[["molecule", "caption"]].to_csv(tmp_path / "train.csv", index=False)
    loaded = load(Source(str(tmp_path)), known=Knowledge(read=reader(None).properties))
    assert loaded.frame["properties"].tolist() == ["nutrient|obesity", ""] * 30
    assert loaded.facts["properties"] == "read off the captions"
    assert loaded.facts["notes"]["rows whose property set was read off the caption"] == 30
    assert load(Source(str(tmp_path))).facts["properties"] == "none", "only where the caller says how"
    stated = alcohols(60).assign(caption=captions * 30)
    stated.loc[1:, "properties"] = ""  # a corpus that states properties may leave rows without
    write(stated, tmp_path / "train.csv")
    loaded = load(Source(str(tmp_path)), known=Knowledge(read=reader(None).properties))
    assert loaded.frame["properties"].tolist() == ["length 1|alcohol", *[""] * 59]
    assert loaded.facts["properties"] == "stated"


def test_every_way_of_writing_a_property_set() -> None:
    for cell, names in (
        *(("a|b c", ["a", "b c"]), ("b|a|b| ", ["b", "a"]), (["b", " a "], ["b", "a"])),
        *(('["b", "a\'s"]', ["b", "a's"]), ("['b', \"a's\"]", ["b", "a's"]), ("{'b', \"a's\"}", ["a's", "b"])),
        *(("[]", []), ("", []), ("nan", []), ("<NA>", [])),
        ("[14C]glucose|(R)-x", ["[14C]glucose", "(R)-x"]),
        ("1,3-beta-glucan", ["1,3-beta-glucan"]),
        ("x [NAD(P)H] (kind)|Pick's disease", ["x [NAD(P)H] (kind)", "Pick's disease"]),
        ("{\"3',5'\", '5\\'', 'a ~'}", ["3',5'", "5'", "a ~"]),
    ):
        assert names_in(cell) == names


def test_what_is_no_property_set_is_refused() -> None:
    for cell in (
        *("'a', 'b'", "array(['a', 'b'], dtype=object)", "(drug, dye)", "['a','b'", "'a', 'b']", "{'a'", "[drug, dye"),
        *("['drug''dye']", "['drug'\"dye\"]", "'a'|'b'", '"a"', "drug, dye]", "Index(['a'])", "nan|a", ["a", "None"]),
        *("['a' 'b']", "[drug, dye]", "{'a': 1}", "{'a', 1}", "('b', 'a')", "[null, 1]", ["a", None], ["a|b"], "['']"),
        "[" * 9000 + "]",
    ):
        with pytest.raises(ValueError, match=r"notation|no name|needed|neither|no comma"):
            names_in(cell)


def test_a_list_with_another_separator_is_refused_but_a_rare_comma_is_a_name_s(tmp_path: Path) -> None:
    path = tmp_path / "props.tsv"
    for cells, mark in (("drug, dye/x", ","), ("drug;dye", ";"), ("drug,dye", ","), ("x, y/a, b/a|b", ",")):
        names = cells.split("/")
        write(alcohols(len(names)).assign(properties=names), path)
        with pytest.raises(DataError, match=rf"line 2: the properties .* parted by '{mark}'.*write '\|'"):
            read_rows_of(path)
    for lists in (["a|b", "a|b, of kind 1"], ["['a', 'b']", "['a; c']"]):
        write(alcohols(3).assign(properties=["aciduria type i, x-linked", *lists]), path)
        assert read_rows_of(path).frame["properties"][0] == "aciduria type i, x-linked"


def test_a_csv_cell_over_several_lines_costs_its_record_and_a_stray_quote_the_file(tmp_path: Path) -> None:
    rows = [f"The molecule is drug {n}.,{'C' * n}O" for n in range(1, 20)]
    two = ['"The molecule is a nutrient.', 'It is sweet.",CCO']
    (tmp_path / "a.csv").write_text("\n".join(["caption,smiles", *two, *rows]) + "\n")
    found = read_rows_of(tmp_path / "a.csv")
    assert found.frame["caption"].tolist() == [row.split(",")[0] for row in rows]
    assert found.rejected[["line", "reason"]].to_numpy().tolist() == [[2, "line break"]]
    (tmp_path / "a.csv").write_text("\n".join(["caption,smiles", *rows[:9], '"no end,CCN', "x,C"]))
    with pytest.raises(DataError, match=r"line 11: "):
        read_rows_of(tmp_path / "a.csv")


def test_a_split_column_is_followed(tmp_path: Path) -> None:
    frame = alcohols(6).assign(split=["train"] * 3 + ["valid"] * 2 + ["TEST"])
    write(frame, tmp_path / "mine.csv")
    found = load(Source(str(tmp_path / "mine.csv"))).frame["split"]
    assert found.tolist() == [*["train"] * 3, *["validation"] * 2, "test"]
    tested = load(Source(str(tmp_path / "mine.csv")), ("test",))
    assert tested.frame["split"].tolist() == ["test"]
    assert tested.facts["exclusions"] == {"in other splits": 5}
    for odd in ("", 5, {"a": 1}):
        rows = frame.assign(split=[*["train"] * 5, odd]).to_json(orient="records", lines=True)
        (tmp_path / "odd.jsonl").write_text(rows)
        with pytest.raises(DataError, match="1 rows are in no known split"):
            load(Source(str(tmp_path / "odd.jsonl")))


def test_a_missing_value_that_was_written_out_is_empty(tmp_path: Path) -> None:
    rows = ["caption,smiles,properties"]
    rows += [f"drug {n}.,{'C' * n}O,{cell}" for n, cell in enumerate(["nan", "None", "NA", "<NA>", "a|b", ""], 1)]
    (tmp_path / "a.csv").write_text("\n".join([*rows, "NaN,CCN,a|b"]) + "\n")
    found = read_rows_of(tmp_path / "a.csv")
    assert found.frame["properties"].tolist() == [*[""] * 4, "a|b", ""]
    assert found.rejected[["reason", "detail"]].to_numpy().tolist() == [["empty cell", "caption"]]
    assert found.facts["cells of properties with a missing value written out, such as nan (taken as empty)"] == 4


def test_a_file_is_read_by_what_it_holds(tmp_path: Path) -> None:
    whole = alcohols(4)
    for name in ("a.csv", "b.tsv", "c.jsonl", "d.parquet"):
        write(whole, tmp_path / name)
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress((tmp_path / "b.tsv").read_bytes()))
    whole.to_csv(tmp_path / "semicolons.csv", index=False, sep=";")
    write(whole, tmp_path / "tabs.tsv")
    (tmp_path / "tabs.tsv").rename(tmp_path / "tabs.csv")
    whole.to_csv(tmp_path / "commas.tsv", index=False)
    whole.to_json(tmp_path / "array.json", orient="records", indent=1)
    whole.to_json(tmp_path / "array.jsonl", orient="records")
    whole.to_json(tmp_path / "lines.json", orient="records", lines=True)
    for path in tmp_path.iterdir():
        found = read_rows_of(path)
        assert found.frame[list(whole)].to_numpy().tolist() == whole.to_numpy().tolist(), path.name
        assert found.rejected.empty
    (tmp_path / "one.json").write_text(json.dumps({"data": whole.to_dict("records")}, indent=1))
    with pytest.raises(DataError, match=r"one\.json .*JSON array"):
        read_rows_of(tmp_path / "one.json")


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["train.txt", "validation.txt", "test.txt"], {"train.txt": "train"}),
        (["pretrained.csv"], {"pretrained.csv": None}),
        (["test/a.csv", "train/a.csv"], {"train/a.csv": "train"}),
        (["additional_data.zip", "train_props.txt", "train.csv"], {"train.csv": "train"}),
        (["split_train.csv", "split_valid.csv", "train.csv"], {"split_train.csv": "train"}),
        (["a.csv", "b.csv"], "cannot tell which file is which"),
        (["test.csv"], "no file for train; it has test"),
        (["train.csv", "pretrain.csv"], "cannot tell what pretrain.csv is beside"),
        (["train.csv", "validation.csv", "more.jsonl"], "cannot tell what more.jsonl is beside"),
        (["train.csv", "split_valid.csv"], "cannot tell what train.csv is beside"),
        (["train.csv", "train.jsonl.gz", "test.csv"], "train.csv, train.jsonl.gz may hold the same rows"),
        (["split_train.csv", "split_valid.csv", "validation.csv"], "cannot tell what validation.csv is beside"),
    ],
)
def test_which_file_is_which_and_none_is_left_out_without_a_word(
    names: list[str], read: dict[str, str | None] | str
) -> None:
    if isinstance(read, str):
        with pytest.raises(DataError, match=read):
            select(names, ("train",), "x")
    else:
        assert select(names, ("train",), "x") == (read, [name for name in names if name not in read])


def test_splits_are_known_by_their_names(tmp_path: Path) -> None:
    assert select(["train.csv", "test.csv", "more.csv"], ("test",), "x")[0] == {"test.csv": "test"}
    for word in ("split_validation", "split_val"):
        assert select(["split_train.csv", f"{word}.csv"], ("validation",), "x")[0] == {f"{word}.csv": "validation"}
    write(alcohols(5), tmp_path / "val.txt")
    for name in ("dev.json", "train.json", "nested_props.json"):
        alcohols(5).to_json(tmp_path / name, orient="records")
    files = load(Source(str(tmp_path))).facts["files"]
    splits = {name: fact["split"] for name, fact in files.items()}
    assert splits == {"val.txt": "validation", "dev.json": "validation", "train.json": "train"}


def test_a_molecule_with_several_captions_is_in_one_split() -> None:
    frame = pd.concat([alcohols(50)] * 3, ignore_index=True)
    frame.loc[100, "properties"] = "one|two"  # of the first molecule's third row only
    split = pd.Series(divided(frame, 0, [("one", "two")]))
    assert (split.groupby(frame["molecule"]).nunique() == 1).all()
    assert split.value_counts().to_dict() == {"train": 120, "validation": 27, "test": 3}
    assert split[0] == split[100] == "validation"


def test_other_names_of_the_columns(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text('CID\tSMILES\tdescription\n7\tCCO\tIt is "ethanol".\n')
    frame = load(Source(str(tmp_path / "test.tsv")), ("test",)).frame
    assert frame[["split", "molecule", "caption"]].to_numpy().tolist() == [["test", "CCO", 'It is "ethanol".']]
    (tmp_path / "test.tsv").write_text("SMILES\tname\nCCO\tethanol\n")
    with pytest.raises(DataError, match=r"no column 'caption' \(nor 'description', 'text'\); it has SMILES, name"):
        read_rows_of(tmp_path / "test.tsv")
    for header in ("smiles,caption,SMILES", "smiles,caption,text", "smiles,caption,props,props"):
        (tmp_path / "a.csv").write_text(f"{header}\n{','.join(['CCO'] * len(header.split(',')))}\n")
        with pytest.raises(DataError, match="2 columns for the same thing"):
            read_rows_of(tmp_path / "a.csv")


# ---- bad rows ----


def test_each_kind_of_bad_row_is_listed_with_its_line_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [f"{'C' * n}O,is {n},{n}".encode() for n in range(1, 21)]
    bad = (
        (b"CCN,too few", "wrong number of cells"),
        (b"CCN,one,2,three", "wrong number of cells"),
        (b"CCN,,102", "empty cell"),
        (b"  ,blank molecule,103", "empty cell"),
        (b"CCN,a \x07 bell,104", "control character"),
        (b"C" * 100_000 + b",long,105", "too long"),
        (b"C(C,ring left open,108", "invalid SMILES"),
        (b"CC N,two words,111", "invalid SMILES"),
    )
    lines = [b"smiles,caption,id", *(line for pair in zip(good, dict(bad), strict=False) for line in pair), *good[8:]]
    ends = [b"\r\n" if number % 5 == 0 else b"\n" for number in range(len(lines))]
    path = tmp_path / "train.csv"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(line + end for line, end in zip(lines, ends, strict=True)) + b"\n")
    rows = read_rows_of(path)
    assert rows.rejected["line"].tolist() == list(range(3, 19, 2))
    assert rows.rejected["reason"].tolist() == [reason for _, reason in bad]
    assert rows.frame["molecule"].tolist() == ["C" * n + "O" for n in range(1, 21)]
    assert rows.rejected["detail"].str.len().max() < 200
    with pytest.raises(DataError, match=r"8 of 28 rows are bad \(2 .*more than the 1% that may be.*train.csv line 3"):
        load(Source(str(path)))
    monkeypatch.setattr("lmolt_utils.data.rows.MAX_BAD_SHARE", 0.4)
    loaded = load(Source(str(path)))
    assert (len(loaded.frame), sum(loaded.facts["exclusions"].values())) == (20, 8)


def test_bad_json_lines(tmp_path: Path) -> None:
    bad = {
        '{"molecule": "CCO"}': "empty cell",
        '{"molecule": "CCO", "caption": "x", "properties": [1]}': "not a property list",
        '{"molecule": "CCO", "caption": 3, "properties": "p"}': "not text",
        '{"molecule": ["CCO"], "caption": "x", "properties": "p"}': "not text",
        '{"molecule": "CCO", "caption": "half a \\ud800 pair"}': "control character",
        '{"molecule": "CCO", "caption": "x"': "not JSON",
        '["CCO", "x"]': "not JSON",
        '{"molecule": "CCO", "caption": "line\\nend"}': "line break",
    }
    (tmp_path / "train.jsonl").write_text("\n".join(['{"molecule": "CO", "caption": "fine"}', *bad]) + "\n")
    rows = read_rows_of(tmp_path / "train.jsonl")
    assert rows.rejected["line"].tolist() == list(range(2, 2 + len(bad)))
    assert rows.rejected["reason"].tolist() == list(bad.values())
    assert rows.frame["molecule"].tolist() == ["CO"]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data in {SHARED}")
def test_the_release_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """As released (audit D26 has the skew), without the minute that RDKit takes for 160,560 molecules."""
    monkeypatch.setattr("lmolt_utils.data.rows.parse", lambda text: True)
    source = Source(str(SHARED / "lpm24" / "additional_data.zip"))
    known = knowledge(source)
    loaded = load(source, known=replace(known, compose=lambda molecule, properties, seed, variant: "A caption."))
    frame = loaded.frame
    counts = frame["split"].value_counts().to_dict()
    assert counts == {**LPM24_SIZES, "validation": LPM24_SIZES["validation"] - TEST_ROWS, "test": TEST_ROWS}
    assert loaded.rejected.empty
    skew = property_skew(property_sets(frame["properties"]))
    assert [round(value, 3) for value in skew.values()] == [5062, 0.365, 0.695]
    sets = frame["properties"].map(lambda text: frozenset(text.split("|")))
    names = frozenset().union(*sets)
    assert (len(names), len(known.withheld)) == (1071, 1281)
    assert names <= {path.split("__", 1)[1].rsplit("__", 1)[-1] for path in paths(known.tree or {})}
    pairs = [frozenset(pair) for pair in known.withheld]
    held = {found for found in set(sets) if any(pair <= found for pair in pairs)}
    combined = frame[sets.isin(held)]
    assert (len(combined), set(combined["split"])) == (1980, {"validation"})


def test_a_path_that_is_not_there_is_not_taken_for_a_hub_id(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none.csv"), "none.csv", "data/mine/none.csv", "./none/none.csv", "no/such/folder"):
        with pytest.raises(DataError, match=r"there is no file or folder '.*no"):
            load(Source(name))
