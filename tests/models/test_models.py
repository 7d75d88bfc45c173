"""The shipped models, loading and generation, with the real libraries."""

import json
import shutil
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BartConfig, BartForConditionalGeneration, DebertaV2Config, DebertaV2ForSequenceClassification

from lmolt_utils.config.prompts import SEGMENTS, answer, prompt
from lmolt_utils.data.sample import held_out
from lmolt_utils.embedded.corpus import generate as generate_corpus
from lmolt_utils.files import read_json
from lmolt_utils.merging.checks import check_parents
from lmolt_utils.models.generation import continuous, generate
from lmolt_utils.models.loading import (
    EMBEDDED_FOLDER,
    ModelError,
    labels,
    load_model,
    load_tokenizer,
    locate,
    model_identity,
)
from lmolt_utils.nli.classifier import Classifier
from tools.embedded_models.build import HASHES, ROWS, SEED, TEST_ROWS, ask, hashes


def test_shipped_models_are_the_ones_that_were_made() -> None:
    assert hashes(EMBEDDED_FOLDER) == read_json(EMBEDDED_FOLDER / HASHES)
    total = sum(path.stat().st_size for path in EMBEDDED_FOLDER.rglob("*") if path.is_file())
    assert total <= 12e6


def _card(name: str) -> dict[str, float]:
    lines = (EMBEDDED_FOLDER / name / "README.md").read_text().splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    return {left.strip(): float(right) for left, right in cells if left.strip() != "measure"}


def test_model_cards_state_the_premise_of_the_paper() -> None:
    mol2cap, cap2mol = _card("mol2cap"), _card("cap2mol")
    assert mol2cap["property_f1"] >= 0.85 > 0.05 >= cap2mol["property_f1"]
    assert cap2mol["validity"] >= 0.95
    assert cap2mol["maccs"] >= 0.7 > 0.05 >= mol2cap["maccs"]
    assert 0.3 <= _card("negatives-mol2cap")["property_f1"] <= 0.7
    assert 0.5 <= _card("negatives-cap2mol")["validity"] <= 0.9


def test_the_cards_quality_is_measured_not_typed() -> None:
    tested = held_out(generate_corpus(ROWS, SEED), "test", TEST_ROWS, SEED)
    found, stated = ask(EMBEDDED_FOLDER / "cap2mol", tested, ("cap2mol",)), _card("cap2mol")
    for measure in ("validity", "maccs"):
        assert found[measure] == pytest.approx(stated[measure], abs=0.01)


def test_the_instruction_costs_a_handful_of_tokens() -> None:
    tokenizer = load_tokenizer("embedded:cap2mol")
    for task, segments in SEGMENTS.items():
        ids = tokenizer(prompt(task, "CCO")).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert len(ids) <= 7
        assert tokenizer.decode(ids, skip_special_tokens=True) == segments[0] + "CCO" + segments[1]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    # The answer's first token begins with the space, so tokenising prompt and answer together or apart agrees.
    text = prompt("mol2cap", "CCO")
    apart = tokenizer(text).input_ids + tokenizer(answer("The molecule"), add_special_tokens=False).input_ids
    assert tokenizer(text + answer("The molecule")).input_ids == apart


def test_missing_and_damaged_models_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name, told in (("embedded:nope", "no embedded model 'embedded:nope'"), (str(folder), "does not exist")):
        with pytest.raises(ModelError, match=told):
            locate(name)
    shutil.copytree(EMBEDDED_FOLDER / "base", folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged"):
        load_model(str(folder), "causal")
    file.unlink()
    with pytest.raises(ModelError, match="no safetensors weights"):
        load_model(str(folder), "causal")
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        locate(str(folder))


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A DeBERTa-v2, as NLI models are: tiny, in shards."""
    config = DebertaV2Config(
        vocab_size=128, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_labels=3,
        relative_attention=True, pos_att_type=["p2c", "c2p"], id2label={0: "Entailment", 1: "neutral", 2: "no"},
    )  # fmt: skip
    folder = str(tmp_path_factory.mktemp("deberta"))
    DebertaV2ForSequenceClassification(config).save_pretrained(folder, max_shard_size="50KB")
    return folder


@pytest.mark.parametrize("avx512_bf16", [False, True])
def test_four_bits_mean_the_same_on_every_processor(
    deberta: str, monkeypatch: pytest.MonkeyPatch, avx512_bf16: bool
) -> None:
    """bitsandbytes repacks layers on processors with AVX512-BF16: a head of three fails, and gradients are lost."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: avx512_bf16)
    model = load_model(deberta, "classifier", quantize="nf4", dtype="bfloat16")
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
    inputs = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=inputs).logits
    logits[0, 0].backward()
    assert torch.equal(before, logits.detach())
    assert inputs.grad is not None
    assert inputs.grad.abs().sum() > 0
    assert labels(deberta)[0] == "entailment", "in lower case"


