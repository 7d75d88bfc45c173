"""The papers' profile, rehearsed: everything but ids, sizes and the device is what the paper profile says."""

from pathlib import Path

import pytest

from lmolt_utils.config.params import load
from lmolt_utils.config.prompts import TASKS, baseline_prompt, prompt
from lmolt_utils.config.systems import load_systems, with_ratio_grid
from lmolt_utils.files import read_json, read_rows
from lmolt_utils.models.generation import generate
from lmolt_utils.models.loading import ModelError, load_model, load_tokenizer
from lmolt_utils.paths import root
from lmolt_utils.run.notebook import Run
from lmolt_utils.training.experiment import plan
from tests.run.executing import in_one_kernel, repository_with
from tools import rehearsal

#: One per way of making a system at this scale.
SYSTEMS = ("meditron", "txtchem-t5", "chem-llm", "sft", "dpo", "cpo", "kto", "slerp", "ties", "slerp+cpo", "rule")
MACHINE_ROWS_AND_STEPS = {
    "profile", "threads", "ablation_jobs", "device", "figures_dir", "test_rows", "negatives_shard_rows", "epochs",
    "effective_batch", "save_steps", "max_new_tokens", "decomposer_new_tokens",
}  # fmt: skip


@pytest.fixture(scope="module")
def hub() -> Path:
    """The folders that the profile names."""
    folder = root() / "runs" / "hub"
    rehearsal.build(folder)
    return folder


def test_the_rehearsal_differs_from_the_papers_profile_in_ids_rows_steps_and_device_alone() -> None:
    own, paper = load("rehearsal").model_dump(), load("paper").model_dump()
    assert own.pop("test_corpus") == "runs/hub/language-plus-molecules/LPM-24_train-extra"
    assert own.pop("remote_code") == [f"runs/hub/{name}" for name in paper["remote_code"]]
    ids = {name for name, value in own.items() if str(value).startswith("runs/hub/")}
    assert len(ids) == 11
    assert {name: own[name] for name in ids} == {name: f"runs/hub/{paper[name]}" for name in ids}
    assert {name for name in own if own[name] != paper[name]} == ids | MACHINE_ROWS_AND_STEPS


@pytest.mark.slow
def test_the_papers_profile_runs_through_all_eight_notebooks(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One system per way of making one; ``make rehearse`` runs them all."""
    repository_with(SYSTEMS, tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "hub").symlink_to(hub)
    monkeypatch.setenv("LMOLT_ROOT", str(tmp_path))
    in_one_kernel("rehearsal", tmp_path)
    folder, params = tmp_path / "runs" / "rehearsal", load("rehearsal")
    for system in load_systems(tmp_path / "params" / "systems.yaml"):
        for task in TASKS:
            if system.init != "baseline":
                predicted = read_rows(folder / "predictions" / f"{system.name}.{task}.jsonl", ("prediction",))
                assert len(predicted) == params.test_rows
            assert read_json(folder / "scores" / f"{system.name}.{task}.json")["n"] == params.test_rows
    corpus = read_rows(folder / "data" / "corpus.jsonl", ("molecule",))
    assert set(corpus["split"]) == {"train", "validation"}
    text = (tmp_path / params.figures_dir / "table_T2.md").read_text()
    assert "not run" not in "".join(line for line in text.splitlines() if "TxtChem-T5" in line)


def test_a_published_baseline_runs_where_it_has_a_model_with_its_own_prompt(runs: Path) -> None:
    names = {system.name for system in with_ratio_grid(load_systems(), load("cpu"))}
    assert "meditron" in names
    assert not any(name.startswith(("txtchem", "chem-llm")) for name in names)
    assert baseline_prompt("txtchem", "native", "mol2cap", "CCO") == "Caption the following SMILES: CCO"
    assert baseline_prompt("txtchem", "native", "cap2mol", "It.") == "Write in SMILES the described molecule: It."
    assert "Translate the following molecule" in baseline_prompt("txtchem", "released", "mol2cap", "CCO")
    assert prompt("mol2cap", "CCO") in baseline_prompt("chemllm", "native", "mol2cap", "CCO")
    run = Run("06_ablation", runs, load("rehearsal"))
    forms = {s.name: plan(run, s).params.baseline_prompt for s in load_systems() if s.init == "txtchem"}
    assert forms == {"txtchem-t5": "native", "txtchem-t5.prefix": "released"}


def test_a_models_own_code_runs_only_where_a_parameter_names_it(hub: Path) -> None:
    reference = str(hub / "AI4Chem" / "ChemLLM-7B-Chat")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(reference, "causal")
    model, tokenizer = load_model(reference, "causal", remote_code=True), load_tokenizer(reference, remote_code=True)
    assert type(model).__name__ == "OwnForCausalLM"
    assert generate(model, tokenizer, ["CCO"], max_new_tokens=4, batch_size=1)
