"""Parameters and the systems table: every mistake stops the run, naming the key and the nearest right one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmolt_utils.config.params import ParameterError, Params, describe, load, profiles, read_yaml
from lmolt_utils.config.systems import chosen, load_systems, planned, replicas
from lmolt_utils.paths import root
from lmolt_utils.run.notebook import Run, given, resolve, start
from lmolt_utils.run.notebook_files import declared


@pytest.mark.parametrize("profile", profiles())
def test_every_profile_is_complete(profile: str) -> None:
    assert load(profile).profile == profile


def test_every_parameter_has_meaning_and_source() -> None:
    for name in Params.model_fields:
        facts = describe(name)
        assert facts["meaning"], name
        assert facts["source"], name


def test_the_seeds_profile_is_the_default_one_with_three_seeds() -> None:
    """Else its spread would be that of another experiment; its tables go beside the default ones, not over them."""
    own, default = load("seeds").model_dump(), load("cpu").model_dump()
    assert {name for name in own if own[name] != default[name]} == {"profile", "seeds", "figures_dir"}
    assert (own["seeds"], default["seeds"]) == ([0, 1, 2], [0])
    copies = [system.name for system in replicas(load_systems(), load("seeds")) if system.replica]
    assert len(copies) == 22, "eleven trained systems of the tables, two more seeds each"


def test_paper_profile_has_the_papers_values() -> None:
    paper = load("paper")
    assert (paper.lora_rank, paper.lora_alpha, paper.lora_dropout) == (64, 16, 0.1)  # L4M Fig. 15
    assert (paper.epochs, paper.learning_rate, paper.max_grad_norm) == (3.0, 5.0e-5, 0.3)  # L4M Fig. 14
    assert paper.mol2cap_share == pytest.approx(1 / 19)  # 1:18
    assert paper.quantize == "nf4"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"betta": 0.1}, "unknown parameter 'betta'; did you mean 'beta'?"),
        ({"learning_rate": "1e-5"}, r"write 1\.0e-5"),
        ({"epochs": 0}, "'epochs' = 0.0"),
        ({"lora_rank": 2.5}, "'lora_rank' = 2.5"),
        ({"device": "gpu"}, "'device' = 'gpu'"),
        ({"seed": True}, "'seed' = True"),
    ],
)
def test_wrong_values_are_named(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        load("cpu", overrides)


def test_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(ParameterError, match="did you mean 'cpu'"):
        load("cpuu")


def test_notebook_takes_profile_cell_and_injected_values() -> None:
    cells = ["profile: str = None\nbeta: float = None", "# Parameters\nbeta = 0.5\nsystems = ['cpo']"]
    namespace = {"In": cells, "profile": None, "beta": 0.5, "systems": ["cpo"], "unrelated": 3}
    values = given(namespace)
    assert values == {"beta": 0.5, "systems": ["cpo"]}
    params, wanted = resolve("04_alignment", values)
    assert (params.profile, params.beta, wanted) == ("cpu", 0.5, ["cpo"])


def test_notebook_refuses_undeclared_and_foreign(runs: Path) -> None:
    def cell(text: str, **values: object) -> dict[str, object]:
        return {"In": [f"# Parameters\n{text}"], **values}

    with pytest.raises(ParameterError, match="did you mean 'corpus_rows'"):
        start("01_data", cell("corpus_row = 5", corpus_row=5))
    with pytest.raises(ParameterError, match="no system 'cpoo'; did you mean 'cpo'"):
        start("04_alignment", cell("systems = ['cpoo']", systems=["cpoo"]))
    with pytest.raises(ParameterError, match="made by 03_sft"):
        start("04_alignment", cell("systems = ['sft']", systems=["sft"]))
    with pytest.raises(ParameterError, match="made by 03_sft, not by 01_data"):
        start("01_data", cell("systems = ['sft']", systems=["sft"]))
    with pytest.raises(ParameterError, match="makes no systems"):
        start("02_negatives", cell("systems = ['sft']", systems=["sft"]))
    run = start("01_data", cell("profile = 'smoke'", profile="smoke"))
    assert run.params.corpus_rows == load("smoke").corpus_rows
    with pytest.raises(AttributeError, match="parameters cell does not list it"):
        _ = run.params.beta
    assert "beta" not in declared("01_data")


def test_systems_table_is_the_papers_experiment() -> None:
    systems = load_systems()
    for table, labels in {
        "T2": ["Meditron", "SFT", "DPO", "CPO", "KTO"],
        "T4": ["TIES+DPO", "TIES+CPO", "SLERP+DPO", "SLERP+CPO"],
        "AT1": ["Meditron", "SFT-Meditron", "CTO-Lan", "CTO-Mol"],
        "AT2": ["Meditron", "SFT-Meditron", "CTO-Lan", "CTO-Mol"],
    }.items():
        assert set(labels) <= {system.rows.get(table) for system in systems}
    # ALMol: CTO is CPO; Lan begins with the caption-to-molecule model, Mol with the other (ALMol, Section 4.3).
    inits = {system.rows["AT1"]: (system.init, system.method) for system in systems if "AT1" in system.rows}
    assert (inits["CTO-Lan"], inits["CTO-Mol"]) == (("cap2mol", "cpo"), ("mol2cap", "cpo"))
    assert any(system.init == "cap2mol" and system.method == "none" for system in systems), "init-only control"
    alone = {system.init for system in systems if system.merged and system.method == "none"}
    assert alone == {"slerp", "ties", "nuslerp", "half_sum_ties", "soup"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "{name: a, label: A, notebook: 03_sft, init: cap2mol, methode: sft}",
            "unknown field 'methode'; did you mean 'method'",
        ),
        ("{name: a, label: A, notebook: 03_sft, init: cap2cap, method: sft}", "init 'cap2cap' is none of"),
        (
            "{name: a, label: A, notebook: 03_sft, init: mol2cap, method: sft, mol2cap_share: 0.5}",
            "belongs to merges",
        ),
        ("{name: a, label: A, notebook: 03_sft, init: per_task, method: sft}", "cannot be|not trained"),
        (
            "{name: a, label: A, notebook: 03_sft, init: cap2mol, method: sft, settings: {lr: 1}}",
            "unknown setting 'lr'",
        ),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "systems.yaml"
    path.write_text(f"- {row}\n")
    with pytest.raises(ParameterError, match=message):
        load_systems(path)


def test_a_new_row_takes_its_own_settings(tmp_path: Path) -> None:
    path = tmp_path / "systems.yaml"
    path.write_text(
        "- {name: mine, label: Mine, notebook: 04_alignment, init: slerp, mol2cap_share: 0.3, method: cpo,"
        " settings: {beta: 0.5}}\n"
    )
    (mine,) = chosen(load_systems(path), "04_alignment", None)
    params = mine.params(load("cpu"))
    assert (params.beta, params.mol2cap_share) == (0.5, 0.3)


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m lmolt_utils.cli params | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("profile")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("settings: {beta: a}", "system 'mine': parameter 'beta' = 'a'"),
        ("settings: {micro_batch: 6}", "system 'mine': .*effective_batch"),
        ("settings: {adapter_of: cpo, beta: 0.9}", "'beta' has no effect on an adapter that another system trained"),
        ("settings: {adapter_of: cpo, switches: {cpo_nll: as_released}}", "'cpo_nll' has no effect"),
        ("rows: {T9: CPO}", "names no table 'T9'"),
        ("rows: {T2: CPO}", "'cpo' and 'mine' are both row 'CPO' of T2"),
    ],
)
def test_a_row_that_cannot_be_made_as_it_says_stops_the_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, message: str
) -> None:
    _own_table(tmp_path, monkeypatch, "mine", row)
    with pytest.raises(ParameterError, match=message):
        planned(load("smoke"))


def test_names_and_seeds_that_meet_stop_the_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="the first must be the run's seed, 0"):
        planned(load("smoke", {"seeds": [7]}))
    with pytest.raises(ParameterError, match="seeds"):
        load("smoke", {"seeds": [0, -1]})
    with pytest.raises(ParameterError, match="learning_rate"):
        load("smoke", {"learning_rate": float("inf")})
    _own_table(tmp_path, monkeypatch, "cpo@seed1", "rows: {}")
    assert planned(load("smoke"))
    with pytest.raises(ParameterError, match="two systems are called 'cpo@seed1'"):
        planned(load("smoke", {"seeds": [0, 1]}))


def _own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, more: str) -> None:
    """A repository whose systems table has one row more."""
    shutil.copytree(root() / "params", tmp_path / "params")
    with open(tmp_path / "params" / "systems.yaml", "a", encoding="utf-8") as table:
        table.write(f"\n- {{name: {name}, label: Mine, notebook: 06_ablation, init: cap2mol, method: cpo, {more}}}\n")
    monkeypatch.setenv("LMOLT_ROOT", str(tmp_path))


def test_a_parameter_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("beta: 0.1\nseed: 0\nbeta: 0.5\n")
    with pytest.raises(ParameterError, match="'beta' is there twice"):
        read_yaml(path)


def test_a_run_says_whose_models_its_numbers_are_of() -> None:
    """Whatever the corpus: it is the models that make a number the papers' or not."""

    def scale(profile: str, **values: str) -> str:
        return Run("08_figures", Path("run"), load(profile, values)).scale

    assert scale("smoke") == scale("smoke", corpus="additional_data.zip") == "embedded"
    assert scale("paper") == "the paper's models"
    assert scale("paper", base_model="epfl-llm/meditron-7b@abc123") == "the paper's models"
    assert scale("paper", base_model="mine").startswith("not the paper's models but mine, language-plus-molecules/")
