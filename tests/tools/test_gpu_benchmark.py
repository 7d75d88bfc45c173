"""The benchmark for a GPU machine runs whole at tiny size on a CPU, from what such a machine has."""

import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from benchmarks import gpu
from lmolt_utils.config.params import load
from lmolt_utils.config.systems import load_systems
from lmolt_utils.training.rows import lengths

SMALL = {**asdict(gpu.RECIPE), "device": "cpu", "epochs": 1.0}


def test_it_imports_no_rdkit_and_nothing_else_that_a_gpu_machine_may_lack() -> None:
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'rdkit', 'pydantic', 'IPython', 'nltk', 'sacrebleu', 'matplotlib', 'fcd'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import benchmarks.gpu\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_its_recipe_and_its_trainings_are_the_papers() -> None:
    paper = load("paper")
    assert asdict(gpu.RECIPE) == {"method": "sft"} | {
        name: getattr(paper, name) for name in asdict(gpu.RECIPE) if name != "method"
    }
    trained = [system.method for system in load_systems() if system.trained_for_tables]
    trained += [s.method for s in load_systems() if s.method != "none" and s.merged and not s.rows]  # figures
    assert {method: trained.count(method) for method in gpu.METHODS} == gpu.TRAININGS


def test_lengths_have_the_measured_distribution_in_few_rows() -> None:
    many = gpu.lengths(20_000, 0)
    captions = many[many["task"] == "mol2cap"]["chosen"]
    assert captions.quantile([0.05, 0.5, 0.95]).tolist() == pytest.approx([9, 75, 118], abs=1)
    assert captions.mean() == pytest.approx(56, rel=0.05)  # of the captions measured
    few = gpu.lengths(128, 1)
    for method in gpu.METHODS:
        assert gpu.row_tokens(few, method) / 128 == pytest.approx(gpu.mean_tokens(method), rel=0.03)


def test_words_are_tokens() -> None:
    sizes, tokenizer = gpu.lengths(6, 0), gpu.word_tokenizer(500)
    counted = lengths(gpu.made_up(sizes, 500, 0), tokenizer, "card")
    assert counted.to_dict("list") == sizes[["prompt", "chosen", "rejected"]].to_dict("list")


def test_the_model_is_made_in_four_bits() -> None:
    model = gpu.random_model(gpu.TINY, "cpu")
    layers = [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    assert len(layers) == 7 * gpu.TINY["num_hidden_layers"]
    assert {layer.weight.quant_state.quant_type for layer in layers} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in layers)
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert not any(p.is_meta for p in [*model.parameters(), *model.buffers()])
    with torch.no_grad():
        assert torch.isfinite(model(torch.arange(5)[None]).logits).all()


@pytest.mark.parametrize("method", gpu.METHODS)
def test_both_trainers_train_and_count_by_one_rule(method: str) -> None:
    sizes = gpu.lengths(6, 0)
    recipe = gpu.Recipe(**{**SMALL, "method": method, "micro_batch": 2})
    for build in (gpu.ours, gpu.stock):
        found = gpu.measure(build, recipe, gpu.TINY, sizes, seconds=600.0)
        assert (found.note, found.tokens) == ("", gpu.row_tokens(sizes, method))
        assert min(found.tokens_per_s, found.hours) > 0
        assert found.loss == pytest.approx({"dpo": 0.693, "kto": 0.5, "sft": 7.0}.get(method, found.loss), rel=0.2)
        assert (found.reference_s > 0) == (build is gpu.ours and method in ("dpo", "kto"))


def test_the_command_keeps_its_budget_and_goes_on_after_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(gpu, "stock", broken)
    broken.__name__ = "stock"
    arguments = ["--tiny", "--micro", "2", "4", "--pairs", "4", "--seconds", "1", "--methods", "sft"]
    assert gpu.main([*arguments, "--budget", "600"]) == 0
    told = capsys.readouterr().out
    assert told.count("out of memory") == 1, "a larger size is not tried"
    assert "sft, ours: " in told
    assert gpu.main([*arguments, "--budget", "0"]) == 0
    assert "sft, ours" not in capsys.readouterr().out
