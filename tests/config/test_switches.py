"""Switches: each of the three forms does what it says, to tokens, losses, optimisers and predictions."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lmolt_utils.config.params import load
from lmolt_utils.config.prompts import SEGMENTS, TASKS, TEMPLATES, answer, prompt
from lmolt_utils.config.switches import CHOICES, resolve, switches
from lmolt_utils.config.systems import System, load_systems
from lmolt_utils.models.chat import END, START
from lmolt_utils.models.loading import load_model, load_tokenizer
from lmolt_utils.paths import root
from lmolt_utils.run.notebooks import with_data_switches
from lmolt_utils.training.adapters import load_trained
from lmolt_utils.training.rows import lengths
from lmolt_utils.training.trainers import build_trainer
from tests.training.test_training import PAIRS, recipe, trained
from tests.training.test_training import START as MODEL


def system(method: str, init: str = "cap2mol", **settings: Any) -> System:
    row = {"name": "a", "label": "A", "notebook": "06_ablation", "init": init, "method": method, "settings": settings}
    return System.model_validate(row)


def test_every_switch_sets_parameters_that_exist_and_says_so() -> None:
    audit = (root() / "docs" / "audit.md").read_text(encoding="utf-8")
    for name, switch in switches().items():
        assert len(switch.text) > 30
        assert f"| {switch.audit} |" in audit
        for choice in CHOICES:
            for key, values in (switch.of(choice) or {}).items():
                assert key in {"*", "data", "sft", "dpo", "cpo", "kto", "slerp", "soup", "txtchem"}, name
                load("cpu", {k: v for k, v in values.items() if not isinstance(v, dict)})
        assert switch.as_printed != switch.as_released, f"{name} decides nothing"
    assert resolve(load("cpu").model_dump(), ("sft", "cap2mol", "*")) == {}


def test_a_choice_applies_to_the_methods_and_inits_that_it_names() -> None:
    """argument_parser.py, sft.py, dpo.py and kto.py of June 2024: four recipes."""
    released = load("cpu", {"semantics": "as_released"})
    own = {method: system(method).params(released) for method in ("none", "sft", "dpo", "cpo", "kto")}
    assert own["sft"].learning_rate == pytest.approx(4 * own["cpo"].learning_rate)  # 2e-4 against 5e-5
    assert [p.scheduler for p in own.values()] == ["cosine", "constant", "cosine", "linear", "cosine"]
    assert [p.dora for p in own.values()] == [False, True, False, False, False]
    assert {(p.epochs, p.test_prompt, p.max_new_tokens) for p in own.values()} == {(1.0, "infer20", 300)}
    for method in ("sft", "dpo", "cpo", "kto"):  # the indentation of the prompts alone takes up to 400 tokens
        counts = lengths(PAIRS, load_tokenizer(MODEL), own[method].train_prompt)
        assert load("cpu").max_length < counts["prompt"].min() < own[method].max_length - 50
    assert {row.params(released).dpo_loss for row in load_systems() if row.settings.get("dpo_alpha")} == {"sigmoid"}
    printed = load("cpu", {"semantics": "as_printed", "mol2cap_share": 0.3})
    shares = [system("cpo", init).params(p).mol2cap_share for init, p in (("soup", released), ("slerp", printed))]
    assert shares == [0.5, 1 / 19]


def test_single_switches_win_over_semantics_and_a_rows_own_settings_over_both() -> None:
    released = load("cpu", {"semantics": "as_released", "switches": {"epochs": "corrected"}})
    assert system("sft").params(released).epochs == load("cpu").epochs
    assert system("sft").params(released).sft_eos == "none"
    assert system("sft", switches={"sft_eos": "corrected"}).params(released).sft_eos == "append"
    assert system("sft", switches={"dora": "as_released"}).params(load("cpu")).dora is True
    assert system("sft", learning_rate=0.5).params(released).learning_rate == 0.5


def test_negatives_are_one_choice_for_all_systems_of_a_run() -> None:
    """create_negative.py keeps MolT5's answers that equal the reference (audit D24)."""
    for values, expected in (
        ({}, ("shuffled", True)),
        ({"semantics": "as_printed"}, ("translator", True)),
        ({"semantics": "as_released"}, ("translator", False)),
        ({"switches": {"negatives": "as_released"}}, ("translator", False)),
        ({"semantics": "as_released", "switches": {"negatives": "corrected"}}, ("shuffled", True)),
    ):
        params = with_data_switches(load("cpu", {"negatives": "shuffled", **values}))
        assert (params.negatives, params.drop_equal) == expected, values


