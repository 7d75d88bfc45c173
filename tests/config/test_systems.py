"""The systems table: a row that cannot be made as it says stops the run before any work."""

import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from lmolt_utils.config.params import Params, load
from lmolt_utils.config.reading import ParameterError
from lmolt_utils.config.switches import CHOICES, switches
from lmolt_utils.config.systems import SETTINGS, Method, System, load_systems, planned, replicas
from lmolt_utils.merging.merges import merge_of
from lmolt_utils.paths import root
from lmolt_utils.training.recipes import Recipe


def test_the_table_is_the_papers_experiment() -> None:
    systems = load_systems()
    for table, labels in {
        "T2": ["Meditron", "SFT", "DPO", "CPO", "KTO"],
        "T4": ["TIES+DPO", "TIES+CPO", "SLERP+DPO", "SLERP+CPO"],
        "AT1": ["Meditron", "SFT-Meditron", "CTO-Lan", "CTO-Mol"],
    }.items():
        assert set(labels) <= {system.rows.get(table) for system in systems}
    # ALMol: CTO is CPO; Lan begins with the caption-to-molecule model, Mol with the other (ALMol, Section 4.3).
    inits = {system.rows["AT1"]: (system.init, system.method) for system in systems if "AT1" in system.rows}
    assert (inits["CTO-Lan"], inits["CTO-Mol"]) == (("cap2mol", "cpo"), ("mol2cap", "cpo"))
    assert any(system.init == "cap2mol" and system.method == "none" for system in systems), "init-only control"
    alone = {system.init for system in systems if system.merged and system.method == "none"}
    assert alone == {"slerp", "ties", "nuslerp", "half_sum_ties", "soup"}


def own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str) -> None:
    """A repository whose systems table has one row more; what ``row`` leaves out is as for a CPO."""
    shutil.copytree(root() / "params", tmp_path / "params")
    given = {field.partition(":")[0].strip() for field in row.split(",")}
    usual = {"name": "mine", "label": "Mine", "notebook": "06_ablation", "init": "cap2mol", "method": "cpo"}
    fields = [f"{name}: {value}" for name, value in usual.items() if name not in given]
    with open(tmp_path / "params" / "systems.yaml", "a", encoding="utf-8") as table:
        table.write(f"\n- {{{', '.join([*fields, row])}}}\n")
    monkeypatch.setenv("LMOLT_ROOT", str(tmp_path))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("methode: sft", "'mine': unknown field 'methode'; did you mean 'method'"),
        ("method: CPO", "'mine': field 'method' = 'CPO': Input should be 'none', 'sft', 'dpo', 'cpo' or 'kto'"),
        ("init: slerp, mol2cap_share: half", "'mine': field 'mol2cap_share' = 'half': .*valid number"),
        ("init: slerp, mol2cap_share: 1.5", "'mine': field 'mol2cap_share' = 1.5"),
        ("mol2cap_share: 0.5", "belongs to merges"),
        ("init: per_task", "not trained"),
        ("init: txtchem", "is not trained"),
        ("notebook: 01_data, init: baseline, method: none", "its name is one of constant"),
        ("name: cpo", "two systems are called 'cpo'"),
        ("label: CPO", "two systems have the label 'CPO'"),
        ("settings: {lr: 1}", "unknown setting 'lr'.*may set .*learning_rate"),
        ("settings: {betta: 1}", "unknown setting 'betta'; did you mean 'beta'"),
        ("settings: {test_prompt: card}", "unknown setting 'test_prompt'"),
        ("settings: {beta: a}", "system 'mine': parameter 'beta' = 'a'"),
        ("settings: {micro_batch: 6}", "system 'mine': .*effective_batch"),
        (
            "settings: {switches: {sft_eoss: as_released}}",
            "'mine': field 'settings': unknown switch .*did you mean 'sft_eos'",
        ),
        ("settings: {switches: as_released}", "'mine': .*switches: names and choices are needed"),
        ("settings: {switches: {negatives: as_released}}", "'negatives' decides for all systems"),
        ("settings: {adapter_of: cpo, beta: 0.9}", "'beta' has no effect on another system's adapter"),
        ("settings: {adapter_of: cpo, switches: {cpo_nll: as_released}}", "'cpo_nll' has no effect"),
        ("method: none, settings: {adapter_of: cpo}", "'adapter_of' changes nothing for init cap2mol, method none"),
        ("settings: {adapter_of: cpp}", "adapter_of: there is no 'cpp'; did you mean 'cpo'"),
        ("against: cpp", "against: there is no 'cpp'; did you mean 'cpo'"),
        ("rows: {T9: CPO}", "'mine': rows: there is no 'T9'; did you mean 'T"),
        ("rows: {T2: CPO}", "'cpo' and 'mine' both claim row 'CPO' of table T2"),
        ("rows: {T4: slerp + cpo}", "'mine': table T4 has no row 'slerp . cpo'; did you mean 'SLERP.CPO'"),
    ],
)
def test_a_wrong_row_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, message: str
) -> None:
    own_table(tmp_path, monkeypatch, row)
    with pytest.raises(ParameterError, match=message):
        planned(load("smoke"))