def test_a_relative_folder_means_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """papermill starts notebooks in the repository's root, JupyterLab in notebooks/."""
    (tmp_path / "params").mkdir()
    shutil.copytree(EMBEDDED_FOLDER / "base", tmp_path / "own" / "model")
    monkeypatch.setenv("LMOLT_ROOT", str(tmp_path))
    for place in (tmp_path, tmp_path / "params"):
        monkeypatch.chdir(place)
        assert locate("own/model") == str(tmp_path / "own" / "model")
    monkeypatch.chdir(tmp_path / "own")
    with pytest.raises(ModelError, match="from the repository's root"):
        locate("model")


def test_a_hub_model_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, by that of the cache; a revision goes with the name."""
    cache = tmp_path / "models--org--tiny"
    commits = {"main": "a" * 40, "v1": "b" * 40}
    for revision, commit in commits.items():
        shutil.copytree(EMBEDDED_FOLDER / "base", cache / "snapshots" / commit)
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / revision).write_text(commit)
    config = cache / "snapshots" / commits["v1"] / "config.json"
    config.write_text(config.read_text().replace('"eos_token_id"', '"marked": 1, "eos_token_id"'))
    for module in ("huggingface_hub.constants", "huggingface_hub.file_download.constants"):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert model_identity("org/tiny") == f"org/tiny@{'a' * 40}"
    assert model_identity("org/tiny@v1") == f"org/tiny@{'b' * 40}"
    assert model_identity(f"org/tiny@{'c' * 40}") == f"org/tiny@{'c' * 40}"
    assert hasattr(load_model("org/tiny@v1", "causal").config, "marked")
    assert not hasattr(load_model("org/tiny", "causal").config, "marked")
    assert load_tokenizer("org/tiny@v1").eos_token


def test_a_models_own_code_is_never_run_nor_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers' own default is to ask on the terminal."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    folder, ran = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(EMBEDDED_FOLDER / "base", folder)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "unheard_of"}
    config["auto_map"] = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    parents = {"cap2mol": str(folder), "mol2cap": "embedded:mol2cap"}
    load_tokenizer(str(folder))  # what it needs is there
    for use in (
        *(lambda: load_model(str(folder), "causal"), lambda: labels(str(folder))),
        *(lambda: Classifier(str(folder)), lambda: check_parents(parents)),
    ):
        with suppress(ModelError):
            use()
    assert not ran.exists()


def test_batched_generation_equals_one_at_a_time(tmp_path: Path) -> None:
    """For a decoder, whose batches are padded on the left, and an encoder with absolute positions (a random BART)."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer("embedded:negatives-mol2cap")
    size = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 128}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "eos")}
    config = BartConfig(vocab_size=len(tokenizer), init_std=1.0, **size, **heads, **ids, decoder_start_token_id=0)
    config.forced_eos_token_id = None
    BartForConditionalGeneration(config).save_pretrained(tmp_path)
    texts = ["C" * length + "O" for length in range(1, 50, 3)]
    prompts = [prompt("mol2cap", text) for text in ("CCO", "CCCCCCCC(=O)OCC", "O=C1NC(=O)C(Cc2ccccc2)S1")]
    for model, reader, asked in (
        (load_model(str(tmp_path), "translator"), tokenizer, texts),
        (load_model("embedded:mol2cap", "causal"), load_tokenizer("embedded:mol2cap"), prompts),
    ):
        together = generate(model, reader, asked, max_new_tokens=24, batch_size=len(asked))
        alone = [generate(model, reader, [text], max_new_tokens=24, batch_size=1)[0] for text in asked]
        assert together == alone
        assert len(set(together)) >= 3
    assert all(text.startswith(" The molecule") for text in together)
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    wanted = generate(adapted, reader, asked, max_new_tokens=24, batch_size=1)
    assert wanted != together
    found = dict(chain.from_iterable(continuous(adapted, reader, asked, max_new_tokens=24, batch_size=2)))
    assert [found[place] for place in range(len(asked))] == wanted, "and so does continuous batching"
    assert generate(adapted, reader, asked, max_new_tokens=24, batch_size=3) == wanted, "also after it"
