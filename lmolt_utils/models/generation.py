"""One generator for every model: greedy, batched by length, for decoder-only and encoder-decoder models.

The released code decodes greedily too (temperature 1e-10), one prompt at a time; batches give the same outputs many
times faster. In bfloat16 the batch size may decide between two nearly equally likely tokens.

A static batch waits for its longest answer. :func:`continuous` is Transformers' continuous batching, for decoders: the
next prompt takes the place of an answer that is done.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedTokenizerBase

from lmolt_utils.models.loading import ModelError

#: A batch holds no more tokens than ``batch_size`` prompts of this length: fewer prompts where they are longer.
PROMPT_TOKENS = 256


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    title: str = "generating",
) -> list[str]:
    """Greedy continuations of ``prompts``, in their order, cut at EOS; special tokens removed, spaces kept."""
    outputs = [""] * len(prompts)
    with tqdm(total=len(prompts), desc=title, unit="row", leave=False, mininterval=5) as bar:
        for rows in stream(model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size):
            for index, text in rows:
                outputs[index] = text
            bar.update(len(rows))
    return outputs


def stream(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, max_new_tokens: int, batch_size: int
) -> Iterator[list[tuple[int, str]]]:
    """The continuations of :func:`generate` as they are made: each batch as (position in ``prompts``, text).

    The longest prompts come first, so that a batch that does not fit into memory fails at once.
    """
    was_training = model.training
    model.eval()
    try:
        lengths = [len(tokenizer(text).input_ids) for text in prompts]  # one by one: all at once would fill the memory
        for chunk in batches(lengths, batch_size, batch_size * PROMPT_TOKENS):
            texts = [prompts[index] for index in chunk]
            # A decoder goes on from the last token. An encoder may count positions from the first (BART; T5 does not).
            side = "right" if model.config.is_encoder_decoder else "left"
            batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side=side).to(model.device)
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
            yield list(zip(chunk, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True))
    finally:
        model.train(was_training)


def continuous(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, max_new_tokens: int, batch_size: int
) -> Iterator[list[tuple[int, str]]]:
    """The continuations of :func:`generate`, each as soon as it is done; ``ModelError`` where the engine gives up."""
    ids = [tokenizer(text).input_ids for text in prompts]
    pages = -(-(max(map(len, ids)) + max_new_tokens) // PROMPT_TOKENS)
    greedy = GenerationConfig(do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    # Left alone, it takes nine tenths of the memory, on a CPU too.
    room = ContinuousBatchingConfig(
        page_size=PROMPT_TOKENS, num_blocks=batch_size * pages, max_requests_per_batch=batch_size
    )
    with model.eval().continuous_batching_context_manager(greedy, continuous_batching_config=room) as engine:
        places = {engine.add_request(row, max_new_tokens=max_new_tokens): place for place, row in enumerate(ids)}
        while places:
            done = engine.get_result(timeout=1)
            if done is None and engine.is_running():
                continue
            if done is None or done.error is not None:
                raise ModelError(f"continuous batching stopped: {getattr(done, 'error', None)}")
            if done.is_finished():
                text = str(tokenizer.decode(done.generated_tokens, skip_special_tokens=True))
                yield [(places.pop(done.request_id), text)]


def batches(lengths: Sequence[int], rows: int, tokens: int) -> list[list[int]]:
    """Positions in ``lengths``, longest first, in batches of at most ``rows`` rows.

    A batch padded to its longest row has at most ``tokens`` tokens, unless it is a single row.
    """
    found: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not room:
            found.append([])
            room = max(1, min(rows, tokens // max(1, lengths[index])))
        found[-1].append(index)
        room -= 1
    return found
