"""Builds what profile `rehearsal` runs on: folders laid out as the hub's repositories, filled with tiny random models.

    python -m tools.rehearsal      (below runs/hub; what is there already is kept)

Names, files, tokenizers, types and shapes are as in the repositories that profile `paper` names; only sizes inside are
small. Some models know something, because the package refuses those that know nothing: the NLI classifier tells a
sentence from its negation, the chat model names one fact whatever is asked, the translators are the embedded ones.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tokenizers import AddedToken, BertWordPieceTokenizer, ByteLevelBPETokenizer, Tokenizer, processors
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
)

from lmolt_utils.data.captioner import recaptioned
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.files import atomic_folder, fingerprint, read_json, write_json, write_text
from lmolt_utils.models.loading import load_model, load_tokenizer
from lmolt_utils.nli.classifier import SELF_TEST
from lmolt_utils.nli.llm import prompt
from lmolt_utils.paths import root

#: Meditron's own tokens, behind Llama 2's.
ADDED = 17
FACT = "- The molecule is a nutrient."
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

OWN_CODE = """from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "chem_llm_stand_in"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def build(folder: Path) -> None:
    """Every repository below ``folder``, unless they are there and made by this very file."""
    stamp, made_by = folder / "made_by.json", fingerprint(Path(__file__))
    if stamp.is_file() and read_json(stamp) == made_by:
        return
    corpus = generate(250, 0)
    texts = [*corpus["molecule"], *corpus["caption"]]
    with atomic_folder(folder) as part:
        data_sets(part / "language-plus-molecules", corpus.head(120))
        meditron(part, texts)
        t5(part / "language-plus-molecules" / "molt5-large-smiles2caption-LPM24", "mol2cap")
        t5(part / "language-plus-molecules" / "molt5-large-caption2smiles-LPM24", "cap2mol")
        t5(part / "GT4SD" / "multitask-text-and-chemistry-t5-base-standard", "mol2cap")
        chem_llm(part / "AI4Chem" / "ChemLLM-7B-Chat", texts)
        chat_model(part / "meta-llama" / "Meta-Llama-3-8B-Instruct", texts)
        classifier(part / "MoritzLaurer" / "DeBERTa-v3-large-mnli-fever-anli-ling-wanli", texts)
        scibert(part / "allenai" / "scibert_scivocab_uncased", texts)
        write_json(part / "made_by.json", made_by)


def data_sets(folder: Path, corpus: pd.DataFrame) -> None:
    """L+M-24 as Parquet: molecule and caption, split for validation; and its further captions."""
    held = corpus["split"] == "train"
    parts = {"split_train": corpus[held], "split_valid": corpus[~held], "train": corpus}
    for name, captions in (("LPM-24_train", 1), ("LPM-24_train-extra", 5)):
        for split, rows in parts.items():
            frames = [rows.assign(caption=recaptioned(rows, 0, variant)) for variant in range(1, captions)]
            file = folder / name / "data" / f"{split}-00000-of-00001.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pd.concat([rows, *frames])[["molecule", "caption"]].to_parquet(file, index=False)
        write_text(folder / name / "README.md", "---\nlicense: cc-by-4.0\n---\n")


def llama_tokenizer(texts: list[str]) -> LlamaTokenizer:
    """Pieces with the space before them, and single bytes where there is no piece."""
    trained = LlamaTokenizer().train_new_from_iterator(texts, 1000, show_progress=False)
    learned = json.loads(trained.backend_tokenizer.to_str())["model"]
    vocabulary = learned["vocab"] | {f"<0x{byte:02X}>": len(learned["vocab"]) + byte for byte in range(256)}
    return LlamaTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in learned["merges"]])


def change(file: Path, **values: Any) -> None:
    """Set ``values`` in a JSON file."""
    write_json(file, read_json(file) | values)


def meditron(folder: Path, texts: list[str]) -> None:
    """A bfloat16 base with rows for added tokens; its fine-tunes in float32, without; none has a token to pad with."""
    tokenizer, wide = llama_tokenizer(texts), llama_tokenizer(texts)
    wide.add_tokens([f"<|added{number}|>" for number in range(ADDED)], special_tokens=True)
    torch.manual_seed(0)
    base = LlamaForCausalLM(llama_config(len(wide)))
    save_llama(base.bfloat16(), wide, folder / "epfl-llm" / "meditron-7b")
    for task in ("smiles2caption", "caption2smiles"):
        tuned = LlamaForCausalLM(llama_config(len(tokenizer)))
        with torch.no_grad():
            for own, other in zip(tuned.parameters(), base.parameters(), strict=True):
                moved = other[: own.shape[0]].float()
                own.copy_(moved + 0.05 * moved.std() * torch.randn_like(own))
        save_llama(tuned, tokenizer, folder / "language-plus-molecules" / f"Meditron7b-{task}-LPM24")


