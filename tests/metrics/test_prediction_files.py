"""Readers of prediction files: published layouts as they are, and errors that name the first bad place."""

import csv
import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lmolt_utils.data import text_tables
from lmolt_utils.files import BadFileError
from lmolt_utils.metrics.prediction_files import read_captions, read_predictions


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return path


#: A name, the text, and what is read: references, predictions.
READ = [
    # Quotes and backslashes are part of the answer; an empty answer is one.
    ("a.txt", 'SMILES\tground truth\toutput\ns\t"CC"\tC/C=C\\C\nt\tCCO\t\n', ['"CC"', "CCO"], ["C/C=C\\C", ""]),
    ("a.tsv", "SMILES\tground truth\toutput\r\ns\ta\tb\r\n", ["a"], ["b"]),
    ("a.tsv", 'reference\tprediction\n"a ""b"" c"\td\nC6"-modified\te\n', ['"a ""b"" c"', 'C6"-modified'], ["d", "e"]),
    ("a.csv", "\ufeffGround_Truth;Output\r\nCCO;CC\r\n\r\nC;C\r\n\r\n", ["CCO", "C"], ["CC", "C"]),  # a spreadsheet's
    ("A.CSV", f"reference,prediction\nCCO,{'C' * 140_000}\n", ["CCO"], ["C" * 140_000]),
    ("a.json", '[{"reference": "CCO",\n "prediction": null}]', ["CCO"], [None]),
    ("a.jsonl", '{"reference": "CC", "prediction": "CC"}\n\n', ["CC"], ["CC"]),
]


@pytest.mark.parametrize(("name", "text", "references", "predictions"), READ)
def test_layouts(tmp_path: Path, name: str, text: str, references: list[str], predictions: list[str]) -> None:
    frame = read_predictions(write(tmp_path / name, text), task="mol2cap")
    assert frame["reference"].tolist() == references
    assert frame["prediction"].tolist() == predictions
    assert frame["id"].tolist() == list(range(len(frame)))


def test_published_tables_say_their_task_and_ours_keep_raw_outputs(tmp_path: Path) -> None:
    for first, task in (("SMILES", "mol2cap"), ("description", "cap2mol")):
        table = write(tmp_path / "a.txt", f"{first}\tground truth\toutput\ns\ta\tb\n")
        assert read_predictions(table)["task"].tolist() == [task]
    row = {"id": "a", "task": "cap2mol", "source": "s", "reference": "CC", "raw": " CC", "prediction": "CC"}
    frame = read_predictions(write(tmp_path / "a.jsonl", json.dumps(row) + "\n"))
    assert frame.iloc[0].to_dict() == {name: cell for name, cell in row.items() if name != "source"}


def test_submission_with_references(tmp_path: Path) -> None:
    outputs = write(tmp_path / "out.txt", "[Na+]\n\n CC\n")  # no JSON
    with pytest.raises(BadFileError, match=r"outputs only \(3 lines\).*--reference"):
        read_predictions(outputs, task="cap2mol")
    frame = read_predictions(outputs, task="cap2mol", reference=write(tmp_path / "ref.txt", "CCO\nC\nCC\n"))
    assert frame[["reference", "prediction"]].to_numpy().T.tolist() == [["CCO", "C", "CC"], ["[Na+]", "", " CC"]]
    table = write(tmp_path / "ref.tsv", "CID\tSMILES\tdescription\n9\tCCO\tan alcohol\n8\tC\tgas\n7\tCC\tgas\n")
    for task, references in {"cap2mol": ["CCO", "C", "CC"], "mol2cap": ["an alcohol", "gas", "gas"]}.items():
        frame = read_predictions(outputs, task=task, reference=table)
        assert frame["reference"].tolist() == references
        assert "in the order of the files" in "; ".join(frame.attrs["notes"])
    with pytest.raises(BadFileError, match="--task"):
        read_predictions(outputs, reference=table)


