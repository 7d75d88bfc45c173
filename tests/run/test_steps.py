"""Steps and files: done once, repeated only for a reason, never half written."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest

from lmolt_utils.files import BadFileError, atomic, atomic_folder, fingerprint, read_json, read_rows, write_rows
from lmolt_utils.paths import root
from lmolt_utils.run import steps
from lmolt_utils.run.notebooks import package_hash
from lmolt_utils.run.resume import answered
from lmolt_utils.run.steps import made_by_older_code, record_path, step


def copied(folder: Path, **params: object) -> tuple[bool, str]:
    """Run one step that copies in.txt to out.txt; returns whether it ran and what it said."""
    source, output = folder / "in.txt", folder / "out.txt"
    said: list[str] = []

    def make(_: Path) -> None:
        output.write_text(source.read_text())

    ran = step("test", make, outputs=[output], params=params, inputs={"source": source}, say=said.append)
    return ran, said[0]


def test_a_step_runs_once_and_says_why_it_runs_again(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a")
    assert copied(tmp_path, beta=1) == (True, f"test: made now ({tmp_path}/out.txt is not there yet)")
    assert copied(tmp_path, beta=1) == (False, "test: up to date")
    assert copied(tmp_path, beta=2) == (True, "test: made now (changed params: beta)")
    (tmp_path / "in.txt").write_text("b")
    assert copied(tmp_path, beta=2) == (True, "test: made now (changed inputs: source)")
    (tmp_path / "out.txt").write_text("tampered")
    assert copied(tmp_path, beta=2) == (True, f"test: made now ({tmp_path}/out.txt was changed after it was made)")
    record = read_json(record_path(tmp_path / "out.txt"))
    assert record["key"] == {"params": {"beta": 2}, "inputs": {"source": fingerprint(tmp_path / "in.txt")}}
    assert record["outputs"] == {"out.txt": fingerprint(tmp_path / "out.txt")}
    assert {"versions", "hardware", "wall_s", "peak_mb"} <= set(record)
    assert record["code"]["module"] == __name__
    assert len(record["code"]["commit"]) >= 7


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"key": 3}', None])
def test_a_damaged_or_missing_record_counts_as_stale(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "in.txt").write_text("a")
    copied(tmp_path, beta=1)
    record = record_path(tmp_path / "out.txt")
    record.unlink() if text is None else record.write_text(text)
    ran, why = copied(tmp_path, beta=1)
    assert ran
    assert ("no record, as a kill leaves it" if text is None else "a damaged record") in why
    assert copied(tmp_path, beta=1)[0] is False


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a process's peak")
def test_peak_memory_is_the_steps_own(tmp_path: Path) -> None:
    def peak(name: str, megabytes: int) -> float:
        def make(_: Path) -> None:
            (tmp_path / name).write_bytes(bytes(len(bytearray(b"x") * (megabytes << 20)) % 7))

        step(name, make, outputs=[tmp_path / name], params={}, say=lambda _: None)
        return float(read_json(record_path(tmp_path / name))["peak_mb"])

    large, small = peak("large", 300), peak("small", 1)
    assert large > small + 250


def test_written_figures_are_no_change_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "figures").mkdir()
    code, figure = tmp_path / "code.py", tmp_path / "figures" / "a.csv"
    code.write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(steps, "root", lambda: tmp_path)
    figure.write_text("1")
    assert len(steps.commit.__wrapped__()) == 40
    code.write_text("2")
    assert steps.commit.__wrapped__().endswith("+changes")


def test_shards_that_are_damaged_are_asked_for_again(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def ask(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
        asked.append(list(texts))
        for row, text in enumerate(texts):
            yield [(row, text.upper())]

    assert answered(list("abcd"), ask, tmp_path, 2, "asking") == list("ABCD")
    (last,) = tmp_path.glob("00001*")
    for damaged in (last.read_text()[:-5], last.read_text().replace('"C"', '"K"')):
        last.write_text(damaged)
        assert answered(list("abcd"), ask, tmp_path, 2, "asking") == list("ABCD")
    assert asked == [list("abcd"), ["c", "d"]]  # one asking: what was asked again is kept under another number


def test_code_is_recorded_and_redone_only_where_it_is_cheap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another line in a module that the step's own imports: short steps again, long ones kept and named."""
    package, output = tmp_path / "lmolt_utils", tmp_path / "run" / "out.txt"
    (package / "run").mkdir(parents=True)
    (package / "a.py").write_text("import lmolt_utils.b\nNAMES = 'names.tsv'\n")
    (package / "names.tsv").write_text("x")
    monkeypatch.setattr(steps, "__file__", str(package / "run" / "steps.py"))
    monkeypatch.setattr(steps, "_read", steps._read.__wrapped__)  # what they keep is of the real package
    monkeypatch.setattr(steps, "code_hash", steps.code_hash.__wrapped__)

    def make(_: Path) -> None:
        output.write_text("made")

    make.__module__ = "lmolt_utils.a"

    def step_with(b: str, redo_below_s: float, asked: str = "") -> tuple[bool, str]:
        """The step, with ``b`` in b.py."""
        (package / "b.py").write_text(b)
        monkeypatch.setenv("LMOLT_REDO", asked)
        said: list[str] = []
        ran = step("train x", make, outputs=[output], params={}, redo_below_s=redo_below_s, say=said.append)
        return ran, said[0]

    first, second, third = (f"def f():\n    return {number}\n" for number in (1, 2, 3))
    assert step_with(first, 120)[0]
    commented = '"""A module."""\ndef f():\n    """Docs."""\n    # why\n    return 1\n'
    assert step_with(commented, 120) == (False, "train x: up to date")
    ran, why = step_with(second, 0)
    assert not ran
    assert "made by older code" in why
    assert list(made_by_older_code(tmp_path / "run")) == ["train x"]
    assert step_with(second, 0, "predict*")[0] is False
    assert step_with(second, 0, "train*") == (True, "train x: made now (its code changed)")
    assert made_by_older_code(tmp_path / "run") == {}
    assert step_with(third, 120) == (True, "train x: made now (its code changed)")
    (package / "other.tsv").write_text("of no module")
    assert step_with(third, 0)[1] == "train x: up to date"
    (package / "names.tsv").write_text("y")
    assert "made by older code" in step_with(third, 0)[1]
    assert step_with(third, 0, "all") == (True, "train x: made now (its code changed)")  # lmolt reproduce --redo all


