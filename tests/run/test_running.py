"""How a run starts, ends and goes on: real processes on a repository whose notebooks are a few lines long."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest

from lmolt_utils.cli import main
from lmolt_utils.config.params import ParameterError, load
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import fingerprint, read_json, write_json
from lmolt_utils.paths import figures_folder, root, run_folder
from lmolt_utils.run.notebook import start
from lmolt_utils.run.notebook_files import NOTEBOOKS, SAME_NUMBERS, declared, made_from, untouched
from lmolt_utils.run.runner import receipt_path
from lmolt_utils.run.steps import cut_short, record_path


def _notebook(folder: Path, name: str, *cells: str) -> None:
    """A notebook with the parameters of the real one, and these cells."""
    first = nbformat.v4.new_code_cell("\n".join(f"{p} = None" for p in declared(name) if p != "profile"))
    first.source += "\nprofile = None"
    first.metadata["tags"] = ["parameters"]
    begin = f"from lmolt_utils.run.notebook import start\n\nrun = start('{name}', globals())"
    book = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, (begin, *cells))])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(book, folder / "notebooks" / f"{name}.ipynb")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """params/, Snakefile and short notebooks, in a folder whose name a shell would trip over."""
    folder = tmp_path / "a b&c'é"
    shutil.copytree(root() / "params", folder / "params")
    shutil.copy(root() / "Snakefile", folder)
    (folder / "notebooks").mkdir()
    for name in NOTEBOOKS:
        _notebook(folder, name, "run.finish()")
    monkeypatch.setenv("LMOLT_ROOT", str(folder))
    monkeypatch.delenv("LMOLT_RUNS", raising=False)
    monkeypatch.delenv("LMOLT_PROFILE", raising=False)
    return folder


def _lmolt(*arguments: str, python: str = sys.executable) -> subprocess.Popen[str]:
    package = str(Path(sys.modules["lmolt_utils"].__file__ or "").parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": package}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([python, "-m", "lmolt_utils.cli", *arguments], env=environment, **pipes)


def _planned() -> set[str]:
    """The notebooks that `lmolt reproduce` would run."""
    done = _lmolt("reproduce", "--profile", "smoke", "--", "--dry-run")
    text = done.communicate()[0]
    assert done.returncode == 0, text
    return {name for name in NOTEBOOKS if f"{name}: starting" in text}


def _finish(folder: Path, profile: str = "smoke") -> None:
    """Files and receipts as a finished run has them: one file per notebook."""
    for name in NOTEBOOKS:
        path = folder / "files" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        write_json(record_path(path), {"step": name})
        files = {f"files/{name}.txt": fingerprint(path)}
        told = {"notebook": name, "made_from": made_from(name, profile), "files": files}
        write_json(folder / "receipts" / f"{name}.json", told)


def test_what_is_announced_is_done_with_all_that_reads_it(repository: Path) -> None:
    """A file cut short in the middle of a finished run, and receipts that say nothing."""
    folder = run_folder("smoke")
    _finish(folder)
    assert _planned() == set()
    (folder / "files" / "03_sft.txt").write_text("03")
    receipt_path("smoke", "04_alignment").write_text("")
    cut = receipt_path("smoke", "05_merging")
    cut.write_text(cut.read_text()[:40])
    assert _planned() == {"03_sft", "04_alignment", "05_merging", "07_nli_evaluation", "08_figures"}


def test_another_parameter_in_a_copied_repository_is_seen(repository: Path) -> None:
    _finish(run_folder("smoke"))
    profile = repository / "params" / "smoke.yaml"
    profile.write_text(profile.read_text().replace("beta: 0.1\n", "beta: 0.5\n"))
    assert _planned() == set(NOTEBOOKS) - {"01_data", "02_negatives"}


def test_a_dry_run_changes_nothing(repository: Path) -> None:
    from lmolt_utils.run.runner import reproduce

    folder = run_folder("smoke")
    _finish(folder)
    (folder / "files" / "03_sft.txt").write_text("03")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (folder / "receipts").iterdir()}
    assert reproduce("smoke", 1, extra=["--dry-run"]) == 0
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (folder / "receipts").iterdir()} == before


def test_status_0_only_when_every_receipt_holds(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should Snakemake see nothing to do where there is something to do, the status says so."""
    from lmolt_utils.run import runner

    _finish(run_folder("smoke"))

    def idle(*_: object) -> int:
        (run_folder("smoke") / "files" / "05_merging.txt").write_text("damaged meanwhile")
        return 0

    monkeypatch.setattr(runner, "_follow", idle)
    assert runner.reproduce("smoke", 1) == 1


