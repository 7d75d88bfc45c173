"""Switches: each of the three forms does what it says, to tokens, losses, optimisers and predictions."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from transformers import PreTrainedTokenizerBase

from lmolt_utils.config.params import ParameterError, Params, load, profiles
from lmolt_utils.config.prompts import LAYOUTS, SEGMENTS, TASKS, answer, prompt
from lmolt_utils.config.switches import CHOICES, SWITCHES, Times, resolve, table
from lmolt_utils.config.systems import System, load_systems, replicas
from lmolt_utils.models.chat import END, START
from lmolt_utils.models.loading import load_model, load_tokenizer
from lmolt_utils.models.postprocess import postprocess
from lmolt_utils.run.notebook import resolve as start_resolve
from lmolt_utils.training.trainers import build_trainer
from tests.training.test_training import PAIRS, recipe
from tests.training.test_training import START as MODEL


def system(method: str, init: str = "cap2mol", **settings: Any) -> System:
    row = {"name": "a", "label": "A", "notebook": "06_ablation", "init": init, "method": method, "settings": settings}
    return System.model_validate(row)


def start_values(notebook: str, values: dict[str, Any]) -> Params:
    """The parameters that a notebook starts with."""
    return start_resolve(notebook, {"profile": "cpu", **values})[0]


def settings_of(choice: str, method: str, init: str = "cap2mol") -> Params:
    return system(method, init).params(load("cpu", {"semantics": choice}))


def test_corrected_is_every_profile_as_it_stands() -> None:
    for profile in profiles():
        values = load(profile)
        assert values.semantics == "corrected"
        for row in load_systems():
            if not row.settings and row.mol2cap_share is None:
                assert row.params(values) == values
        # What the repaired form is, apart from what scale decides.
        assert (values.sft_eos, values.sft_loss_on, values.dora) == ("append", "answer", False)
        assert (values.dpo_loss, values.dpo_alpha, values.kto_format) == ("sigmoid", 0.0, "plain")
        assert (values.postprocess, values.cpo_nll) == ("clean", "sum")
        assert values.train_prompt == values.test_prompt == ("card" if profile in ("paper", "rehearsal") else "printed")


def test_as_printed_is_the_papers_listing() -> None:
    for method in ("sft", "dpo", "cpo", "kto"):
        values = settings_of("as_printed", method)
        assert (values.epochs, values.max_grad_norm, values.scheduler) == (3.0, 0.3, "cosine")  # L4M Fig. 14
        assert (values.warmup_share, values.lora_dropout, values.dora) == (0.1, 0.1, False)
        assert values.learning_rate == load("cpu").learning_rate, "one rate for all"
        assert (values.sft_eos, values.sft_loss_on, values.dpo_loss) == ("append", "answer", "sigmoid")
        assert (values.kto_format, values.train_prompt, values.test_prompt) == ("plain", "printed", "printed")
    assert settings_of("as_printed", "cpo").cpo_nll == "sum"
    assert settings_of("as_printed", "cpo", "slerp").mol2cap_share == pytest.approx(1 / 19)


def test_as_released_is_four_different_recipes() -> None:
    """argument_parser.py, sft.py, dpo.py and kto.py of June 2024."""
    sft, dpo, cpo, kto = (settings_of("as_released", method) for method in ("sft", "dpo", "cpo", "kto"))
    assert sft.learning_rate == pytest.approx(4 * cpo.learning_rate)  # 2e-4 against 5e-5
    assert (sft.scheduler, dpo.scheduler, cpo.scheduler, kto.scheduler) == ("constant", "cosine", "linear", "cosine")
    assert (sft.max_grad_norm, dpo.max_grad_norm, cpo.max_grad_norm, kto.max_grad_norm) == (1.0, 0.3, 1.0, 0.3)
    assert (sft.weight_decay, cpo.weight_decay) == (0.001, 0.0)
    assert (sft.dora, cpo.dora) == (True, False)
    assert (sft.sft_eos, sft.sft_loss_on) == ("none", "all")
    assert (dpo.dpo_loss, cpo.cpo_nll, kto.kto_format) == ("kto_pair", "row_mean", "chatml")
    assert [p.train_prompt for p in (sft, dpo, cpo, kto)] == ["sft", "train12", "train12", "kto16"]
    for values in (sft, dpo, cpo, kto):
        assert (values.epochs, values.lora_dropout, values.test_prompt) == (1.0, 0.05, "infer20")
        assert (values.postprocess, values.max_new_tokens) == ("as_released", 300)
    assert settings_of("as_released", "none").test_prompt == "infer20", "Meditron was asked in it too"
    assert settings_of("as_released", "cpo", "soup").mol2cap_share == 0.5
    assert settings_of("as_released", "cpo", "slerp").mol2cap_share == load("cpu").mol2cap_share


def test_single_switches_override_in_profile_and_row_and_a_rows_own_settings_win() -> None:
    released = load("cpu", {"semantics": "as_released", "switches": {"epochs": "corrected"}})
    assert system("sft").params(released).epochs == load("cpu").epochs
    assert system("sft").params(released).sft_eos == "none"
    assert system("sft", switches={"sft_eos": "corrected"}).params(released).sft_eos == "append"
    assert system("sft", switches={"dora": "as_released"}).params(load("cpu")).dora is True
    assert system("sft", sft_eos="append").params(released).sft_eos == "append"


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"sft_eoss": "as_released"}, "unknown switch 'sft_eoss'; did you mean 'sft_eos'"),
        ({"sft_eos": "released"}, "'released' is none of as_printed, as_released, corrected"),
        ({"postprocess": "as_printed"}, "has no 'as_printed' form"),
    ],
)
def test_wrong_switches_stop_before_any_work(switches: dict[str, str], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        load("cpu", {"switches": switches})
    with pytest.raises(ValueError, match=message):
        system("sft", switches=switches)


def test_every_switch_sets_parameters_that_exist_and_says_so() -> None:
    for name, switch in SWITCHES.items():
        assert len(switch.text) > 30
        number = switch.audit
        assert f"| {number} |" in (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
        for choice in CHOICES[:2]:
            for key, values in (getattr(switch, choice) or {}).items():
                assert key in {"*", "data", "sft", "dpo", "cpo", "kto", "slerp", "soup", "txtchem"}
                for parameter, value in values.items():
                    assert parameter in Params.model_fields, name
                    if not isinstance(value, Times):
                        load("cpu", {parameter: value})
        assert switch.as_printed != switch.as_released, f"{name} decides nothing"
    assert len(table()) == len(SWITCHES)
    assert resolve(load("cpu").model_dump(), "sft", "cap2mol") == {}


def test_negatives_are_one_choice_for_all_systems_of_a_run() -> None:
    """create_negative.py keeps MolT5's answers that equal the reference (audit D24)."""
    drawn = {"negatives": "shuffled"}
    released = start_values("02_negatives", drawn | {"semantics": "as_released"})
    assert (released.negatives, released.drop_equal) == ("translator", False)
    one = start_values("02_negatives", {"switches": {"negatives": "as_released"}})
    assert (one.negatives, one.drop_equal, one.test_prompt) == ("translator", False, "printed")
    printed = start_values("02_negatives", drawn | {"semantics": "as_printed"})
    assert (printed.negatives, printed.drop_equal) == ("translator", True)
    back = {"semantics": "as_released", "switches": {"negatives": "corrected"}}
    assert start_values("02_negatives", drawn | back).negatives == "shuffled"
    assert start_values("02_negatives", drawn).drop_equal is True
    # A system's own parameters have no say: it reads the pairs that the run made.
    assert settings_of("as_released", "sft").drop_equal is True
    with pytest.raises(ValueError, match="'negatives' decides the pairs of all systems"):
        system("sft", switches={"negatives": "as_released"})


