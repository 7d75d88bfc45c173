"""`lmolt score`: from a file to a table and JSON."""

import json
import stat
from pathlib import Path

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


def test_table_and_json_agree_with_the_scorer(
    molecules: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert main(["score", str(molecules), "--invalid", "molt5", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    report = json.loads(out.read_text())
    expected = Scorer(invalid="molt5").score(read_predictions(molecules))
    assert (report["task"], report["n"]) == ("cap2mol", 3)
    assert {name: entry["value"] for name, entry in report["metrics"].items()} == expected.metrics
    for name, entry in report["metrics"].items():
        assert entry["low"] is None or entry["low"] <= entry["value"] <= entry["high"], name
        assert name in shown
    assert report["conventions"]["invalid"] == "molt5"
    assert report["files"]["predictions"]["name"] == "molecules.txt"
    assert "invalid molt5" in shown
    assert "invalid_predictions: 1" in shown


def test_captions_name_their_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "captions.txt"
    path.write_text(CAPTIONS)
    assert main(["score", str(path), "--tokenizer", "regex", "--meteor", "exact+stem"]) == 0
    shown = capsys.readouterr().out
    assert "mol2cap, 2 rows; tokenizer regex, meteor_matcher exact+stem" in shown
    assert "empty_predictions: 1" in shown


def test_submission_and_postprocessing(tmp_path: Path) -> None:
    outputs, references, out = (tmp_path / name for name in ("o.txt", "r.txt", "out.json"))
    outputs.write_text("['CCO']\nCC\\n\n")
    references.write_text("CCO\nCC\n")
    command = ["score", str(outputs), "--task", "cap2mol", "--reference", str(references), "--json", str(out)]
    assert main([*command, "--postprocess", "clean"]) == 0
    report = json.loads(out.read_text())
    assert report["metrics"]["Exact"]["value"] == 1
    assert report["conventions"]["postprocess: list repr unwrapped"] == 1
    assert main(command) == 0
    assert json.loads(out.read_text())["metrics"]["Validity"]["value"] == 0


def test_reports_go_to_devices_in_place_and_through_links(molecules: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "target.json")
    for report in (str(link), "/dev/null"):
        assert main(["score", str(molecules), "--json", report]) == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert link.is_symlink()
    assert json.loads((tmp_path / "target.json").read_text())["files"]["notes"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "FILE", "--task", "mol2cap"], "hold rows of ['cap2mol']"),
        (["score", "FILE", "--json", "none/out.json"], "there is no folder none"),
        (["score", "FILE", "--json", "."], "it is a folder"),
        (["score", "FILE", "--json", "FILE"], "is an input"),
        (["score", "FILE", "--reference", "FILE", "--json", "LINK"], "is an input"),
        (["nli", "FILE", "--json", "LINK"], "is an input"),
        (["score", "FILE", "--reference", "none.txt"], "none.txt is missing"),
        (["nli", "FILE"], "holds rows of cap2mol"),
        (["nli", "FILE", "--device", "cuda"], "--device cuda is not to be had here"),
    ],
)
def test_errors_are_one_message(
    molecules: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    link = tmp_path / "link.txt"
    link.symlink_to(molecules)
    paths = {"FILE": str(molecules), "LINK": str(link)}
    assert main([paths.get(word, word) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lmolt: ")
    assert message in error
    assert molecules.read_text() == MOLECULES