def test_a_folder_named_for_trouble_and_an_interpreter_in_it(repository: Path) -> None:
    """Space, &, ' and é: in the paths of the sources, and in that of the interpreter, which a shell reads."""
    own = repository / ".venv"
    (own / "bin").mkdir(parents=True)
    (own / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", own)
    (own / "lib").symlink_to(Path(sys.prefix) / "lib")
    done = _lmolt("reproduce", "--profile", "smoke", "--", "receipts/01_data.json", python=str(own / "bin" / "python"))
    text = done.communicate()[0]
    assert done.returncode == 0, text
    assert receipt_path("smoke", "01_data").exists()


_AT_WORK = """
import os, time
from pathlib import Path

def make():
    Path(run.folder, "pids").write_text(f"{os.getpid()} {os.getppid()}")
    time.sleep(120)

run.step("train cpo", make, outputs=[run.path("adapter")], params={}, modules=[])
"""


def _alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state != "Z":  # ended, but nobody has asked yet
            found.append(pid)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process(repository: Path, number: signal.Signals) -> None:
    """The main process alone gets the signal; Snakemake, notebook and kernel follow, whatever the signal was."""
    _notebook(repository, "01_data", _AT_WORK)
    told = run_folder("smoke") / "pids"
    process = _lmolt("reproduce", "--profile", "smoke", "--cores", "1")
    waited = time.monotonic() + 60
    while not (told.exists() and told.read_text()) and time.monotonic() < waited:
        time.sleep(0.1)
    kernel, notebook = map(int, told.read_text().split())
    snakemake = int(Path(f"/proc/{notebook}/stat").read_text().rsplit(")", 1)[1].split()[1])
    sent = time.monotonic()
    process.send_signal(number)
    process.wait(30)
    if number == signal.SIGKILL:  # what is still ending holds the lock
        if _alive([snakemake]):
            second = _lmolt("reproduce", "--profile", "smoke")
            assert "already running" in second.communicate()[0]
    else:
        assert process.returncode == 130
    while _alive([kernel, notebook, snakemake]) and time.monotonic() < sent + 20:
        time.sleep(0.1)
    print(f"{number.name}: all ended after {time.monotonic() - sent:.1f} s")
    assert _alive([kernel, notebook, snakemake]) == []


def test_a_kernel_that_dies_is_reported_with_its_step(repository: Path) -> None:
    _notebook(repository, "01_data", _AT_WORK.replace("time.sleep(120)", "os.kill(os.getpid(), 9)"))
    done = _lmolt("notebook", "01_data", "--profile", "smoke")
    text = done.communicate()[0]
    assert done.returncode == 1
    assert "01_data stopped" in text
    assert "Kernel died" in text
    assert "at work on: train cpo" in text
    assert cut_short(run_folder("smoke"), time.time()) == [], "an earlier run's step"


def _cell(**values: object) -> dict[str, object]:
    return {"In": ["# Parameters\n" + "\n".join(f"{name} = {value!r}" for name, value in values.items())], **values}


def test_another_parameter_makes_another_run(runs: Path) -> None:
    """04 with another beta: what it cannot touch is there, nothing of the profile's run is changed or shown."""
    base = runs / "smoke"
    _finish(base)
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    run = start("04_alignment", _cell(profile="smoke", beta=0.5, systems=["cpo"]))
    assert run.folder == runs / "smoke+beta=0.5"
    assert {path.name for path in (run.folder / "files").glob("*.txt")} == {"01_data.txt", "02_negatives.txt"}
    assert record_path(run.path("files", "02_negatives.txt")).exists()
    mine = run.path("mine")
    run.step("mine", lambda: mine.write_text("x"), outputs=[mine], params={}, modules=[])
    run.finish()
    assert not run.path("receipts", "cpo.system.json").exists()
    shown = start("08_figures", _cell(profile="smoke", beta=0.5))
    assert (shown.folder, shown.title) == (run.folder, "smoke, beta = 0.5")
    assert shown.figures == run.folder / "figures"
    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before

    (base / "files" / "02_negatives.txt").unlink()  # replaced, as every file of a run is
    (base / "files" / "02_negatives.txt").write_text("other pairs")
    told = read_json(base / "receipts" / "02_negatives.json")
    told["files"]["files/02_negatives.txt"] = fingerprint(base / "files" / "02_negatives.txt")
    write_json(base / "receipts" / "02_negatives.json", told)
    assert start("04_alignment", _cell(profile="smoke", beta=0.5)).path("files", "02_negatives.txt").read_text() == (
        "other pairs"
    ), "the profile's run was made again"


def test_files_of_a_profile_that_was_edited_meanwhile_are_refused(repository: Path) -> None:
    """04 alone run again after the edit: 07 and 08 would mix the merged systems' old beta with it."""
    _finish(run_folder("smoke"))
    profile = repository / "params" / "smoke.yaml"
    profile.write_text(profile.read_text().replace("beta: 0.1\n", "beta: 0.5\n").replace("seeds: [0]", "seeds: [0, 1]"))
    start("04_alignment", _cell(profile="smoke")).finish()
    for reader in ("07_nli_evaluation", "08_figures"):
        with pytest.raises(ParameterError, match="03_sft was run when profile smoke had another beta: run it again"):
            start(reader, _cell(profile="smoke"))
    for name in ("03_sft", "05_merging", "06_ablation"):
        start(name, _cell(profile="smoke")).finish()
    assert start("07_nli_evaluation", _cell(profile="smoke")).folder == run_folder("smoke")


def test_what_does_not_change_a_number_makes_no_other_run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = start("01_data", _cell(profile="smoke", threads=2, systems=["constant"], corpus_rows=400))
    assert same.folder == runs / "smoke"
    assert start("01_data", _cell(profile="smoke", test_rows=25)).folder == runs / "smoke+test_rows=25"
    assert set(SAME_NUMBERS) <= set(type(load("cpu")).model_fields)
    assert untouched(["beta"]) == ["01_data", "02_negatives"]
    assert untouched(["nli_model"]) == list(NOTEBOOKS[:6])
    assert untouched(["seed"]) == []
    monkeypatch.delenv("LMOLT_RUNS")
    assert start("08_figures", _cell(profile="cpu")).figures == root() / "figures"
    assert start("08_figures", _cell(profile="cpu", beta=0.5)).figures == root() / "runs" / "cpu+beta=0.5" / "figures"
    assert not (root() / "runs" / "cpu+beta=0.5" / "figures").exists()


def test_folders_of_changed_runs_are_told_apart(runs: Path) -> None:
    names = [
        run_folder("cpu", changed).name
        for changed in (
            {},
            {"seeds": [0, 1]},
            {"beta": 0.5, "seed": 3},
            {"corpus": "../a/b"},
            {"corpus": "../a-b"},
            {"switches": {"sft_eos": "as_released"}},
            dict.fromkeys(("learning_rate", "warmup_share", "max_grad_norm", "weight_decay", "cpo_alpha"), 0.25),
        )
    ]
    assert names[:3] == ["cpu", "cpu+seeds=0,1", "cpu+beta=0.5+seed=3"]
    assert len(set(names)) == len(names)
    assert all("/" not in name and len(name) <= 80 for name in names)


def test_nothing_is_written_outside_the_runs_folder(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(repository / "params" / "smoke.yaml", repository / "evil.yaml")
    with pytest.raises(ParameterError, match=r"no profile '\.\./evil'"):
        load("../evil")
    shutil.copy(repository / "params" / "smoke.yaml", repository / "params" / "mine.yaml")
    assert main(["reproduce", "--profile", "mine"]) == 2
    assert "write 'profile: mine'" in capsys.readouterr().err
    profile = repository / "params" / "mine.yaml"
    text = profile.read_text().replace("profile: smoke", "profile: mine")
    for place in ("../../x", "/tmp/x", ".", "lmolt_utils"):
        profile.write_text(text.replace("runs/smoke/figures", place))
        assert main(["reproduce", "--profile", "mine"]) == 2
        assert "name a folder in the repository's figures or runs" in capsys.readouterr().err
        with pytest.raises(CompanionError, match="figures or runs"):
            start("01_data", _cell(profile="mine"))
    assert figures_folder(Path("run"), "figures/mine") == repository / "figures" / "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["notebook", "04_alignment", "--set", "lora_rank"],
            "--set lora_rank: give each parameter once, as NAME=VALUE",
        ),
        (["notebook", "04_alignment", "--set", "betta=1"], "did you mean 'beta'"),
        (["notebook", "04_alignment", "--set", "beta=[1"], "--set beta=[1: the value is not YAML"),
        (["notebook", "04_alinment"], "did you mean '04_alignment'"),
        (["notebook", "04_alignment", "--systems", "cpoo"], "did you mean 'cpo'"),
        (["reproduce", "--profile", "smok"], "did you mean 'smoke'"),
    ],
)
def test_wrong_input_has_a_status_of_its_own(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_tables_say_which_run_they_are_of(runs: Path) -> None:
    """The cell of 08 that builds the tables, run on a changed run without scores: nothing of the profile's shows."""
    book = json.loads((root() / "notebooks" / "08_figures.ipynb").read_text())
    code = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {"run": start("08_figures", _cell(profile="smoke", beta=0.5))}
    for source in code[2:3]:
        exec(source, names)
    assert names["folder"] == runs / "smoke+beta=0.5" / "figures"
    assert isinstance(names["scores"], pd.DataFrame)
    assert names["scores"].empty
    assert '"profile": run.title' in code[3]
