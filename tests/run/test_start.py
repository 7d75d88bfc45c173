"""How a notebook starts: the three names of its parameters cell, what papermill injects, and runs of their own."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from lmolt_utils.config.params import HEADLINE, ParameterError, Params, load
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import write_json, write_text
from lmolt_utils.paths import figures_folder, root, run_folder
from lmolt_utils.run import plan
from lmolt_utils.run.notebook import Run, given, notebook_record, start
from lmolt_utils.run.notebooks import _FIRST, NOTEBOOKS, SAME_NUMBERS, depends_on, first_changed
from lmolt_utils.run.steps import record_path


def cell(**values: Any) -> dict[str, Any]:
    """A notebook's namespace when its start cell runs."""
    return {"profile": "cpu", "systems": [], "overrides": {}, "In": [""], "start": start, "json": json, **values}


def finish() -> Path:
    """A finished smoke run, one step with one file per notebook; its folder."""
    for name in NOTEBOOKS:
        run = start(name, cell(profile="smoke"))
        path = run.path("files", f"{name}.txt")
        run.step(name, lambda _, path=path: write_text(path, path.stem), outputs=[path], params={})
        run.finish()
    return run.folder


@pytest.mark.parametrize(
    ("values", "profile", "systems", "overrides"),
    [
        ({}, "cpu", None, {}),
        ({"profile": "gpu"}, "gpu", None, {}),
        ({"learning_rate": 1e-3}, "cpu", None, {"learning_rate": 1e-3}),  # papermill -p learning_rate 1e-3
        ({"overrides": {"beta": 0.2}, "beta": 0.3}, "cpu", None, {"beta": 0.2}),
        ({"systems": ["cpo"]}, "cpu", ("cpo",), {}),
        ({"systems": "cpo, dpo"}, "cpu", ("cpo", "dpo"), {}),  # papermill -p systems
    ],
)
def test_every_way_of_giving_parameters(
    values: dict[str, Any], profile: str, systems: Any, overrides: dict[str, Any]
) -> None:
    assert given(cell(**values)) == (profile, systems, overrides)


def test_the_start_cell_can_run_again_beside_the_notebooks_own_variables() -> None:
    names = cell(profile="smoke", beta=0.5, pd=ModuleType("pandas"), helper=print)
    given(names)
    names |= {"corpus": object(), "seed": "mine", "anything": 1}
    assert given(names) == ("smoke", None, {"beta": 0.5})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"betta": 1.0}, "unknown parameter 'betta'; did you mean 'beta'"),
        ({"profle": "cpu"}, "unknown parameter 'profle'; did you mean 'profile'"),
        (yaml.safe_load((root() / "params" / "gpu.yaml").read_text()), "needs a CUDA device and there is none"),
        ({"profile": None}, "give the name of a file in params/"),
        ({"systems": ["cpoo"]}, "no system 'cpoo'; did you mean 'cpo'"),
        ({"systems": ["sft"]}, "'sft' is made by 03_sft, not by 04_alignment"),
        ({"systems": {"cpo": 1}}, "a list of names is needed"),
        ({"overrides": ["beta"]}, "names and values are needed"),
        ({"overrides": {"beta": "much"}}, "parameter 'beta' = 'much'"),
    ],
)
def test_mistakes_stop_before_any_work(
    values: dict[str, Any], message: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "gpus", list)
    with pytest.raises(CompanionError) as error:
        start("04_alignment", cell(**values))
    assert message in str(error.value)
    assert list(runs.iterdir()) == []


def test_every_parameter_belongs_to_a_notebook() -> None:
    listed = [name for names in _FIRST.values() for name in names]
    assert len(listed) == len(set(listed))
    assert set(listed) | set(SAME_NUMBERS) <= set(Params.model_fields)
    assert first_changed("corpus") == "01_data"
    assert ["beta" in depends_on(name, load("cpu")) for name in ("02_negatives", "04_alignment")] == [False, True]
    assert set(HEADLINE) == set(NOTEBOOKS)
    assert all(set(names) <= set(Params.model_fields) for names in HEADLINE.values())