def read_by(system: System, profile: Params) -> dict[str, Any]:
    """What the training, the merge and the answers of a system are keyed by, and its cleaning."""
    params = system.params(profile)
    asked = "baseline_prompt" if system.init == "txtchem" else "test_prompt"
    read = {name: getattr(params, name) for name in (asked, "max_new_tokens", "postprocess")}
    if merge := merge_of(system, params):
        read |= {"merge": merge.relevant()}
    return read if system.method == "none" else read | Recipe.of(system.method, params).relevant()


#: A profile whose values are none that a switch sets, so that a switch which only confirms the usual ones is seen.
ODD = {
    "train_prompt": "train12", "test_prompt": "train12", "baseline_prompt": "released", "sft_eos": "none", "dora": True,
    "sft_loss_on": "all", "scheduler": "linear", "warmup_share": 0.2, "weight_decay": 0.2, "max_grad_norm": 0.7,
    "epochs": 7.0, "lora_dropout": 0.3, "dpo_loss": "kto_pair", "cpo_nll": "row_mean", "kto_format": "chatml",
    "mol2cap_share": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("method", get_args(Method))
def test_what_changes_nothing_is_refused_and_nothing_else(method: str) -> None:
    """A setting or a switch has to change what the system's steps are keyed by, in some profile."""
    profiles = [load("cpu", {"semantics": choice, **odd}) for choice in CHOICES for odd in ({}, ODD)]
    usual = load("cpu")
    values = {name: getattr(usual, name) for name in SETTINGS}
    tried: list[dict[str, Any]] = [{name: value / 2 or 0.5} for name, value in values.items() if type(value) is float]
    tried += [{name: value + 2} for name, value in values.items() if type(value) is int and name != "micro_batch"]
    tried += [{"micro_batch": 2}]
    for name, switch in switches().items():
        known = [] if switch.of_the_run else [choice for choice in CHOICES if switch.of(choice) is not None]
        tried += [{"switches": {name: choice}} for choice in known]
    inits = ("per_task", "soup", "half_sum_ties", "txtchem") if method == "none" else ("cap2mol", "slerp", "ties")
    for init, settings in product(inits, tried):
        row = {"name": "a", "label": "A", "notebook": "06_ablation", "init": init, "method": method}
        plain, own = (System.model_construct(**row, settings=each) for each in ({}, settings))
        changes = any(read_by(plain, profile) != read_by(own, profile) for profile in profiles)
        try:
            System.model_validate({**row, "settings": settings})
        except ValidationError as error:
            refused = str(error)
        else:
            refused = ""
        if refused:
            assert re.search("'.*' changes nothing for init", refused)
            assert read_by(plain, usual) == read_by(own, usual), (init, settings)
        else:
            assert changes, (init, settings)


def test_seeds_add_copies_of_the_tables_trained_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systems = load_systems()
    assert replicas(systems, load("cpu")) == systems
    more = {system.name: system for system in replicas(systems, load("cpu", {"seeds": [0, 1, 2]}))}
    assert {"cpo@seed1", "cpo@seed2", "slerp+cpo@seed2", "dpo+nll@seed1"} <= set(more)
    assert not {"init@seed1", "cpo@seed0", "soup+cpo@seed1"} & set(more)
    copy = more["cpo@seed2"]
    assert copy.rows == {}
    assert copy.params(load("cpu")) == load("cpu", {"seed": 2})
    with pytest.raises(ParameterError, match="the first must be the run's seed, 0"):
        planned(load("smoke", {"seeds": [7]}))
    own_table(tmp_path, monkeypatch, "name: cpo@seed1")
    assert planned(load("smoke"))
    with pytest.raises(ParameterError, match="two systems are called 'cpo@seed1'"):
        planned(load("smoke", {"seeds": [0, 1]}))


def test_seeds_do_not_copy_a_system_with_another_ones_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy would predict with the adapter of the first seed again, and the spread would read 0."""
    settings = "settings: {adapter_of: cpo, switches: {test_prompt: as_released}}"
    own_table(tmp_path, monkeypatch, f"name: asked, {settings}, rows: {{T2: CPO asked}}")
    copies = [system.name for system in planned(load("smoke", {"seeds": [0, 1]})) if system.replica]
    assert "cpo@seed1" in copies
    assert "asked@seed1" not in copies
