"""All eight notebooks, really run: by `lmolt reproduce` (papermill, Snakemake) and by plain nbclient."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from lmolt_utils.config.params import Params, load
from lmolt_utils.config.prompts import TASKS
from lmolt_utils.config.systems import load_systems, with_ratio_grid
from lmolt_utils.files import read_json
from lmolt_utils.paths import root
from lmolt_utils.run import notebook_files
from lmolt_utils.run.notebook_files import ALWAYS, NOTEBOOKS, declared, notebook_params, notebook_path, package_sources
from lmolt_utils.run.runner import drop_stale_receipts, jobs_of_systems

LMOLT = [sys.executable, "-m", "lmolt_utils.cli"]


def lmolt(runs: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LMOLT_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*LMOLT, *arguments], env=environment, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run, made from a folder that is not the repository."""
    runs = tmp_path_factory.mktemp("reproduced")
    done = lmolt(runs, "reproduce", "--profile", "smoke", "--cores", "2", cwd=runs)
    assert done.returncode == 0, done.stdout + done.stderr
    return runs / "smoke"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_source_is_clean_and_has_one_parameters_cell(notebook: str) -> None:
    book = nbformat.read(notebook_path(notebook), as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "committed with outputs"
    assert "papermill" not in book.metadata
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    short = [cell for cell in code if "parameters" not in cell.metadata.get("tags", [])]  # that one is a list
    assert all(len(cell.source.splitlines()) <= 25 for cell in short)
    assert not any(line.startswith(("def ", "class ")) for cell in code for line in cell.source.splitlines())
    assert set(declared(notebook)) <= {*Params.model_fields, "systems"}
    opening = book.cells[0].source
    for promised in ("**Aim.**", "**What the paper does.**", "| reads | writes | time: smoke / cpu / gpu / paper |"):
        assert promised in opening


@pytest.mark.slow
def test_reproduce_makes_every_table_and_figure(reproduced: Path) -> None:
    figures = reproduced / "figures"
    for table in ("T2", "T3", "T4", "T5", "AT1", "AT2"):
        for ending in ("csv", "md", "tex"):
            assert (figures / f"table_{table}.{ending}").stat().st_size > 500
    drawn = ("overview", "distributions", "ratio_sweep", "merge_comparison", "word_counts", "training_curves")
    judged = ("nli_distributions", "nli_divergence_all", "nli_divergence_long", "nli_divergence_extreme")
    for figure in (*drawn, *judged, "win_rates", "almol_distributions"):
        for ending in ("pdf", "png", "csv"):
            assert (figures / f"{figure}.{ending}").exists(), figure
    for system in with_ratio_grid(load_systems(), load("smoke")):
        for task in TASKS:
            score = read_json(reproduced / "scores" / f"{system.name}.{task}.json")
            assert score["n"] == 24
            assert (reproduced / "predictions" / f"{system.name}.{task}.jsonl.record.json").exists()
    assert "the spread over training seeds is not known" in (figures / "seed_spread.md").read_text()
    follows = pd.read_csv(figures / "nli_correlations.csv")
    assert set(follows["quantity"]) == {"coverage", "hallucination", "unsupported"}
    assert (follows["n"] > 24).all(), "several systems' captions"
    text = (figures / "table_T2.md").read_text()
    assert "METEOR: exact+stem" in text or "METEOR: wordnet" in text
    assert "TxtChem-T5" in text
    assert "not run" in text
    for notebook in NOTEBOOKS:
        executed = nbformat.read(reproduced / "notebooks" / f"{notebook}.ipynb", as_version=4)
        assert any(cell.get("outputs") for cell in executed.cells)
        assert read_json(reproduced / "notebooks" / f"{notebook}.run.json")["peak_mb"] < 4000


@pytest.mark.slow
def test_second_way_from_the_notebooks_own_folder_gives_the_same_files(
    reproduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain nbclient, cell by cell, no papermill: the same receipts, so the same bytes (determinism too)."""
    monkeypatch.setenv("LMOLT_RUNS", str(tmp_path))
    monkeypatch.setenv("LMOLT_PROFILE", "smoke")

    def execute(notebook: str) -> None:
        book = nbformat.read(notebook_path(notebook), as_version=4)
        place = {"metadata": {"path": str(root() / "notebooks")}}
        NotebookClient(book, kernel_name="python3", resources=place).execute()

    with ThreadPoolExecutor(2) as pool:  # 03 to 06 are independent of each other
        for together in (NOTEBOOKS[:1], NOTEBOOKS[1:2], NOTEBOOKS[2:6], NOTEBOOKS[6:7], NOTEBOOKS[7:]):
            list(pool.map(execute, together))
    for notebook in NOTEBOOKS:
        first = read_json(reproduced / "receipts" / f"{notebook}.json")["files"]
        again = read_json(tmp_path / "smoke" / "receipts" / f"{notebook}.json")["files"]
        assert set(first) == set(again)
        differing = [name for name in first if first[name] != again[name]]
        assert all("training_curves" in name for name in differing), f"{notebook}: {differing}"  # it draws seconds


@pytest.mark.slow
def test_nothing_changed_nothing_runs_and_what_changed_is_named(reproduced: Path) -> None:
    runs = reproduced.parent
    again = lmolt(runs, "reproduce", "--profile", "smoke")
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout
    lost, cut = reproduced / "figures" / "table_T3.md", reproduced / "predictions" / "sft.mol2cap.jsonl"
    whole = {path: path.read_bytes() for path in (lost, cut)}
    lost.unlink()
    cut.write_bytes(whole[cut][:3000])
    repaired = lmolt(runs, "reproduce", "--profile", "smoke")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert "08_figures (figures/table_T3.md is missing or was changed)" in repaired.stdout
    assert "(predictions/sft.mol2cap.jsonl is missing or was changed)" in repaired.stdout
    assert "04_alignment: starting" not in repaired.stdout
    assert {path: path.read_bytes() for path in (lost, cut)} == whole


@pytest.mark.slow
def test_a_copied_run_is_done_only_for_what_it_was_made_from(
    reproduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake's own notes do not come along, and the copied receipts are newer than all sources."""
    for profile in ("smoke", "seeds"):
        shutil.copytree(reproduced, tmp_path / profile)
    monkeypatch.setenv("LMOLT_RUNS", str(tmp_path))
    assert drop_stale_receipts("smoke") == []
    lines = drop_stale_receipts("seeds")
    assert all("profile" in line and line.endswith(" changed)") for line in lines)
    assert "seeds" in next(line for line in lines if "03_sft" in line)
    assert not list((tmp_path / "seeds" / "receipts").glob("*.json"))
    monkeypatch.setattr(notebook_files, "code_hash", lambda modules: "other code")
    assert drop_stale_receipts("smoke") == [f"again: {', '.join(NOTEBOOKS)} (code changed)"]


@pytest.mark.slow
def test_one_system_by_papermill_trains_nothing_twice(reproduced: Path, tmp_path: Path) -> None:
    """The command of the README: one notebook, one system, a profile file, from a shell with nothing else."""
    executed = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebook_path("04_alignment")), str(executed)]
    command += ["-f", str(root() / "params" / "smoke.yaml"), "-y", "systems: [cpo]", "--no-progress-bar"]
    environment = {**os.environ, "LMOLT_RUNS": str(reproduced.parent)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = json.dumps(nbformat.read(executed, as_version=4))
    assert "train cpo: up to date" in text
    assert "train dpo" not in text


@pytest.mark.slow
def test_mistakes_stop_with_the_name_and_the_remedy(reproduced: Path, tmp_path: Path) -> None:
    wrong = lmolt(tmp_path, "notebook", "04_alignment", "--profile", "smoke", "--systems", "cpoo")
    assert wrong.returncode == 2
    assert "no system 'cpoo'; did you mean 'cpo'" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    early = lmolt(tmp_path, "notebook", "02_negatives", "--profile", "smoke")
    assert early.returncode == 1
    assert "02_negatives failed in cell" in early.stderr
    assert "sample.jsonl is missing: run the notebook that writes it" in early.stderr
    shutil.copytree(reproduced / "data", tmp_path / "smoke" / "data", dirs_exist_ok=True)
    test_file = tmp_path / "smoke" / "data" / "test.jsonl"
    test_file.write_bytes(test_file.read_bytes()[:-20])
    cut = lmolt(tmp_path, "notebook", "03_sft", "--profile", "smoke", "--systems", "init")
    assert cut.returncode == 1
    assert "test.jsonl is cut short" in cut.stderr
    assert len(cut.stderr.splitlines()) < 10


@pytest.mark.slow
def test_a_killed_run_loses_nothing_and_goes_on(reproduced: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle: no lock stays behind, finished files stay, half-made ones do not count."""
    for name in ("data", "receipts"):
        shutil.copytree(reproduced / name, tmp_path / "smoke" / name)
    for receipt in (tmp_path / "smoke" / "receipts").glob("0[3-8]*"):
        receipt.unlink()
    environment = {**os.environ, "LMOLT_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [*LMOLT, "notebook", "03_sft", "--profile", "smoke"]
    process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    waited = time.monotonic() + 120
    first = tmp_path / "smoke" / "predictions" / "meditron.cap2mol.jsonl.record.json"
    while not first.exists() and time.monotonic() < waited:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert first.exists()
    made = first.with_suffix("").with_suffix("").stat().st_mtime_ns
    done = lmolt(tmp_path, *command[len(LMOLT) :])
    assert done.returncode == 0, done.stderr
    assert first.with_suffix("").with_suffix("").stat().st_mtime_ns == made, "made again after the kill"
    for name, digest in read_json(reproduced / "receipts" / "03_sft.json")["files"].items():
        assert read_json(tmp_path / "smoke" / "receipts" / "03_sft.json")["files"][name] == digest


def test_parameters_cells_leave_every_value_to_the_profile() -> None:
    for notebook in NOTEBOOKS:
        (cell,) = [
            c
            for c in nbformat.read(notebook_path(notebook), as_version=4).cells
            if "parameters" in c.metadata.get("tags", [])
        ]
        values: dict[str, object] = {}
        exec(cell.source, values)
        names = [name for name in values if not name.startswith("__")]
        assert all(values[name] is None for name in names)
        assert set(names) <= set(declared(notebook)) <= {*names, *ALWAYS}


def test_a_notebook_depends_on_what_it_uses_and_nothing_else() -> None:
    used = {name: {Path(path).name for path in package_sources(name)} for name in NOTEBOOKS}
    assert "training.py" in used["04_alignment"]
    assert "training.py" not in used["01_data"] | used["02_negatives"] | used["08_figures"]
    assert "tables.py" in used["08_figures"]
    assert "published.yaml" in used["08_figures"], "a corrected published value redraws the tables"
    assert "companion.mplstyle" in used["08_figures"], "another style redraws the figures"
    assert "hashes.json" in used["05_merging"] & used["02_negatives"], "new embedded models are noticed"
    values = {name: notebook_params(name, "cpu") for name in NOTEBOOKS}
    assert "beta" in values["04_alignment"]
    assert "beta" not in values["07_nli_evaluation"]
    assert [row["name"] for row in values["04_alignment"]["systems"]] == ["dpo", "cpo", "kto"]


def test_the_ablation_is_dealt_out_to_jobs_that_miss_no_system() -> None:
    table = {row.name: row for row in with_ratio_grid(load_systems(), load("cpu")) if row.init != "baseline"}
    ablation = [name for name, row in table.items() if row.notebook == "06_ablation"]
    jobs = jobs_of_systems("cpu")
    assert len(jobs) == load("cpu").ablation_jobs == 2
    assert sorted(name for _, names in jobs.values() for name in names) == sorted(ablation)
    assert {maker for maker, _ in jobs.values()} == {"06_ablation"}
    assert jobs_of_systems("smoke") == {}, "smoke's trainings are shorter than a process's imports"
    each = jobs_of_systems("cpu", per_system=True)
    assert {name: maker for name, (maker, _) in each.items()} == {name: row.notebook for name, row in table.items()}


@pytest.mark.parametrize("more", [[], ["--per-system"]])
def test_snakemake_plans_the_jobs_of_systems_before_their_notebook(tmp_path: Path, more: list[str]) -> None:
    planned = lmolt(tmp_path, "reproduce", "--profile", "cpu", *more, "--", "--dry-run")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    started = re.findall(r"^(?:systems )?(\S+): starting", planned.stdout, flags=re.MULTILINE)
    assert set(started) == {*NOTEBOOKS, *jobs_of_systems("cpu", per_system=bool(more))}
    assert started.index("06_ablation") > max(
        started.index(job)
        for job, (maker, _) in jobs_of_systems("cpu", per_system=bool(more)).items()
        if maker[:2] == "06"
    )
