"""`lmolt reproduce`: real Snakemake, papermill and kernels, on a repository whose notebooks are a few lines long."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import nbformat
import psutil
import pytest

from lmolt_utils.config.params import load
from lmolt_utils.config.systems import load_systems, with_ratio_grid
from lmolt_utils.files import read_json, write_json
from lmolt_utils.paths import root, run_folder
from lmolt_utils.run.notebook import notebook_record
from lmolt_utils.run.notebooks import NOTEBOOKS, parts
from lmolt_utils.run.reproduce import drop_unfinished, executed
from lmolt_utils.run.steps import record_path
from lmolt_utils.run.summary import note, notes

CELL = 'profile = "cpu"\nsystems = []\noverrides = {}'
RULES = tuple(f"nb{name}" for name in NOTEBOOKS)
WITHOUT_GPU = {"nb01_data", "nb08_figures"}
#: What a notebook does here: one step, one file.
STEP = """
def make(_):
    run.path("files").mkdir(exist_ok=True)
    run.path("files", run.notebook).write_text(run.notebook)

run.step(run.notebook, make, outputs=[run.path("files", run.notebook)], params={})
"""


def write_notebook(folder: Path, name: str, *cells: str) -> None:
    first = nbformat.v4.new_code_cell(CELL, metadata={"tags": ["parameters"]})
    begin = "from lmolt_utils.run import notebook\n\nnotebook.prepare_libraries = lambda _: None  # imports torch\n"
    begin += f"run = notebook.start('{name}', globals())"
    book = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, (begin, *cells, "run.finish()"))])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(book, folder / "notebooks" / f"{name}.ipynb")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """params/, Snakefile, profiles/ and short notebooks, in a folder whose name a shell would trip over."""
    folder = tmp_path / "a b&c'é"
    for name in ("params", "profiles"):
        shutil.copytree(root() / name, folder / name)
    shutil.copy(root() / "Snakefile", folder)
    (folder / "lmolt_utils").symlink_to(root() / "lmolt_utils")
    (folder / "notebooks").mkdir()
    for name in NOTEBOOKS:
        write_notebook(folder, name, STEP)
    monkeypatch.setenv("LMOLT_ROOT", str(folder))
    monkeypatch.delenv("LMOLT_RUNS", raising=False)
    return folder


#: As `nohup COMMAND &` in a script starts it.
NOHUP = ("sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh")


def lmolt(*arguments: str, profile: str = "smoke", before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-m", "lmolt_utils.cli", "reproduce", "--profile", profile, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root() / "lmolt_utils" / "..")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def reproduce(*arguments: str, profile: str = "smoke") -> str:
    process = lmolt("--cores", "2", *arguments, profile=profile)
    text = process.communicate()[0]
    assert process.returncode == 0, text
    return text


def run_by(text: str) -> set[str]:
    """The notebooks that a run of `lmolt reproduce` executed, or would."""
    return {name for name in NOTEBOOKS if f"rule nb{name}:" in text}


def test_what_is_done_stays_done_and_what_changed_runs_again(repository: Path, tmp_path: Path) -> None:
    """One finished run, then each way in which it may no longer be what it says it is."""
    reproduce()
    folder = run_folder("smoke")
    assert all(executed(folder, name).exists() for name in NOTEBOOKS)
    assert run_by(reproduce("--", "--dry-run")) == set()
    assert drop_unfinished(folder) == []
    assert list(read_json(notebook_record(folder, "01_data"))["files"]) == ["files/01_data"]

    (folder / "files" / "03_sft").write_text("03")  # a file that was cut short
    cut = notebook_record(folder, "05_merging")
    cut.write_text(cut.read_text()[:40])
    record_path(folder / "files" / "08_figures").write_text("")
    record = record_path(folder / "files" / "04_alignment")  # a long step that older code made
    told = read_json(record)
    write_json(record, told | {"wall_s": 999.0, "code": told["code"] | {"hash": "other"}})
    text = reproduce("--", "--dry-run")
    assert "03_sft runs again: files/03_sft is missing or was changed" in text
    assert "08_figures runs again: files/08_figures is missing or was changed" in text
    assert executed(folder, "03_sft").exists()
    text = reproduce("--redo", "04*")
    assert "04_alignment runs again: --redo asks for 04_alignment" in text
    assert read_json(record)["wall_s"] < 999
    assert "03_sft runs again: files/03_sft is missing or was changed" in text
    assert "05_merging runs again: notebooks/05_merging.record.json is missing or was changed" in text
    assert run_by(text) == {"03_sft", "04_alignment", "05_merging", "07_nli_evaluation", "08_figures"}
    assert (folder / "files" / "03_sft").read_text() == "03_sft"
    assert read_json(record_path(folder / "files" / "08_figures"))

    copy = tmp_path / "copied"  # to another place, with Snakemake's notes and without
    shutil.copytree(folder, copy)
    assert drop_unfinished(copy) == []
    shutil.rmtree(copy / ".snakemake")
    assert len(drop_unfinished(copy)) == len(NOTEBOOKS)
    assert not executed(copy, "01_data").exists()

    profile = repository / "params" / "smoke.yaml"
    profile.write_text(profile.read_text().replace("beta: 0.1\n", "beta: 0.5\n"))
    assert run_by(reproduce("--", "--dry-run")) == set(NOTEBOOKS) - {"01_data", "02_negatives"}
    shutil.copytree(folder, run_folder("seeds"))  # another profile's run
    assert "01_data" in run_by(reproduce("--", "--dry-run", profile="seeds"))


@pytest.mark.parametrize(("error", "status"), [("DataError", 2), ("TryAgainError", 75)])
def test_a_failed_notebook_is_named_with_its_error(repository: Path, error: str, status: int) -> None:
    """Also in one line each of logs/runs.jsonl; 75: the same command may work later."""
    write_notebook(repository, "02_negatives", f"from lmolt_utils.errors import {error}\nraise {error}('no sample')")
    process = lmolt()
    text = process.communicate()[0]
    assert process.returncode == status, text
    assert "Traceback" not in text
    assert f"lmolt: 02_negatives: {error}: no sample" in text
    assert "logs/02_negatives.log" in text
    assert not executed(run_folder("smoke"), "03_sft").exists()
    lines = {line["what"]: line for line in notes(run_folder("smoke"))}
    told = {what: (line["status"], line["exit"]) for what, line in lines.items()}
    assert told["01_data"] == ("done", 0)
    assert told["02_negatives"] == ("failed", 2 if error == "DataError" else 75)
    assert told["lmolt reproduce"] == ("failed", status)
    assert lines["02_negatives"]["error"] == f"{error}: no sample"


def test_a_note_that_was_cut_short_hides_no_other(tmp_path: Path) -> None:
    """As a full disk or SIGKILL leaves it, here in the middle of a letter; the next run still tells its own reason."""
    note(tmp_path, "01_data", 0.0)
    with open(tmp_path / "logs" / "runs.jsonl", "ab") as file:
        file.write('{"what": "é'.encode()[:-1])
    assert [line["what"] for line in notes(tmp_path)] == ["01_data"]
    for error in (None, ValueError("no sample")):
        note(tmp_path, "02_negatives", 0.0, error)
    told = [(line["what"], line["error"]) for line in notes(tmp_path)]
    assert told == [("01_data", None), ("02_negatives", None), ("02_negatives", "ValueError: no sample")]


AT_WORK = """
import os, time
from pathlib import Path

