"""All eight notebooks, really run: by `lmolt reproduce` (Snakemake, papermill) and by plain nbclient."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
import seaborn as sns

from lmolt_utils.config.params import load
from lmolt_utils.config.prompts import TASKS
from lmolt_utils.config.systems import load_systems, with_ratio_grid
from lmolt_utils.files import read_json
from lmolt_utils.paths import root
from lmolt_utils.run.notebook import notebook_record
from lmolt_utils.run.notebooks import NOTEBOOKS, notebook_path
from tests.run.executing import in_one_kernel

LMOLT = [sys.executable, "-m", "lmolt_utils.cli"]
PAPERMILL = [sys.executable, "-m", "papermill", "--no-progress-bar"]


def papermill(runs: Path, notebook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One notebook as the README runs it, from a folder that is not the repository."""
    environment = {**os.environ, "LMOLT_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    command = [*PAPERMILL, str(notebook_path(notebook)), str(runs / "out.ipynb"), *arguments]
    return subprocess.run(command, env=environment, cwd=runs, capture_output=True, text=True)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run, made from a folder that is not the repository."""
    runs = tmp_path_factory.mktemp("reproduced")
    environment = {**os.environ, "LMOLT_RUNS": str(runs)}
    command = [*LMOLT, "reproduce", "--profile", "smoke", "--cores", "2"]
    done = subprocess.run(command, env=environment, cwd=runs, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return runs / "smoke"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_source_is_clean_and_has_the_parameters_cell(notebook: str) -> None:
    book = nbformat.read(notebook_path(notebook), as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "committed with outputs"
    (cell,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    names: dict[str, object] = {}
    exec(cell.source, {}, names)
    assert names == {"profile": "cpu", "systems": [], "overrides": {}}
    assert code[1].source.splitlines()[2] == f'run = start("{notebook}", globals())'
    assert all(len(cell.source.splitlines()) <= 20 for cell in code)
    assert not any(line.startswith(("def ", "class ")) for cell in code for line in cell.source.splitlines())
    opening = book.cells[0].source
    for promised in ("**Aim.**", "**What the paper does.**", "| reads | writes | time: smoke / cpu / gpu / paper |"):
        assert promised in opening


def test_a_run_with_a_long_name_is_drawn_beside_its_profiles_own() -> None:
    """One narrow panel whose legend names a run with six changes: it was wider than the figure."""
    book = nbformat.read(notebook_path("04_alignment"), as_version=4)
    (cell,) = [cell for cell in book.cells if "sns.relplot(both" in cell.source]
    log = pd.DataFrame({"system": ["CPO", "CPO"], "step": [1, 2], "logps/chosen": [-3.0, -2.0]})
    own = SimpleNamespace(title="smoke", systems=[])
    run = SimpleNamespace(title=f"smoke{', learning_rate = 0.001' * 6}", systems=[], changed={"beta": 1}, default=own)
    exec(cell.source, {"run": run, "pd": pd, "sns": sns, "training_logs": lambda *_: log})


@pytest.mark.slow
def test_reproduce_makes_every_table_and_figure(reproduced: Path) -> None:
    figures = reproduced / "figures"
    for table in ("T2", "T3", "T4", "T5", "AT1", "AT2"):
        assert {path.suffix for path in figures.glob(f"table_{table}.*")} == {".csv", ".md", ".tex"}
    drawn = "overview distributions ratio_sweep merge_comparison word_counts training_curves win_rates"
    drawn += " almol_distributions nli_distributions nli_divergence_all nli_divergence_long nli_divergence_extreme"
    drawn += " example_molecules example_captions example_captions_printed"
    for figure in drawn.split():
        assert {path.suffix for path in figures.glob(f"{figure}.*")} == {".csv", ".pdf", ".png"}
    for system in with_ratio_grid(load_systems(), load("smoke")):
        for task in TASKS:
            assert read_json(reproduced / "scores" / f"{system.name}.{task}.json")["n"] == 24
    for further in ("nli_table_6", "molecule_sets", "rewritten_smiles"):
        assert len(pd.read_csv(figures / f"{further}.csv")) >= 5, further
    follows = pd.read_csv(figures / "nli_correlations.csv")
    assert set(follows["quantity"]) == {"coverage", "hallucination", "unsupported"}
    assert (follows["n"] > 24).all(), "several systems' captions"
    text = (figures / "table_T2.md").read_text()
    assert "TxtChem-T5" in text
    assert "not run" in text
    for notebook in NOTEBOOKS:
        executed = nbformat.read(reproduced / "notebooks" / f"{notebook}.ipynb", as_version=4)
        assert any(cell.get("outputs") for cell in executed.cells)
        log = (reproduced / "logs" / f"{notebook}.log").read_text()
        assert "Passed unknown parameter" not in log


@pytest.mark.slow
def test_plain_nbclient_from_the_notebooks_own_folder_gives_the_same_files(
    reproduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cell by cell, no papermill, one kernel, another working folder: the same bytes, trained adapters included."""
    monkeypatch.setenv("LMOLT_RUNS", str(tmp_path))
    notebooks = "01_data", "02_negatives", "04_alignment"
    in_one_kernel("smoke", root() / "notebooks", notebooks)
    compared = 0
    for notebook in notebooks:
        first = read_json(notebook_record(reproduced, notebook))["files"]
        again = read_json(notebook_record(tmp_path / "smoke", notebook))["files"]
        assert first == again, notebook
        compared += len(first)
    assert compared > 20


@pytest.mark.slow
def test_one_system_by_papermill_trains_nothing_twice(reproduced: Path) -> None:
    """The README's command with a whole profile file, narrowed to one system."""
    options = ("-f", str(root() / "params" / "smoke.yaml"), "-y", "systems: [cpo]")
    done = papermill(reproduced.parent, "04_alignment", *options)
    assert done.returncode == 0, done.stderr
    text = (reproduced.parent / "out.ipynb").read_text()
    assert "train cpo: up to date" in text
    assert "train dpo" not in text


@pytest.mark.slow
def test_a_mistake_stops_papermill_with_its_remedy(tmp_path: Path) -> None:
    wrong = papermill(tmp_path, "04_alignment", "-p", "profile", "smoke", "-p", "systems", "cpoo")
    assert wrong.returncode == 1
    assert "no system 'cpoo'; did you mean 'cpo'" in wrong.stderr
    assert "Passed unknown parameter" not in wrong.stderr