def test_prompts_differ_in_white_space_alone_and_have_the_published_lengths() -> None:
    """441 characters of Meditron's card, 575 of the KTO script's string, both with %s for the molecule (audit D10)."""
    for task in TASKS:
        prompts = [prompt(task, "%s", template) for template in TEMPLATES]
        assert len({"".join(text.split()) for text in prompts}) == 1
        assert len(set(prompts)) == len(TEMPLATES)
        assert all(text.endswith("### Response:") for text in prompts)
        assert prompt(task, "CCO") == SEGMENTS[task][0] + "CCO" + SEGMENTS[task][1]
    assert len(prompt("mol2cap", "%s", "card")) == 441
    assert len(prompt("mol2cap", "%s", "kto16")) == 575
    assert prompt("mol2cap", "%s", "train12").count("\n            ") == 8
    assert "\n                    ### Input:\nMolecule: %s \nIn that" in prompt("mol2cap", "%s", "infer20")
    answers = [answer("CCO", template) for template in ("printed", "card", "train12", "sft")]
    assert answers == [" CCO", " CCO", "CCO", "\n\n            CCO"]


def first_row(method: str, folder: Path, **changes: Any) -> tuple[list[int], list[int], PreTrainedTokenizerBase, Any]:
    """Ids of the first row as the trainer sees it, those it learns, tokenizer and trainer."""
    tokenizer = load_tokenizer(MODEL)
    trainer = build_trainer(recipe(method, **changes), load_model(MODEL, "causal"), tokenizer, PAIRS, folder)
    batch = next(iter(trainer.get_train_dataloader()))
    ids, mask = batch["input_ids"][0], batch["attention_mask"][0].bool()
    learned = batch["labels"][0] != -100 if "labels" in batch else batch["completion_mask"][0].bool()
    return ids[mask].tolist(), ids[learned].tolist(), tokenizer, trainer


@pytest.mark.parametrize("eos", ["append", "none"])
@pytest.mark.parametrize("span", ["answer", "all"])
def test_sft_eos_and_loss_span(eos: str, span: str, tmp_path: Path) -> None:
    ids, learned, tokenizer, _ = first_row("sft", tmp_path, sft_eos=eos, sft_loss_on=span)
    assert ids.count(tokenizer.eos_token_id) == (1 if eos == "append" else 0)
    assert (learned[-1] == tokenizer.eos_token_id) == (eos == "append")
    text = tokenizer.decode(learned, skip_special_tokens=True)
    assert (learned == ids) if span == "all" else (text in {answer(chosen) for chosen in PAIRS["chosen"]})


def test_chatml_puts_untrained_tokens_where_bos_and_eos_were(tmp_path: Path) -> None:
    ids, learned, tokenizer, trainer = first_row("kto", tmp_path, kto_format="chatml")
    start, end = tokenizer.convert_tokens_to_ids([START, END])
    base = load_tokenizer(MODEL)
    assert ids[:2] == [start, start]
    assert base.bos_token_id not in ids, "the sequence does not begin with the token the model knows"
    assert base.eos_token_id not in learned, "the stop token that inference waits for is never learned"
    assert learned[-1] == end
    assert ids.count(end) == 3  # prompt, answer, and once more by the trainer
    learning = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert all("lora_" in name and "embed" not in name and "lm_head" not in name for name in learning)
    plain, *_ = first_row("kto", tmp_path, kto_format="plain")
    assert (plain[0], plain[-1]) == (base.bos_token_id, base.eos_token_id)


def test_chatml_adapters_load_on_the_model_without_the_tokens(tmp_path: Path) -> None:
    trained(recipe("kto", kto_format="chatml", epochs=1.0), tmp_path)
    model, tokenizer = load_trained(MODEL, tmp_path / "a", device="cpu", dtype="float32", quantize="none")
    assert len(tokenizer) == len(load_tokenizer(MODEL)), "asked as the released scripts ask: the base model's tokens"
    assert model.get_input_embeddings().weight.shape[0] == 1024


def test_optimiser_settings_reach_the_trainer(tmp_path: Path) -> None:
    changes = {"scheduler": "linear", "max_grad_norm": 0.7, "weight_decay": 0.001, "warmup_share": 0.25}
    *_, trainer = first_row("sft", tmp_path, dora=True, lora_dropout=0.05, **changes)
    names = ("lr_scheduler_type", "max_grad_norm", "weight_decay", "warmup_steps")
    assert [getattr(trainer.args, name) for name in names] == list(changes.values())
    assert any("lora_magnitude_vector" in name for name, _ in trainer.model.named_parameters())
    config = trainer.model.peft_config["default"]
    assert (config.use_dora, config.lora_dropout) == (True, 0.05)