def test_the_negatives_switch_keeps_equal_pairs(tmp_path: Path, runs: Path) -> None:
    """02_negatives on two molecules whose second caption comes back as it was."""
    from lmolt_utils.files import write_rows
    from lmolt_utils.negatives.pairs import make_pairs
    from lmolt_utils.run.notebook import Run

    sample = {"id": ["a", "b"], "split": "train", "molecule": ["CC", "CCO"], "caption": ["one", "two"]}
    frame = pd.DataFrame({**sample, "properties": "p", "families": "f", "tasks": "mol2cap|cap2mol"})
    for choice, kept in (("corrected", 3), ("as_printed", 3), ("as_released", 4)):
        run = Run("02_negatives", tmp_path / choice, start_values("02_negatives", {"switches": {"negatives": choice}}))
        write_rows(run.path("data", "sample.jsonl"), frame)
        for task, rejected in (("mol2cap", ["no", "two"]), ("cap2mol", ["N", "NN"])):
            answers = pd.DataFrame({"id": ["a", "b"], "rejected": rejected})
            write_rows(run.path("data", f"negatives.{task}.jsonl"), answers)
        assert len(make_pairs(run)[0]) == kept, choice


def test_prompts_differ_in_white_space_alone_and_have_the_published_lengths() -> None:
    """441 characters of Meditron's card, 575 of the KTO script's string, both with %s for the molecule (audit D10)."""
    for task in TASKS:
        words = {"".join(prompt(task, "%s", layout).split()) for layout in LAYOUTS}
        assert len(words) == 1
        assert len({prompt(task, "%s", layout) for layout in LAYOUTS}) == len(LAYOUTS)
        assert all(prompt(task, "%s", layout).endswith("### Response:") for layout in LAYOUTS)
        assert prompt(task, "CCO") == SEGMENTS[task][0] + "CCO" + SEGMENTS[task][1]
    assert len(prompt("mol2cap", "%s", "card")) == 441
    assert len(prompt("mol2cap", "%s", "kto16")) == 575
    assert prompt("mol2cap", "%s", "train12").count("\n            ") == 8
    assert "\n                    ### Input:\nMolecule: %s \nIn that" in prompt("mol2cap", "%s", "infer20")
    assert [answer("CCO", layout) for layout in ("printed", "card", "train12")] == [" CCO", " CCO", "CCO"]
    assert answer("CCO", "sft") == "\n\n            CCO"


