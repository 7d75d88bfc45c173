"""`lmolt score`: from a file to a table, JSON and CSV."""

import csv
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from lmolt_utils.cli import main
from lmolt_utils.metrics.prediction_files import read_predictions
from lmolt_utils.metrics.scoring import Scorer

MOLECULES = "description\tground truth\toutput\na\tCCO\tOCC\nb\tCC\tC1CC\nc\tCCC\tCCC\n"
CAPTIONS = "SMILES\tground truth\toutput\nC\tThe molecule is a gas.\tThe molecule is a gas.\nCC\tIt is sweet.\t\n"


@pytest.fixture
def molecules(tmp_path: Path) -> Path:
    path = tmp_path / "molecules.txt"
    path.write_text(MOLECULES)
    return path


def test_table_json_and_csv_agree(molecules: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, table = tmp_path / "out.json", tmp_path / "out.csv"
    assert main(["score", str(molecules), "--invalid", "molt5", "--json", str(out), "--csv", str(table)]) == 0
    shown = capsys.readouterr().out
    report: dict[str, Any] = json.loads(out.read_text())
    expected = Scorer(invalid="molt5").score(read_predictions(molecules))
    assert (report["task"], report["n"]) == ("cap2mol", 3)
    assert set(report["metrics"]) == set(expected.metrics)
    for name, entry in report["metrics"].items():
        assert entry["value"] == expected.metrics[name], name
        assert {"value", "low", "high", "n"} <= set(entry)
        if entry["low"] is not None:
            assert entry["low"] <= entry["value"] <= entry["high"], name
        assert name in shown
    assert report["conventions"]["invalid"] == "molt5"
    assert report["conventions"]["rdkit_version"]
    assert report["files"]["predictions"]["name"] == "molecules.txt"
    rows = list(csv.DictReader(table.open()))
    assert {row["metric"]: float(row["value"]) for row in rows} == expected.metrics
    assert "invalid molt5" in shown
    assert "invalid_predictions: 1" in shown
    assert "fcd_dropped_invalid: 1" in shown


def test_captions_name_their_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "captions.txt"
    path.write_text(CAPTIONS)
    assert main(["score", str(path), "--tokenizer", "regex", "--meteor", "exact+stem"]) == 0
    shown = capsys.readouterr().out
    assert "mol2cap, 2 rows; tokenizer regex, meteor_matcher exact+stem" in shown
    assert "empty_predictions: 1" in shown
    for name in ("BLEU-2", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR"):
        assert name in shown


def test_undefined_values_are_null(tmp_path: Path) -> None:
    path, out = tmp_path / "one.txt", tmp_path / "out.json"
    path.write_text("description\tground truth\toutput\na\tCCO\tC1CC\n")
    assert main(["score", str(path), "--invalid", "molt5", "--json", str(out)]) == 0
    report = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert report["metrics"]["FCD"]["value"] is None
    assert report["metrics"]["MACCS"]["value"] is None


def test_submission_and_postprocessing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs, references = tmp_path / "o.txt", tmp_path / "r.txt"
    outputs.write_text("['CCO']\nCC\\n\n")
    references.write_text("CCO\nCC\n")
    command = ["score", str(outputs), "--task", "cap2mol", "--reference", str(references)]
    out = tmp_path / "out.json"
    assert main([*command, "--postprocess", "clean", "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["metrics"]["Exact"]["value"] == 1
    assert report["conventions"]["postprocess: list repr unwrapped"] == 1
    assert report["files"]["references"]["name"] == "r.txt"
    assert main([*command, "--json", str(out)]) == 0
    assert json.loads(out.read_text())["metrics"]["Validity"]["value"] == 0
    capsys.readouterr()


def test_reports_go_to_devices_in_place_and_through_links(molecules: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "target.json")
    assert main(["score", str(molecules), "--json", str(link), "--csv", "/dev/null"]) == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert link.is_symlink()
    assert json.loads((tmp_path / "target.json").read_text())["files"]["notes"] == []


def test_a_report_never_replaces_an_input(molecules: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hard = tmp_path / "same.txt"
    hard.symlink_to(molecules)
    for arguments in (
        ["score", str(molecules), "--json", str(molecules)],
        ["score", str(molecules), "--csv", str(hard)],
        ["score", str(molecules), "--reference", str(molecules), "--json", str(hard)],
        ["nli", str(molecules), "--json", str(hard)],
        ["score", str(molecules), "--json", str(tmp_path / "o"), "--csv", str(tmp_path / "o")],
    ):
        assert main(arguments) == 2
        assert "also given as another file" in capsys.readouterr().err
    assert main(["nli", str(molecules), "--cache", str(hard)]) == 2
    assert "is an input" in capsys.readouterr().err
    assert molecules.read_text() == MOLECULES
    assert main(["score", str(molecules), "--json", str(tmp_path)]) == 2
    assert "it is a folder" in capsys.readouterr().err


def test_options_that_cannot_be_are_told_at_once(molecules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not torch.cuda.is_available():
        assert main(["nli", str(molecules), "--device", "cuda"]) == 2
        assert "--device cuda is not to be had here" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["score", str(molecules), "--resamples", "1000000000"])
    assert "from 100 to 100,000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "mol2cap"], "hold rows of ['cap2mol']"),
        (["--json", "none/out.json"], "there is no folder none"),
        (["--reference", "none.txt"], "none.txt is missing"),
    ],
)
def test_errors_are_one_message(
    molecules: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(molecules), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lmolt: ")
    assert message in error
