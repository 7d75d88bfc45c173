"""One generator for every model: greedy, batched by length, for decoder-only and encoder-decoder models.

The released code decodes greedily too (temperature 1e-10), one prompt at a time; batching rows of like length
gives the same outputs many times faster.
"""

from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    title: str = "generating",
) -> list[str]:
    """Greedy continuations of ``prompts``, in their order, cut at EOS; special tokens removed, spaces kept.

    ``model`` is a Transformers model (or a PEFT one). An encoder-decoder model takes the texts as its input.
    """
    lengths = [len(ids) for ids in tokenizer(list(prompts)).input_ids]
    order = sorted(range(len(prompts)), key=lambda index: (lengths[index], index))
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    outputs = [""] * len(prompts)
    was_training = model.training
    model.eval()
    try:
        for start in tqdm(range(0, len(order), batch_size), desc=title, unit="batch", leave=False, mininterval=5):
            chunk = order[start : start + batch_size]
            batch = tokenizer([prompts[index] for index in chunk], return_tensors="pt", padding=True).to(model.device)
            with torch.inference_mode():
                ids = model.generate(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                )
            new = ids if model.config.is_encoder_decoder else ids[:, batch["input_ids"].shape[1] :]
            for index, text in zip(chunk, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                outputs[index] = text
    finally:
        tokenizer.padding_side = side
        model.train(was_training)
    return outputs