def make(_):
    Path(run.folder, "pids").write_text(f"{os.getpid()} {os.getppid()}")
    time.sleep(120)

run.step("train cpo", make, outputs=[run.path("adapter")], params={})
"""


def at_work(repository: Path, before: tuple[str, ...] = ()) -> tuple[subprocess.Popen[str], list[int]]:
    """A run whose first notebook is in the middle of a step; the processes of its kernel and of papermill."""
    write_notebook(repository, "01_data", AT_WORK)
    told = run_folder("smoke") / "pids"
    process = lmolt("--cores", "1", before=before)
    waited = time.monotonic() + 300
    while not (told.exists() and told.read_text()) and time.monotonic() < waited:
        time.sleep(0.1)
    return process, list(map(int, told.read_text().split()))


@pytest.mark.parametrize(
    ("number", "before"), [(signal.SIGTERM, ()), (signal.SIGHUP, ()), (signal.SIGINT, NOHUP), (signal.SIGTERM, NOHUP)]
)
def test_a_run_that_is_ended_leaves_no_process_and_no_lock(
    repository: Path, number: signal.Signals, before: tuple[str, ...]
) -> None:
    """The main process alone gets the signal; Snakemake, papermill, kernel follow. A closed terminal ends no nohup."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("these tests were started with nohup, which a run respects")
    process, pids = at_work(repository, before)
    if before:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
    family = [psutil.Process(pid) for pid in pids]
    process.send_signal(number)
    assert process.wait(90) == 130
    assert psutil.wait_procs(family, 20)[1] == []
    ended = {line["what"]: (line["status"], line["exit"]) for line in notes(run_folder("smoke"))}
    assert ended == {"01_data": ("interrupted", 130), "lmolt reproduce": ("interrupted", 130)}
    assert not list((run_folder("smoke") / ".snakemake" / "locks").glob("*"))