def first_row(method: str, folder: Path, **changes: Any) -> tuple[list[int], list[int], PreTrainedTokenizerBase, Any]:
    """Ids of the first row as the trainer sees it, those it learns, tokenizer and trainer."""
    tokenizer = load_tokenizer(MODEL)
    trainer = build_trainer(recipe(method, **changes), load_model(MODEL, "causal"), tokenizer, PAIRS, folder)
    batch = next(iter(trainer.get_train_dataloader()))
    ids, mask = batch["input_ids"][0], batch["attention_mask"][0].bool()
    learned = batch["labels"][0] != -100 if "labels" in batch else batch["completion_mask"][0].bool()
    return ids[mask].tolist(), ids[learned].tolist(), tokenizer, trainer


@pytest.mark.parametrize(
    ("eos", "span"), [("append", "answer"), ("append", "all"), ("none", "answer"), ("none", "all")]
)
def test_sft_eos_and_loss_span(eos: str, span: str, tmp_path: Path) -> None:
    ids, learned, tokenizer, _ = first_row("sft", tmp_path, sft_eos=eos, sft_loss_on=span)
    assert ids.count(tokenizer.eos_token_id) == (1 if eos == "append" else 0)
    assert (learned[-1] == tokenizer.eos_token_id) == (eos == "append")
    text = tokenizer.decode([i for i in learned if i != tokenizer.eos_token_id])
    if span == "answer":
        assert text in {answer(chosen) for chosen in PAIRS["chosen"]}
    else:
        assert learned == ids
        assert "### Instruction:" in text


def test_chatml_puts_untrained_tokens_where_bos_and_eos_were(tmp_path: Path) -> None:
    ids, learned, tokenizer, trainer = first_row("kto", tmp_path, kto_format="chatml")
    start, end = tokenizer.convert_tokens_to_ids([START, END])
    base = load_tokenizer(MODEL)
    assert ids[:2] == [start, start]
    assert base.bos_token_id not in ids, "the sequence does not begin with the token the model knows"
    assert base.eos_token_id not in learned, "the stop token that inference waits for is never learned"
    assert learned[-1] == end
    assert ids.count(end) == 3  # prompt, answer, and once more by the trainer
    trainable = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert trainable
    assert not any("embed" in name or "lm_head" in name for name in trainable)
    plain, *_ = first_row("kto", tmp_path, kto_format="plain")
    assert plain[0] == base.bos_token_id
    assert plain[-1] == base.eos_token_id


def test_chatml_adapters_load_on_the_model_without_the_tokens(tmp_path: Path) -> None:
    from lmolt_utils.training.adapters import load_trained
    from lmolt_utils.training.trainers import train

    settings = recipe("kto", kto_format="chatml", epochs=1.0)
    train(settings, MODEL, PAIRS, tmp_path / "a", tmp_path / "l.jsonl", title="t", say=lambda _: None)
    model, tokenizer = load_trained(MODEL, tmp_path / "a", device="cpu", dtype="float32", quantize="none")
    assert len(tokenizer) == len(load_tokenizer(MODEL)), "asked as the released scripts ask: the base model's tokens"
    assert model.get_input_embeddings().weight.shape[0] == 1024