def llama_config(tokens: int, **changes: Any) -> LlamaConfig:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaConfig(
        **sizes | {"max_position_embeddings": 2048, "initializer_range": 0.2} | changes, vocab_size=tokens
    )


def save_llama(model: Any, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="200KB")
    tokenizer.save_pretrained(folder)
    stray = {"do_sample": True, "temperature": 0.9, "top_p": 0.6, "max_length": 4096, "_stray": "no setting at all"}
    change(folder / "generation_config.json", **stray)


def t5(folder: Path, task: str) -> None:
    """MolT5: a T5 whose table of embeddings is padded beyond its tokenizer."""
    torch.manual_seed(2)
    name = f"embedded:negatives-{task}"
    model, tokenizer = load_model(name, "translator"), load_tokenizer(name)
    model.resize_token_embeddings(len(tokenizer) + 28, mean_resizing=False)
    model.save_pretrained(folder, max_shard_size="200KB")
    tokenizer.save_pretrained(folder)


def chat_model(folder: Path, texts: list[str]) -> None:
    """Llama 3's tokens and chat template; the model names one fact whatever it is asked."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([*texts, FACT], vocab_size=1000, show_progress=False)
    inner = Tokenizer.from_str(trained.to_str())
    names = ("begin_of_text", "end_of_text", "reserved_special_token_0", "start_header_id", "end_header_id", "eot_id")
    inner.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in names])
    bos, end, eot = (inner.token_to_id(f"<|{name}|>") for name in ("begin_of_text", "end_of_text", "eot_id"))
    inner.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", chat_template=CHAT_TEMPLATE
    )
    torch.manual_seed(3)
    sizes = {"num_hidden_layers": 1, "initializer_range": 0.02, "bos_token_id": bos, "eos_token_id": [end, eot]}
    model = LlamaForCausalLM(llama_config(len(tokenizer), num_key_value_heads=2, **sizes))
    asked = [tokenizer(prompt(text)[-60:]).input_ids for text in texts[-4:]]
    answer = [*tokenizer(FACT, add_special_tokens=False).input_ids, eot]
    learn(model, [{"input_ids": ids + answer, "labels": [-100] * len(ids) + answer} for ids in asked])
    save_llama(model.bfloat16(), tokenizer, folder)


def chem_llm(folder: Path, texts: list[str]) -> None:
    """A model that comes with code of its own, as InternLM2 does: here it names a Llama."""
    tokenizer = llama_tokenizer(texts)
    save_llama(LlamaForCausalLM(llama_config(len(tokenizer))), tokenizer, folder)
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    change(folder / "config.json", model_type="chem_llm_stand_in", auto_map=classes)
    write_text(folder / "own.py", OWN_CODE)


def classifier(folder: Path, texts: list[str]) -> None:
    """A DeBERTa-v2 that passes the package's own test of an NLI model; its first label is entailment."""
    torch.manual_seed(4)
    order = ("entailment", "neutral", "contradiction")
    known = [*texts, *(text for row in SELF_TEST for text in row[:2])]
    tokenizer = DebertaV2Tokenizer().train_new_from_iterator(known, 1000, show_progress=False)
    tokenizer.model_max_length = 512
    config = DebertaV2Config(
        vocab_size=len(tokenizer), type_vocab_size=0, max_position_embeddings=512,
        hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_biased_input=False, max_relative_positions=-1,
        id2label=dict(enumerate(order)), label2id={name: index for index, name in enumerate(order)},
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = DebertaV2ForSequenceClassification(config)
    learn(model, [{"input_ids": tokenizer(a, b).input_ids, "labels": order.index(name)} for a, b, name in SELF_TEST])
    model.save_pretrained(folder, max_shard_size="200KB")
    tokenizer.save_pretrained(folder)


def learn(model: Any, rows: list[dict[str, Any]]) -> None:
    """A hundred steps over a few rows, by heart."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(100):
        for row in rows:
            model(**{name: torch.tensor([value]) for name, value in row.items()}).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def scibert(folder: Path, texts: list[str]) -> None:
    """The vocabulary of lower-cased word pieces that captions are scored with."""
    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=1000, show_progress=False)
    folder.mkdir(parents=True)
    tokenizer.save_model(str(folder))


if __name__ == "__main__":
    build(root() / "runs" / "hub")
