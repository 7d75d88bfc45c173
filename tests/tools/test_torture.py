"""The short form of `make torture`: a few signals, and all damage, on the first notebook; and that it sees faults."""

import random
from pathlib import Path

import pytest

from lmolt_utils.run.steps import step
from tools.torture import Torture, cut, flip, main


@pytest.mark.slow
def test_a_short_torture_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--signals", "2", "--files", "2", "--notebooks", "01_data"]) == 0
    told = capsys.readouterr().out
    for attack in ("SIGKILL", "files cut short", "files with a flipped bit", "files of 2046", "two runs at once"):
        assert attack in told


def test_it_sees_half_a_file_and_other_bytes(tmp_path: Path) -> None:
    for name in ("undisturbed", "tortured"):
        file = tmp_path / name / "smoke" / "data" / "a.jsonl"
        step("a", lambda _, file=file: file.write_text("whole\n"), outputs=[file], params={}, say=lambda _: None)
    it, rng = Torture(tmp_path), random.Random(0)
    it.whole("x", tmp_path / "tortured")
    it.compare("x", tmp_path / "tortured")
    assert it.faults == []
    cut(file, rng)
    it.whole("x", tmp_path / "tortured")
    it.compare("x", tmp_path / "tortured")
    assert [told for _, told in it.faults] == [
        "a.jsonl is not what its record says", "1 of 1 files differ: smoke/data/a.jsonl",
    ]  # fmt: skip
    file.write_text("whole\n")
    before = file.stat().st_mtime_ns
    flip(file, rng)
    assert file.read_text() != "whole\n"
    assert file.stat().st_mtime_ns == before