def test_notebooks_run_again_when_any_file_of_the_package_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = shutil.copytree(root() / "lmolt_utils", tmp_path / "lmolt_utils", ignore=shutil.ignore_patterns("models"))
    captions = tmp_path / "params" / "printed_captions.tsv"
    captions.parent.mkdir()
    captions.write_text("x")
    monkeypatch.setenv("LMOLT_ROOT", str(tmp_path))
    others = [path for path in package.rglob("*.*") if path.suffix not in (".py", ".pyc") and path.is_file()]
    assert {path.name for path in others} >= {"sentences.tsv", "report.html.j2", "companion.mplstyle"}
    for path in (*others, captions, package / "cli.py"):
        before = package_hash()
        path.write_text(path.read_text() + " ")
        assert package_hash() != before, path


def test_a_work_folder_survives_a_failure_but_not_another_key(tmp_path: Path) -> None:
    output, seen, said = tmp_path / "out.txt", [], []
    part, other = tmp_path / ".out.txt.k2_x9a0z" / "out.txt", tmp_path / ".out.txt.more.work"
    part.mkdir(parents=True)  # half a folder, as a kill leaves it, and another step's work
    other.mkdir()

    def make(work: Path) -> None:
        seen.append(sorted(path.name for path in work.glob("shard*")))
        (work / f"shard{len(seen)}").write_text("half")
        os.utime(work / f"shard{len(seen)}", (2e9, 2e9))
        if len(seen) < 4:
            raise RuntimeError("killed")
        output.write_text("whole")

    for beta in (1, 1, 2):
        with pytest.raises(RuntimeError, match="killed"):
            step("s", make, outputs=[output], params={"beta": beta}, say=said.append)
    assert not record_path(output).exists()
    assert step("s", make, outputs=[output], params={"beta": 2}, say=said.append)
    assert seen == [[], ["shard1"], [], ["shard3"]]
    assert ["what was kept of it is used" in line for line in said] == [False, True, False, True]
    assert list(tmp_path.glob(".*/")) == [other], "its own go when the step is done"


def test_half_a_file_never_gets_the_final_name(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target) as part:  # noqa: PT012
        part.write_text("half")
        raise RuntimeError("killed")
    assert target.read_text() == "old"
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "folder") as part:  # noqa: PT012
        (part / "x").write_text("half")
        raise RuntimeError("killed")
    full = r"could not be written \(No space left on device\); free space"
    with pytest.raises(OSError, match=full), atomic(tmp_path / "x"):
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == ["file.txt"]


def test_damaged_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(BadFileError, match="is missing: run the notebook"):
        read_rows(path, ["a"])
    write_rows(path, pd.DataFrame({"a": ["x", "é/\\"]}))
    assert read_rows(path, ["a"])["a"].tolist() == ["x", "é/\\"]
    with pytest.raises(BadFileError, match="no column 'b'"):
        read_rows(path, ["b"])
    text = path.read_text()
    for damaged, message in ((text[:-3], "cut short"), (text + "{oops\n", "line 3 is not JSON"), ("", "no rows")):
        path.write_text(damaged)
        with pytest.raises(BadFileError, match=message):
            read_rows(path, ["a"])
