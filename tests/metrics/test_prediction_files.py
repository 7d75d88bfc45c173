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
        assert frame["reference"].tolist() == ['"CC"', "CCO"]
        assert frame["prediction"].tolist() == ["C/C=C\\C", ""]
        assert frame["id"].tolist() == [0, 1]


def test_json_lines(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "task": "cap2mol", "source": "s", "reference": "CC", "raw": " CC", "prediction": "CC"},
        {"id": "b", "task": "cap2mol", "source": "s", "reference": "CC", "raw": "", "prediction": None},
    ]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    frame = read_predictions(path)
    assert frame["task"].tolist() == ["cap2mol"] * 2
    assert frame[["raw", "prediction"]].to_numpy().tolist() == [[" CC", "CC"], ["", None]]


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
    for name, text in {
        "twice.tsv": "id\treference\n7\tC\n9\tOCC\n7\tN\n",
        "twice.jsonl": '{"id": 7, "reference": "C"}\n{"id": 9, "reference": "OCC"}\n{"id": "7", "reference": "N"}\n',
    }.items():
        with pytest.raises(BadFileError, match=r"line 4: id '7' is also in line 2|line 3: id '7' is also in line 1"):
            read_predictions(outputs, reference=write(tmp_path / name, text))
    for bad in ("null", "true", "1.5", "[1]", "{}", '""'):
        with pytest.raises(BadFileError, match="line 1: the id is"):
            read_predictions(write(tmp_path / "a.jsonl", f'{{"id": {bad}, "prediction": "C"}}\n'), reference=references)
    more = write(tmp_path / "more.tsv", "id\treference\n7\tC\n9\tOCC\n5\tN\n4\tO\n")
    with pytest.raises(BadFileError, match="2 ids have no prediction; the first is '5'"):
        read_predictions(outputs, reference=more)
    fewer = write(tmp_path / "fewer.tsv", "id\treference\n7\tC\n")
    with pytest.raises(BadFileError, match="line 3: id '9' is not in"):
        read_predictions(outputs, reference=fewer)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "is empty"),
        ("a.jsonl", '{"prediction": "C"}\n{"prediction"\n', "line 2: not JSON"),
        ("a.jsonl", '{"prediction": "C"}\n["C"]\n', r"line 2: not JSON \(no object but list"),
        ("a.jsonl", '{"answer": "C"}\n', "has the columns answer; a table of predictions has"),
        ("a.jsonl", '{"reference": "C", "prediction": "C"}\n{"reference": "C"}\n', "line 2: 'prediction' is missing"),
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
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BadFileError, match=message):
        read_predictions(write(tmp_path / name, text))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="is missing: give the path"):
        read_predictions(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFileError, match="not UTF-8"):
        read_predictions(tmp_path / "binary")
    (tmp_path / "wide.csv").write_bytes("reference,prediction\nC,C\n".encode("utf-16-le"))  # all of it is UTF-8, too
    with pytest.raises(BadFileError, match="looks like UTF-16"):
        read_predictions(tmp_path / "wide.csv")


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), data)
    return path


def test_packed_files_are_told_by_content_and_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = b"id,reference,prediction\nx,CCO,CC\n"
    for path in (
        zipped(tmp_path / "a.zip", deep__file_csv=rows, _DS_Store=b"\0"),
        zipped(tmp_path / "b.zip", file_csv_gz=gzip.compress(rows)),
        tmp_path / "C.CSV",
    ):
        if path.suffix == ".CSV":
            path.write_bytes(gzip.compress(rows))
        assert read_predictions(path, task="cap2mol")["prediction"].tolist() == ["CC"], path
    with pytest.raises(BadFileError, match=r"holds 2 files \(a.txt, b.txt\)"):
        read_predictions(zipped(tmp_path / "d.zip", a_txt=b"C", b_txt=b"C"))
    # A password (bit 0 of the flags) and a method that nobody has, in both headers.
    whole = zipped(tmp_path / "e.zip", a_csv=rows).read_bytes()
    central = whole.index(b"PK\x01\x02")
    for local, offset, value in ((6, central + 8, 1), (8, central + 10, 99)):
        changed = bytearray(whole)
        changed[local], changed[offset] = value, value
        (tmp_path / "e.zip").write_bytes(changed)
        with pytest.raises(BadFileError, match="cannot be read"):
            read_predictions(tmp_path / "e.zip")
    damaged = bytearray(gzip.compress(rows * 50))
    damaged[20:24] = b"\xff" * 4
    (tmp_path / "f.tsv.gz").write_bytes(damaged)
    with pytest.raises(BadFileError, match="cannot be read"):
        read_predictions(tmp_path / "f.tsv.gz")
    monkeypatch.setattr(text_tables, "MAX_BYTES", 1 << 20)
    zeros = bytes(1 << 24)
    (tmp_path / "g.gz").write_bytes(gzip.compress(zeros))
    for path in (tmp_path / "g.gz", zipped(tmp_path / "g.zip", a_gz=gzip.compress(zeros)), Path("/dev/zero")):
        with pytest.raises(BadFileError, match="more than 1 MB unpacked"):
            read_predictions(path)


