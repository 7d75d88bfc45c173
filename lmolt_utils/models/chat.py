"""ChatML as the released KTO script set it up (audit D17): two tokens that the model has never seen.

They become BOS and EOS; their embeddings are random and stay so, because LoRA trains none. Prompt and answer are
wrapped separately, and the trainer adds BOS and EOS once more. At test time the released scripts use plain prompts and
the base model's EOS, which this training never shows.
"""

from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

START, END = "<|im_start|>", "<|im_end|>"


def chat_tokens(model: Any, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
    """Add the two tokens to both, in place; their rows of embedding and output layer are drawn with ``seed``."""
    tokenizer.add_special_tokens({"additional_special_tokens": [START, END]})
    tokenizer.bos_token, tokenizer.eos_token = START, END
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.convert_tokens_to_ids(START))]
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.resize_token_embeddings(
            max(len(tokenizer), model.get_input_embeddings().weight.shape[0]), mean_resizing=False
        )


def chat_prompt(text: str) -> str:
    return f"{START}user\n{text}{END}\n"


def chat_answer(text: str) -> str:
    return f"{START}assistant\n{text}{END}\n"