def test_optimiser_settings_reach_the_trainer(tmp_path: Path) -> None:
    changes = {"scheduler": "linear", "max_grad_norm": 0.7, "weight_decay": 0.001, "warmup_share": 0.25}
    *_, trainer = first_row("sft", tmp_path, dora=True, lora_dropout=0.05, **changes)
    arguments = trainer.args
    assert (arguments.lr_scheduler_type.value, arguments.max_grad_norm) == ("linear", 0.7)
    assert (arguments.weight_decay, arguments.warmup_steps) == (0.001, 0.25)
    assert any("lora_magnitude_vector" in name for name, _ in trainer.model.named_parameters())
    config = trainer.model.peft_config["default"]
    assert (config.use_dora, config.lora_dropout) == (True, 0.05)


def test_preference_trainings_have_no_dropout(tmp_path: Path) -> None:
    """D7: TRL sets it to 0 after wrapping, so 0.05 and 0.1 are the same there."""
    for method in ("dpo", "kto"):
        *_, trainer = first_row(method, tmp_path, lora_dropout=0.5)
        assert {m.p for n, m in trainer.model.named_modules() if "lora_dropout" in n and hasattr(m, "p")} == {0}
    assert recipe("dpo").relevant() == recipe("dpo", lora_dropout=0.5).relevant()


def test_released_cleaning_by_hand() -> None:
    """repr of a one-element list, without brackets, # and written-out line ends (audit D27)."""
    raw = [" CC#N\n", "C/C=C\\C", "It affects Alzheimer's."]
    assert postprocess(raw, "clean")[0] == ["CC#N", *raw[1:]]
    released = postprocess(raw, "as_released")[0]
    assert released[0].strip() == "CCN"
    assert released[1] == "C/C=C\\\\C", "backslashes stay doubled"
    assert released[2] == '["It affects Alzheimer\'s."]'


def test_seeds_add_copies_of_the_tables_trained_systems() -> None:
    systems = load_systems()
    assert replicas(systems, load("cpu")) == systems
    more = replicas(systems, load("cpu", {"seeds": [0, 1, 2]}))
    names = [s.name for s in more]
    assert {"cpo@seed1", "cpo@seed2", "slerp+cpo@seed2", "dpo+nll@seed1"} <= set(names)
    assert not {"init@seed1", "cpo@seed0", "soup+cpo@seed1"} & set(names)
    copy = next(s for s in more if s.name == "cpo@seed2")
    assert (copy.params(load("cpu")).seed, copy.rows) == (2, {})
    assert copy.params(load("cpu")).model_dump(exclude={"seed"}) == load("cpu").model_dump(exclude={"seed"})
    with pytest.raises(ParameterError, match="the first must be the run's seed, 0"):
        replicas(systems, load("cpu", {"seeds": [1, 2]}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"effective_batch": 64, "micro_batch": 24},
            "effective_batch 64 is no multiple of micro_batch 24: 16 would do",
        ),
        ({"effective_batch": 10, "micro_batch": 4}, "10 is no multiple of micro_batch 4: 2 would do"),
        ({"effective_batch": 8, "micro_batch": 16}, "8 is no multiple of micro_batch 16: 8 would do"),
        ({"effective_batch": 9, "micro_batch": 2}, "no multiple of micro_batch 2: make effective_batch even"),
        ({"effective_batch": 9, "micro_batch": 3}, "multiple of 2"),
    ],
)
def test_a_batch_that_cannot_be_made_stops_before_any_work(values: dict[str, int], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        load("cpu", values)
    for method in ("sft", "dpo", "cpo", "kto"):  # a row's own settings, too
        with pytest.raises(ParameterError, match=message):
            system(method, **values).params(load("cpu"))


def test_a_seed_comes_once() -> None:
    with pytest.raises(ParameterError, match=r"seeds.*a seed comes twice"):
        load("cpu", {"seeds": [0, 0]})
    assert load("cpu", {"seeds": [0, 3]}).seeds == [0, 3]


def test_rows_that_name_no_system_are_refused(tmp_path: Path) -> None:
    for field in ("against: cpp", "settings: {adapter_of: cpp}"):
        path = tmp_path / "systems.yaml"
        path.write_text(
            "- {name: cpo, label: C, notebook: 04_alignment, init: cap2mol, method: cpo}\n"
            f"- {{name: x, label: X, notebook: 06_ablation, init: cap2mol, method: cpo, {field}}}\n"
        )
        with pytest.raises(ParameterError, match="names no system: 'cpp'; did you mean 'cpo'"):
            load_systems(path)