def notes(path: Path, **settings: Any) -> str:
    return "; ".join(read_predictions(path, **settings).attrs["notes"])


def test_a_header_is_known_by_its_names_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    outputs = write(tmp_path / "o.txt", "Prediction \nCCO\nCCC\n")
    references = write(tmp_path / "r.txt", "SMILES\nCCO\nCCC\n")
    frame = read_predictions(outputs, task="cap2mol", reference=references)
    assert frame["prediction"].tolist() == frame["reference"].tolist() == ["CCO", "CCC"]
    assert "line 1 ('Prediction ') is a header; references: line 1 ('SMILES') is a header" in "; ".join(
        frame.attrs["notes"]
    )
    plain = write(tmp_path / "plain.txt", "answers\nCCO\nCCC\n")
    with pytest.raises(BadFileError, match="Is a first line a header"):
        read_predictions(plain, task="cap2mol", reference=references)
    ids = write(tmp_path / "ids.csv", "ID;Canonical_Smiles\n7;CCO\n8;CCC\n")
    assert read_predictions(outputs, task="cap2mol", reference=ids)["reference"].tolist() == ["CCO", "CCC"]
    assert "in the order of the files" in notes(outputs, task="cap2mol", reference=ids)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_quotes_are_csvs_with_commas_and_characters_with_tabs(tmp_path: Path, quoting: Any, ending: str) -> None:
    table = pd.DataFrame({"id": [5, 6], "reference": ['a "drug", it is', "d\ne"], "prediction": ["a", "b"]})
    for name, separator in {"a.csv": ",", "a.txt": ";"}.items():
        table.to_csv(tmp_path / name, sep=separator, index=False, quoting=quoting, lineterminator=ending)
        frame = read_predictions(tmp_path / name, task="mol2cap")
        assert frame["reference"].tolist() == table["reference"].tolist(), name
        assert [str(name) for name in frame["id"]] == ["5", "6"]
        assert "a cell of several lines, the first in line 3" in "; ".join(frame.attrs["notes"])
    literal = write(tmp_path / "b.tsv", 'reference\tprediction\n"a ""b"" c"\td\nC6"-modified\te\n')
    assert read_predictions(literal)["reference"].tolist() == ['"a ""b"" c"', 'C6"-modified']
    assert "1 cells begin and end with a quote" in notes(literal)


def test_tables_of_spreadsheets_and_long_cells(tmp_path: Path) -> None:
    excel = write(tmp_path / "a.csv", "\ufeffGround_Truth;Output\r\nCCO;CC\r\n\r\nC;C\r\n\r\n")
    frame = read_predictions(excel, task="cap2mol")
    assert (frame["reference"].tolist(), frame["prediction"].tolist()) == (["CCO", "C"], ["CC", "C"])
    long = write(tmp_path / "b.csv", f"reference,prediction\nCCO,{'C' * 140_000}\n")
    assert len(read_predictions(long, task="cap2mol")["prediction"][0]) == 140_000


def test_json_arrays_and_text_only(tmp_path: Path) -> None:
    rows = [{"task": "cap2mol", "reference": "CCO", "prediction": answer} for answer in ("CC", None)]
    path = write(tmp_path / "a.json", json.dumps(rows, indent=1))
    assert read_predictions(path)["prediction"].tolist() == ["CC", None]
    bracket = write(tmp_path / "b.txt", "[Na+].[Cl-]\nCC\n")  # no JSON
    assert read_predictions(bracket, task="cap2mol", reference=bracket)["prediction"].tolist() == ["[Na+].[Cl-]", "CC"]
    for name, values in {
        "prediction": ("5", "true", '["CC"]', "{}"),
        "reference": ("5", "true", "[1]", "{}", "null"),
    }.items():
        for value in values:
            row = {"reference": '"CC"', "prediction": '"CC"'} | {name: value}
            text = ", ".join(f'"{key}": {cell}' for key, cell in row.items())
            with pytest.raises(BadFileError, match=f"line 1: '{name}' is .*; text is needed"):
                read_predictions(write(tmp_path / "c.jsonl", f"{{{text}}}\n"), task="cap2mol")


def test_captions_come_from_lines_or_from_their_column(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.txt", "one, two\n\nthree\n")
    assert read_captions(lines) == ["one, two", "", "three"]
    table = write(tmp_path / "a.csv", 'id,caption,output\n1,x,"one, two"\n')
    assert read_captions(table) == ["one, two"]
    assert read_captions(write(tmp_path / "b.csv", "smiles,caption\nC,x\n")) == ["x"]
    with pytest.raises(BadFileError, match="has the columns smiles, id"):
        read_captions(write(tmp_path / "c.csv", "smiles,id\nC,x\n"))
