"""Steps and files: done once, repeated only for a reason, never half written."""

import os
from pathlib import Path

import pandas as pd
import pytest

from lmolt_utils.files import BadFileError, atomic, atomic_folder, fingerprint, read_json, read_rows, write_rows
from lmolt_utils.steps import closure, code_hash, record_path, step


def _count(folder: Path, calls: list[str], **changes: object) -> tuple[bool, str]:
    """Run one step that writes a file; returns whether it ran and what it said."""
    source, output = folder / "in.txt", folder / "out.txt"
    said: list[str] = []

    def make() -> None:
        calls.append("made")
        output.write_text(source.read_text() + str(changes))

    ran = step(
        "test",
        make,
        outputs=[output],
        params=changes,
        inputs={"source": source},
        modules=["lmolt_utils.prompts"],
        say=said.append,
    )
    return ran, said[0]


def test_a_step_runs_once_and_says_why_it_runs_again(tmp_path: Path) -> None:
    calls: list[str] = []
    (tmp_path / "in.txt").write_text("a")
    assert _count(tmp_path, calls, beta=1) == (True, f"test: {tmp_path}/out.txt is not there yet")
    assert _count(tmp_path, calls, beta=1) == (False, "test: up to date")
    assert _count(tmp_path, calls, beta=2) == (True, "test: changed params: beta")
    (tmp_path / "in.txt").write_text("b")
    assert _count(tmp_path, calls, beta=2) == (True, "test: changed inputs: source")
    (tmp_path / "out.txt").write_text("tampered")
    ran, why = _count(tmp_path, calls, beta=2)
    assert ran
    assert "was changed after it was made" in why
    assert len(calls) == 4


def test_a_failing_step_leaves_no_record(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        step("bad", fail, outputs=[tmp_path / "x"], params={}, modules=[], say=lambda _: None)
    assert not record_path(tmp_path / "x").exists()


def test_record_tells_what_made_the_file(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a")
    _count(tmp_path, [], beta=1)
    record = read_json(record_path(tmp_path / "out.txt"))
    assert record["key"]["params"] == {"beta": 1}
    assert record["key"]["inputs"]["source"] == fingerprint(tmp_path / "in.txt")
    assert record["outputs"]["out.txt"] == fingerprint(tmp_path / "out.txt")
    assert {"commit", "versions", "hardware", "wall_s", "peak_mb"} <= set(record)


def test_code_hash_follows_imports_and_ignores_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "lmolt_utils.prompts" in closure(["lmolt_utils.training"])
    assert "lmolt_utils.figures" not in closure(["lmolt_utils.training"])
    package = tmp_path / "lmolt_utils"
    package.mkdir()
    for name, text in {"__init__": "", "a": "from lmolt_utils.b import f\n", "b": "def f():\n    return 1\n"}.items():
        (package / f"{name}.py").write_text(text)
    import lmolt_utils.steps as steps

    monkeypatch.setattr(steps, "__file__", str(package / "steps.py"))
    steps._imports.cache_clear()
    before = code_hash(["lmolt_utils.a"])
    (package / "b.py").write_text('def f():\n    """Docs."""\n    # why\n    return 1\n')
    assert code_hash(["lmolt_utils.a"]) == before
    (package / "b.py").write_text("def f():\n    return 2\n")
    assert code_hash(["lmolt_utils.a"]) != before
    steps._imports.cache_clear()


def test_half_a_file_never_gets_the_final_name(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target) as part:  # noqa: PT012
        part.write_text("half")
        raise RuntimeError("killed")
    assert target.read_text() == "old"
    folder = tmp_path / "folder"
    with pytest.raises(RuntimeError), atomic_folder(folder) as part:  # noqa: PT012
        (part / "x").write_text("half")
        raise RuntimeError("killed")
    assert not folder.exists()
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"could not be written \(No space left on device\); free space"),
        atomic(tmp_path / "x"),
    ):
        raise OSError(28, "No space left on device")


def test_damaged_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(BadFileError, match="is missing: run the notebook"):
        read_rows(path, ["a"])
    write_rows(path, pd.DataFrame({"a": ["x", "é/\\"]}))
    assert read_rows(path, ["a"])["a"].tolist() == ["x", "é/\\"]
    with pytest.raises(BadFileError, match="no column 'b'"):
        read_rows(path, ["b"])
    text = path.read_text()
    path.write_text(text[:-3])
    with pytest.raises(BadFileError, match="cut short"):
        read_rows(path, ["a"])
    path.write_text(text + "{oops\n")
    with pytest.raises(BadFileError, match="line 3 is not JSON"):
        read_rows(path, ["a"])
