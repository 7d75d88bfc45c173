"""Readers of prediction files: published layouts as they are, and errors that name the first bad place."""

import gzip
import json
import os
from pathlib import Path

import pytest

from lmolt_utils.files import BadFileError
from lmolt_utils.prediction_files import read_predictions
from lmolt_utils.scoring import score

SHARED = Path(os.environ.get("LMOLT_SHARED_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


@pytest.mark.parametrize(("first", "task"), [("SMILES", "mol2cap"), ("description", "cap2mol")])
def test_published_tables_say_their_task(tmp_path: Path, first: str, task: str) -> None:
    # Quotes and backslashes are part of the answer; an empty answer is one.
    rows = f'{first}\tground truth\toutput\ns\t"CC"\tC/C=C\\C\nt\tCCO\t\n'
    for path in (write(tmp_path / "a.txt", rows), write(tmp_path / "b.tsv", rows.replace("\n", "\r\n"))):
        frame = read_predictions(path)
        assert frame["task"].tolist() == [task] * 2
        assert frame["source"].tolist() == ["s", "t"]
        assert frame["reference"].tolist() == ['"CC"', "CCO"]
        assert frame["prediction"].tolist() == ["C/C=C\\C", ""]
        assert frame["id"].tolist() == [0, 1]


def test_gzip_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress("\ufeffdescription\tground truth\toutput\nd\tCC\tCCO\n".encode()))
    assert read_predictions(path)["task"].tolist() == ["cap2mol"]
    assert score(path).task == "cap2mol"
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(BadFileError, match="cannot be read"):
        read_predictions(path)


def test_json_lines(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "task": "cap2mol", "source": "s", "reference": "CC", "raw": " CC", "prediction": "CC"},
        {"id": "b", "task": "cap2mol", "source": "s", "reference": "CC", "raw": "", "prediction": None},
    ]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    scores = score(path)
    assert (scores.task, scores.n, scores.conventions["missing_predictions"]) == ("cap2mol", 2, 1)
    assert score(path, rule="none").conventions["missing_predictions"] == 0  # the raw output is an empty one


def test_own_names_and_commas(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,reference,prediction\nx,"an acid, fatty","an ""acid"""\n')
    frame = read_predictions(path, task="mol2cap")
    assert frame.loc[0, ["id", "reference", "prediction", "task"]].tolist() == [
        *("x", "an acid, fatty", 'an "acid"', "mol2cap")
    ]


def test_submission_with_references(tmp_path: Path) -> None:
    outputs = write(tmp_path / "out.txt", " CCO\n\nCC\n")
    with pytest.raises(BadFileError, match=r"outputs only \(3 lines\).*--reference"):
        read_predictions(outputs, task="cap2mol")
    plain = write(tmp_path / "ref.txt", "CCO\nC\nCC\n")
    frame = read_predictions(outputs, task="cap2mol", reference=plain)
    assert frame["prediction"].tolist() == [" CCO", "", "CC"]
    assert frame["reference"].tolist() == ["CCO", "C", "CC"]
    table = write(tmp_path / "ref.tsv", "CID\tSMILES\tdescription\n9\tCCO\tan alcohol\n8\tC\tgas\n7\tCC\tgas\n")
    assert read_predictions(outputs, task="cap2mol", reference=table)["reference"].tolist() == ["CCO", "C", "CC"]
    assert read_predictions(outputs, task="mol2cap", reference=table)["reference"].tolist() == [
        *("an alcohol", "gas", "gas")
    ]
    with pytest.raises(BadFileError, match="--task"):
        read_predictions(outputs, reference=table)


def test_references_by_id(tmp_path: Path) -> None:
    outputs = write(tmp_path / "out.tsv", "id\tprediction\n7\tCC\n9\tCCO\n")
    references = write(tmp_path / "ref.jsonl", '{"id": "9", "reference": "OCC"}\n{"id": 7, "reference": "C"}\n')
    assert read_predictions(outputs, reference=references)["reference"].tolist() == ["C", "OCC"]
    more = write(tmp_path / "more.tsv", "id\treference\n7\tC\n9\tOCC\n5\tN\n4\tO\n")
    with pytest.raises(BadFileError, match=r"2 ids without a prediction.*the first is '5'"):
        read_predictions(outputs, reference=more)
    fewer = write(tmp_path / "fewer.tsv", "id\treference\n7\tC\n")
    with pytest.raises(BadFileError, match="row 2: id '9' is not in"):
        read_predictions(outputs, reference=fewer)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "is empty"),
        ("a.jsonl", '{"prediction": "C"}\n{"prediction"\n', "line 2 is not JSON"),
        ("a.jsonl", '{"prediction": "C"}\n["C"]\n', "line 2 is no JSON object but list"),
        ("a.jsonl", '{"output": "C"}\n', "no field 'prediction' or 'raw' .it has: output"),
        ("a.tsv", "SMILES\tground truth\toutput\nC\ta\tb\nC\ta\n", "line 3 has 2 cells where the header has 3"),
        ("a.tsv", "SMILES\tcaption\nC\tgas\n", "has the columns SMILES, caption; a table of predictions has"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BadFileError, match=message):
        read_predictions(write(tmp_path / name, text))


def test_row_counts_must_match(tmp_path: Path) -> None:
    outputs, references = write(tmp_path / "o.txt", "C\nC\nC\n"), write(tmp_path / "r.txt", "C\nC\n")
    with pytest.raises(BadFileError, match=r"3 predictions and .* 2 references: the first without a partner is line 3"):
        read_predictions(outputs, task="cap2mol", reference=references)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="is missing: give the path"):
        read_predictions(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFileError, match="not UTF-8"):
        read_predictions(tmp_path / "binary")


@pytest.mark.parametrize(
    ("name", "task", "rows"),
    [
        ("molt5/molt5-large-caption2smiles.tsv.gz", "cap2mol", 3300),
        ("molt5/molt5-large-smiles2caption.tsv.gz", "mol2cap", 3300),
        ("lpm24/caption2smiles_example.tsv", "cap2mol", 200),
        ("lpm24/smiles2caption_example.tsv", "mol2cap", 199),
    ],
)
def test_published_files(name: str, task: str, rows: int) -> None:
    if not (SHARED / name).is_file():
        pytest.skip(f"real data not found: {SHARED / name} (set LMOLT_SHARED_DATA)")
    frame = read_predictions(SHARED / name)
    assert (set(frame["task"]), len(frame)) == ({task}, rows)
    assert not frame[["source", "reference"]].eq("").any(axis=None)


def test_published_submission() -> None:
    path = SHARED / "lpm24" / "submission_molgen_dimitris.txt.gz"
    if not path.is_file():
        pytest.skip(f"real data not found: {path} (set LMOLT_SHARED_DATA)")
    frame = read_predictions(path, task="cap2mol", reference=path)
    assert len(frame) == 21_805
    assert (frame["prediction"] == frame["reference"]).all()
