"""``lmolt why``: real steps chained from a corpus to a cell, walked back; what was edited or lost is said."""

import shutil
from pathlib import Path

import pytest

from lmolt_utils.cli import main
from lmolt_utils.files import read_json, write_json, write_text
from lmolt_utils.paths import root
from lmolt_utils.run.steps import record_path, step

MODEL = root() / "lmolt_utils" / "embedded" / "models" / "cap2mol"
LINES = """table,row,kind,metric,paper,reproduced,n,system,low,high,p,note
T2,CPO,value,BLEU-2,0.62,0.5243912243,9,cpo,,,,
T2,KTO,value,BLEU-2,0.00,undefined,9,cpo,,,,
T2,SFT,value,BLEU-2,0.37,not run,,,,,,
T2,CPOvsMED,difference,BLEU-2,,0.1,,,,,,CPO minus Meditron; rounding
"""
#: step -> output, inputs; in the order in which they are made.
CHAIN: dict[str, tuple[str, dict[str, str]]] = {
    "corpus": ("data/corpus.jsonl", {}),
    "pairs": ("data/pairs.jsonl", {"sample": "data/corpus.jsonl"}),
    "train cpo": ("models/cpo.bin", {"pairs": "data/pairs.jsonl", "initial": str(MODEL)}),
    "predict cpo mol2cap": (
        "predictions/cpo.mol2cap.jsonl",
        {"adapter": "models/cpo.bin", "test": "data/corpus.jsonl"},
    ),
    "score cpo mol2cap": ("scores/cpo.mol2cap.json", {"predictions": "predictions/cpo.mol2cap.jsonl"}),
}


def chain(folder: Path, beta: float = 0.1) -> Path:
    """A finished run of five real steps; returns its Table 2."""
    for name, (output, inputs) in CHAIN.items():

        def make(_: Path, output: str = output) -> None:
            write_json(folder / output, {"metrics": {"BLEU-2": 0.52439122431}, "file": output, "beta": beta})

        given = {role: folder / path for role, path in inputs.items()}
        step(name, make, outputs=[folder / output], params={"beta": beta}, inputs=given, say=lambda _: None)
    write_text(folder / "figures" / "table_T2.csv", LINES)
    return folder / "figures" / "table_T2.csv"


def told(capsys: pytest.CaptureFixture[str], table: Path, row: str = "CPO", metric: str = "BLEU-2") -> list[str]:
    assert main(["why", str(table), row, metric]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_number_is_followed_to_the_corpus(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, chain(runs / "smoke"))
    assert "no record of 08_figures" in lines[1]
    assert "the number in the table" in lines[2]
    files = ["scores/cpo", "predictions/cpo", "models/cpo.bin", "data/pairs", "data/corpus"]
    places = [next(place for place, line in enumerate(lines) if file in line) for file in files]
    assert places == sorted(places)
    depths = [len(lines[place]) - len(lines[place].lstrip()) for place in places]
    assert depths == [2, 4, 6, 8, 10]
    assert all("unchanged" in lines[place] and "commit" in lines[place] for place in places)
    assert any("embedded/models/cap2mol, comes with the package" in line for line in lines)
    assert sum("parameters: beta = 0.1" in line for line in lines) == len(CHAIN), "each step once"
    assert told(capsys, runs / "smoke" / "figures" / "table_T2.csv", "cpo") == lines, "a system's name will do"


def test_what_was_edited_lost_or_made_again_is_said(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = chain(runs / "smoke")
    (runs / "smoke" / "data" / "pairs.jsonl").write_text("edited", encoding="utf-8")
    (runs / "smoke" / "models" / "cpo.bin").unlink()
    edited = read_json(runs / "smoke" / "scores" / "cpo.mol2cap.json") | {"metrics": {"BLEU-2": 0.9}}
    write_json(runs / "smoke" / "scores" / "cpo.mol2cap.json", edited)
    text = "\n".join(told(capsys, table))
    for file, state in (
        ("scores/cpo.mol2cap.json", "CHANGED"),
        ("data/pairs.jsonl", "CHANGED"),
        ("cpo.bin", "MISSING"),
    ):
        assert f"{file}, {state}" in text
    assert "0.9, NOT the number in the table" in text
    record_path(runs / "smoke" / "data" / "pairs.jsonl").unlink()
    assert "pairs: LOST: no record has hash" in "\n".join(told(capsys, table))


def test_what_was_not_made_is_said(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = chain(runs / "smoke")
    assert "no system of the run stands for 'SFT'" in told(capsys, table, "SFT")[-1]
    assert "NOT the number in the table" in told(capsys, table, "KTO")[2]
    record_path(runs / "smoke" / "scores" / "cpo.mol2cap.json").unlink()
    assert "no step 'score cpo mol2cap' yet" in told(capsys, table)[-1]
    shutil.rmtree(runs / "smoke")
    lines = told(capsys, root() / "figures" / "table_T2.csv")
    assert "profile cpu; its commit is not known" in lines[1]
    assert "is not here: make reproduce PROFILE=cpu" in lines[2]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("table_T2.csv", "CP", "BLEU-2"), "did you mean 'CPO'?"),
        (("table_T2.csv", "CPO", "BLEU2"), "did you mean 'BLEU-2'?"),
        (("table_T3.csv", "CPO", "BLEU-2"), "table_T2.csv'?"),
        (("table_T2.csv", "CPOvsMED", "BLEU-2"), "is a difference (CPO minus Meditron): ask for one"),
    ],
)
def test_a_wrong_name_is_told_the_nearest(
    runs: Path, asked: tuple[str, str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = chain(runs / "smoke")
    assert main(["why", str(table.with_name(asked[0])), *asked[1:]]) == 2
    assert message in capsys.readouterr().err
