"""``lmolt crate``: every step an action on files that are in the crate; a run that is not whole says so."""

import json
from pathlib import Path
from typing import Any

import pytest

from lmolt_utils.cli import main
from tests.run.test_why import CHAIN, chain


def graph(out: Path) -> dict[str, dict[str, Any]]:
    written = json.loads((out / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    assert "sha256" in written["@context"][1], "no term of RO-Crate 1.1: roc-validator refuses it undefined"
    return {entity["@id"]: entity for entity in written["@graph"]}


def test_a_run_becomes_a_crate(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rocrate", reason="an extra: pip install -e '.[crate]'")
    chain(runs / "smoke")
    (runs / "smoke" / "data" / "pairs.jsonl").write_text("edited", encoding="utf-8")
    assert main(["crate", str(runs / "smoke"), str(tmp_path / "out")]) == 0
    found = graph(tmp_path / "out")
    steps = {f"#{name.replace(' ', '-')}": file for name, (file, _) in CHAIN.items()}
    assert {name for name, entity in found.items() if entity["@type"] == "CreateAction"} == {*steps, "#run"}
    for step, file in steps.items():
        assert found[step]["result"] == [{"@id": f"run/{file}"}]
        assert (tmp_path / "out" / "run" / file).is_file()
    assert {"@id": "run/models/cpo.bin"} in found["#predict-cpo-mol2cap"]["object"]
    assert found["#run"]["actionStatus"].endswith("FailedActionStatus")
    assert "changed after it was made: run/data/pairs.jsonl; not run: 01_data" in found["./"]["description"]
    assert "not run: 08_figures" in capsys.readouterr().out


def test_no_crate_of_nothing_or_over_something(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rocrate", reason="an extra: pip install -e '.[crate]'")
    assert main(["crate", str(runs / "smoke"), str(runs / "out")]) == 2
    assert "no provenance records" in capsys.readouterr().err
    chain(runs / "smoke")
    assert main(["crate", str(runs / "smoke"), str(runs)]) == 2
    assert "is there already" in capsys.readouterr().err