def test_a_header_is_known_by_its_names(tmp_path: Path) -> None:
    outputs = write(tmp_path / "o.txt", "Prediction \nCCO\nCCC\n")
    references = write(tmp_path / "r.txt", "SMILES\nCCO\nCCC\n")
    frame = read_predictions(outputs, task="cap2mol", reference=references)
    assert frame["prediction"].tolist() == frame["reference"].tolist() == ["CCO", "CCC"]
    told = "; ".join(frame.attrs["notes"])
    assert "line 1 ('Prediction ') is a header; references: line 1 ('SMILES') is a header" in told
    with pytest.raises(BadFileError, match="Is a first line a header"):
        read_predictions(write(tmp_path / "x.txt", "answers\nCCO\nCCC\n"), task="cap2mol", reference=references)


def test_references_by_id(tmp_path: Path) -> None:
    outputs = write(tmp_path / "out.tsv", "id\tprediction\n7\tCC\n9\tCCO\n")
    references = write(tmp_path / "ref.jsonl", '{"id": "9", "reference": "OCC"}\n{"id": 7, "reference": "C"}\n')
    assert read_predictions(outputs, reference=references)["reference"].tolist() == ["C", "OCC"]
    for text, message in {
        "id\treference\n7\tC\n9\tOCC\n7\tN\n": "line 4: id '7' is also in line 2",
        "id\treference\n7\tC\n9\tOCC\n5\tN\n4\tO\n": "2 ids have no prediction; the first is '5'",
        "id\treference\n7\tC\n": "line 3: id '9' is not in",
    }.items():
        with pytest.raises(BadFileError, match=message):
            read_predictions(outputs, reference=write(tmp_path / "other.tsv", text))
    for bad in ("null", "true", "1.5", "[1]", "{}", '""'):
        with pytest.raises(BadFileError, match="line 1: the id is"):
            read_predictions(write(tmp_path / "a.jsonl", f'{{"id": {bad}, "prediction": "C"}}\n'), reference=references)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "is empty"),
        ("a.jsonl", '{"prediction": "C"}\n{"prediction"\n', "line 2: not JSON"),
        ("a.jsonl", '{"prediction": "C"}\n["C"]\n', r"line 2: not JSON \(no object but list"),
        ("a.jsonl", '{"answer": "C"}\n', "has the columns answer; a table of predictions has"),
        ("a.jsonl", '{"reference": "C", "prediction": "C"}\n{"reference": "C"}\n', "line 2: 'prediction' is missing"),
        ("a.jsonl", '{"reference": "C", "prediction": ["C"]}\n', r"line 1: 'prediction' is \['C'\]; text is needed"),
        ("a.jsonl", '{"reference": 5, "prediction": "C"}\n', "line 1: 'reference' is 5; text is needed"),
        ("a.jsonl", '{"reference": null, "prediction": "C"}\n', "line 1: 'reference' is null; text is needed"),
        ("a.json", '["C"]', r"row 1: not JSON \(no object but str"),
        ("a.tsv", "reference\tprediction\tprediction\nC\tC\tN\n", r"2 columns .*'prediction', 'prediction'"),
        ("a.csv", "reference,ground truth,output\nC,C,N\n", r"2 columns .*'reference', 'ground truth'"),
        ("a.csv", 'reference,prediction\na,"a\nb,b\nc,c\n', "line 2: .*unexpected end of data"),
        ("a.csv", 'reference,prediction\na,"a" b\nc,c\n', "line 2: .*expected after"),
        ("a.csv", "reference,prediction\nC,C\rC\nC,C\n", "line 2: .*new-line character"),
        ("a.csv", "reference,prediction\na, b,a\n", r"line 2: wrong number of cells \(3 instead of 2"),
        ("a.csv", "C,C\nC,C\n", "has the columns C, C"),
        ("a.txt", "C\nC\rC\n", "line 2: it has a carriage return"),
        ("a.txt", "reference\nC\n", "has the columns reference"),
        ("a.tsv", "SMILES\tground truth\toutput\nC\ta\tb\nC\ta\n", r"line 3: wrong number of cells \(2 instead of 3"),
        ("a.tsv", "SMILES\tcaption\nC\tgas\n", "has the columns SMILES, caption; a table of predictions has"),
        ("binary", b"\xff\xfe\x00", "not UTF-8"),
        ("wide.csv", "reference,prediction\nC,C\n".encode("utf-16-le"), "looks like UTF-16"),  # it is UTF-8, too
        ("a.tsv.gz", gzip.compress(b"C\n" * 500, mtime=0)[:20] + b"\xff" * 9, "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(BadFileError, match=message):
        read_predictions(write(tmp_path / name, text))


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), data)
    return path