TOLD_FIRST = """
import os, signal, sys, time
from papermill import cli
from lmolt_utils.run import execute

def told_first(*arguments, then=cli.papermill, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
    then(*arguments, **options)

cli.papermill = told_first
sys.exit(execute.main(sys.argv[1:]))
"""


def test_an_execution_that_is_told_to_end_before_its_kernel_began_still_ends(tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("import pathlib, time\ntime.sleep(15)\npathlib.Path('ran').touch()")
    book = nbformat.v4.new_notebook(cells=[cell])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(book, tmp_path / "01_data.ipynb")
    command = [sys.executable, "-c", TOLD_FIRST, "01_data.ipynb", "out.ipynb", "--no-progress-bar"]
    assert subprocess.run(command, cwd=tmp_path, timeout=120).returncode == 130
    assert not (tmp_path / "ran").exists()


def test_a_killed_snakemake_takes_its_notebooks_along(repository: Path) -> None:
    process, pids = at_work(repository)
    (snakemake,) = psutil.Process(process.pid).children()
    snakemake.kill()
    assert "Snakemake was killed (signal 9)" in process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], 20)[1] == []


def test_after_a_kill_that_nobody_noticed_the_same_command_goes_on(repository: Path) -> None:
    process, _ = at_work(repository)
    second = lmolt()
    assert "already running" in second.communicate()[0]
    assert second.returncode == 1
    family = psutil.Process(process.pid).children(recursive=True)
    for one in (process, *family):
        one.kill()
    process.wait()
    psutil.wait_procs(family, 20)
    assert list((run_folder("smoke") / ".snakemake" / "locks").glob("*")), "the kill left Snakemake's lock"
    write_notebook(repository, "01_data", STEP)
    text = reproduce("--", "--until", "nb01_data")
    assert text.startswith("01_data was interrupted: it runs again, and what is done in it stays\n")
    assert run_by(text) == {"01_data"}


def test_the_ablation_is_dealt_out_to_parts_that_miss_no_system() -> None:
    table = {row.name: row for row in with_ratio_grid(load_systems(), load("cpu")) if row.init != "baseline"}
    ablation = [name for name, row in table.items() if row.notebook == "06_ablation"]
    dealt = parts("cpu")
    assert len(dealt) == load("cpu").ablation_jobs == 4
    assert sorted(name for _, names in dealt.values() for name in names) == sorted(ablation)
    assert {maker for maker, _ in dealt.values()} == {"06_ablation"}
    assert parts("smoke") == {}, "smoke's trainings are shorter than a process's imports"
    each = parts("cpu", per_system=True)
    assert {names[0]: maker for maker, names in each.values()} == {name: row.notebook for name, row in table.items()}


def test_parts_run_before_their_notebook(repository: Path) -> None:
    text = reproduce("--per-system", "--", "--dry-run", profile="cpu")
    for part in parts("cpu", per_system=True):
        assert f"output: notebooks/parts/{part}.ipynb" in text
    assert text.index("rule nb06_ablation:") > text.index("notebooks/parts/06_ablation.")


def test_a_training_asks_for_a_gpu_and_a_table_does_not(repository: Path) -> None:
    """By Snakemake itself, with the profile for GPUs and SLURM's (without its executor where that is missing)."""
    slurm = repository / "profiles" / "slurm" / "config.yaml"
    if find_spec("snakemake_executor_plugin_slurm") is None:
        lines = slurm.read_text().splitlines(keepends=True)
        slurm.write_text("".join(line for line in lines if not line.startswith(("executor:", "slurm-"))))
    for extra in ([], ["--workflow-profile", str(slurm.parent)]):
        text = reproduce("--per-system", "--", "--dry-run", *extra, profile="gpu")
        assert "note: profile 'gpu' needs a CUDA device" in text
        jobs = re.findall(r"^rule (\w+):.*?resources: (.*?)$", text, re.DOTALL | re.MULTILINE)
        assert {rule for rule, resources in jobs if "gpu=1" in resources} == {*RULES, "part"} - WITHOUT_GPU
        assert {rule for rule, resources in jobs if "gpu=" not in resources} == WITHOUT_GPU | {"all"}
        assert len(jobs) == 9 + len(parts("gpu", per_system=True))
        assert not extra or all("mem_mb=" in resources and "runtime=" in resources for _, resources in jobs[:-1])


def test_the_page_on_clusters_names_every_rule() -> None:
    text = (root() / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert all(f"`{rule}`" in text for rule in (*RULES, "part"))