def test_settings_show_a_dozen_and_fold_the_others(runs: Path) -> None:
    shown, folded = start("04_alignment", cell(profile="smoke")).settings().data.split("<details>")
    assert shown.count("<tr>") <= 15
    assert "<td>L4M" in shown
    assert "figures_dir" in folded


def test_another_parameter_makes_another_run(runs: Path) -> None:
    """04 with another beta: what it cannot touch is there, nothing of the profile's run is changed or shown."""
    base = finish()
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    run = start("04_alignment", cell(profile="smoke", overrides={"beta": 0.5}, systems=["cpo"]))
    assert (run.folder, run.default.folder) == (runs / "smoke+beta=0.5", base)
    assert {path.name for path in (run.folder / "files").glob("*.txt")} == {"01_data.txt", "02_negatives.txt"}
    assert record_path(run.path("files", "02_negatives.txt")).exists()
    run.finish()
    assert not notebook_record(run.folder, "04_alignment").exists(), "narrowed to one system"
    shown = start("08_figures", cell(profile="smoke", overrides={"beta": 0.5}))
    assert (shown.folder, shown.title) == (run.folder, "smoke, beta = 0.5")
    assert shown.figures == run.folder / "figures"
    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("choice", [{"semantics": "as_released"}, {"switches": {"negatives": "as_released"}}])
def test_a_run_that_switches_the_pairs_keeps_its_own(choice: dict[str, Any], runs: Path) -> None:
    """Neither parameter counts from 02 on by its name: 02 is made by this run, and the profile's never laid over it."""
    finish()
    run = start("02_negatives", cell(profile="smoke", overrides=choice))
    assert {path.name for path in (run.folder / "files").glob("*.txt")} == {"01_data.txt"}
    pairs = run.path("files", "02_negatives.txt")
    run.step("02_negatives", lambda _: write_text(pairs, "switched"), outputs=[pairs], params={})
    run.finish()
    for later in ("04_alignment", "06_ablation"):
        start(later, cell(profile="smoke", overrides=choice))
    assert pairs.read_text() == "switched"


def test_files_of_a_profile_that_was_edited_meanwhile_are_refused(runs: Path) -> None:
    """04 alone run again after the edit: 07 and 08 would mix the merged systems' old beta with it."""
    folder = finish()
    record = notebook_record(folder, "03_sft")
    told = json.loads(record.read_text())
    write_json(record, told | {"params": told["params"] | {"beta": 0.7}})
    for reader in ("07_nli_evaluation", "08_figures"):
        with pytest.raises(ParameterError, match="03_sft was run with another beta than profile smoke has now"):
            start(reader, cell(profile="smoke"))
    start("03_sft", cell(profile="smoke")).finish()
    assert start("07_nli_evaluation", cell(profile="smoke")).folder == folder


def test_what_does_not_change_a_number_makes_no_other_run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = start("01_data", cell(profile="smoke", systems=["constant"], overrides={"threads": 2, "corpus_rows": 400}))
    assert same.folder == runs / "smoke"
    assert start("01_data", cell(profile="smoke", test_rows=25)).folder == runs / "smoke+test_rows=25"
    monkeypatch.delenv("LMOLT_RUNS")
    own, other = (Run("08_figures", run_folder("cpu", c), load("cpu", c), changed=c) for c in ({}, {"beta": 0.5}))
    assert own.figures == root() / "figures"
    assert other.figures == root() / "runs" / "cpu+beta=0.5" / "figures"


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
            dict.fromkeys(("learning_rate", "warmup_share", "max_grad_norm", "lora_dropout", "cpo_alpha"), 0.25),
        )
    ]
    assert names[:3] == ["cpu", "cpu+seeds=0,1", "cpu+beta=0.5+seed=3"]
    assert run_folder("cpu", {"seed": 3, "beta": 0.5}).name == names[2], "their order says nothing"
    assert len(set(names)) == len(names)
    assert all("/" not in name and len(name) <= 80 for name in names)


@pytest.mark.parametrize("place", ["../../x", "/tmp/x", ".", "lmolt_utils"])
def test_figures_go_nowhere_else(place: str) -> None:
    with pytest.raises(CompanionError, match="name a folder in figures/ or runs/"):
        figures_folder(Path("run"), place)
