"""The benchmark for a GPU machine runs whole at tiny size on a CPU, from what such a machine has."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu
from lmolt_utils.config.systems import load_systems
from lmolt_utils.training.rows import lengths


def test_it_imports_no_rdkit_and_nothing_else_that_a_gpu_machine_may_lack() -> None:
    code = (
        "import sys\n"
        "for name in ('rdkit', 'pydantic', 'IPython', 'nltk', 'sacrebleu', 'matplotlib', 'fcd'):\n"
        "    sys.modules[name] = None\n"
        "import benchmarks.gpu\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_its_trainings_are_the_papers() -> None:
    trained = [system.method for system in load_systems() if system.trained_for_tables]
    trained += [s.method for s in load_systems() if s.method != "none" and s.merged and not s.rows]  # figures
    assert {method: trained.count(method) for method in gpu.METHODS} == gpu.TRAININGS


def test_pairs_have_the_measured_lengths_in_few_rows() -> None:
    tokenizer = gpu.word_tokenizer(500)
    many, few = (lengths(gpu.made_up(rows, 500, 1), tokenizer, "card") for rows in (2_000, 64))
    # Of L+M-24's captions and molecules as counted with a tokenizer of Llama's kind.
    assert many.mean().to_dict() == pytest.approx({"prompt": 176.5, "chosen": 69.5, "rejected": 78.5}, rel=0.05)
    assert gpu.row_tokens(few, "dpo") / 64 == pytest.approx(gpu.row_tokens(many, "dpo") / 2_000, rel=0.03)


def test_the_model_is_made_in_four_bits() -> None:
    model = gpu.random_model(gpu.TINY, "cpu")
    layers = [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    assert len(layers) == 7 * gpu.TINY["num_hidden_layers"]
    assert {layer.weight.quant_state.quant_type for layer in layers} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in layers)
    assert model.lm_head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("method", gpu.METHODS)
def test_both_trainers_begin_with_the_same_loss_and_gradient(method: str) -> None:
    micro = 1 if method == "cpo" else 2
    recipe = replace(gpu.RECIPE, method=method, micro_batch=micro, device="cpu", lora_dropout=0.0)
    pairs = gpu.made_up(6, gpu.TINY["vocab_size"], 0)
    own, stock = (gpu.measure(build, recipe, gpu.TINY, pairs) for build in (gpu.ours, gpu.stock))
    for name in ("loss", "grad_norm"):
        assert own[name] == pytest.approx(stock[name], rel=0.05)
    assert min(own["tokens_per_s"], stock["tokens_per_s"], own["hours"]) > 0
    assert (own["reference_s"] > 0) == (method in ("dpo", "kto"))


def test_the_command_keeps_its_budget_and_goes_on_after_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(gpu, "stock", broken)
    arguments = ["--tiny", "--micro", "2", "4", "--pairs", "4", "--methods", "sft"]
    assert gpu.main([*arguments, "--budget", "600"]) == 0
    told = capsys.readouterr().out
    assert told.count("out of memory") == 1, "a larger size is not tried"
    assert gpu.main([*arguments, "--budget", "0"]) == 0
    assert "Nothing was measured" in capsys.readouterr().out