def test_packed_files_are_told_by_content_and_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = b"id,reference,prediction\nx,CCO,CC\n"
    for path in (
        zipped(tmp_path / "a.zip", deep__file_csv=rows, _DS_Store=b"\0"),
        zipped(tmp_path / "b.zip", file_csv_gz=gzip.compress(rows, mtime=0)),
        write(tmp_path / "C.CSV", gzip.compress(rows, mtime=0)),
    ):
        assert read_predictions(path, task="cap2mol")["prediction"].tolist() == ["CC"], path
    with pytest.raises(BadFileError, match=r"holds 2 files \(a.txt, b.txt\)"):
        read_predictions(zipped(tmp_path / "d.zip", a_txt=b"C", b_txt=b"C"))
    # A password (bit 0 of the flags) and a method that nobody has, in both headers.
    whole = zipped(tmp_path / "e.zip", a_csv=rows).read_bytes()
    central = whole.index(b"PK\x01\x02")
    for local, offset, value in ((6, central + 8, 1), (8, central + 10, 99)):
        changed = bytearray(whole)
        changed[local], changed[offset] = value, value
        with pytest.raises(BadFileError, match="cannot be read"):
            read_predictions(write(tmp_path / "e.zip", bytes(changed)))
    monkeypatch.setattr(text_tables, "MAX_BYTES", 1 << 20)
    zeros = gzip.compress(bytes(1 << 24), mtime=0)
    for path in (write(tmp_path / "g.gz", zeros), zipped(tmp_path / "g.zip", a_gz=zeros), Path("/dev/zero")):
        with pytest.raises(BadFileError, match="more than 1 MB unpacked"):
            read_predictions(path)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_quotes_are_csvs_with_commas(tmp_path: Path, quoting: Any, ending: str) -> None:
    table = pd.DataFrame({"id": [5, 6], "reference": ['a "drug", it is', "d\ne"], "prediction": ["a", "b"]})
    for name, separator in {"a.csv": ",", "a.txt": ";"}.items():
        table.to_csv(tmp_path / name, sep=separator, index=False, quoting=quoting, lineterminator=ending)
        frame = read_predictions(tmp_path / name, task="mol2cap")
        assert frame["reference"].tolist() == table["reference"].tolist(), name
        assert frame["id"].astype(str).tolist() == ["5", "6"]
        assert "a cell of several lines, the first in line 3" in "; ".join(frame.attrs["notes"])


def test_captions_come_from_lines_or_from_their_column(tmp_path: Path) -> None:
    for name, text, captions in (
        ("a.txt", "one, two\n\nthree\n", ["one, two", "", "three"]),
        ("a.csv", 'id,caption,output\n1,x,"one, two"\n', ["one, two"]),
        ("b.csv", "smiles,caption\nC,x\n", ["x"]),
    ):
        assert read_captions(write(tmp_path / name, text)) == captions
    with pytest.raises(BadFileError, match="has the columns smiles, id"):
        read_captions(write(tmp_path / "c.csv", "smiles,id\nC,x\n"))
    with pytest.raises(BadFileError, match="is missing: give the path"):
        read_captions(tmp_path / "none.txt")
