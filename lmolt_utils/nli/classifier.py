"""NLI classifiers: labels found by name and tested, pairs asked once, batched by tokens.

Full-text NLI (Feedback-aligned Mixed LLMs § 3.4), the atomic cross-NLI of Less for More and its rivals all ask here.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from lmolt_utils.files import fingerprint
from lmolt_utils.models.loading import ModelError, labels, load_model, load_tokenizer, model_identity, split_hub_id

#: Columns of every probability, in this order whatever the model's own is.
LABELS = ("contradiction", "entailment", "neutral")
CONTRADICTION, ENTAILMENT, NEUTRAL = range(3)

#: Premise and hypothesis: what the hypothesis is judged by, and what is judged.
Pair = tuple[str, str]

#: Two pairs that any NLI model gets right: what is asked of one before it is used.
SELF_TEST = (
    ("The molecule is a nutrient.", "The molecule is a nutrient.", "entailment"),
    ("The molecule is a nutrient.", "The molecule is not a nutrient.", "contradiction"),
)


class Classifier:
    """An NLI model with its labels found by name, checked on an identical and a negated pair.

    Index 0 is contradiction in cross-encoder/nli-deberta-v3-base and entailment in the model of Less for More: a
    fixed index would swap them silently. ``batch_tokens``: premise and hypothesis tokens per forward pass, padding
    included. ``truncated``: distinct pairs so far that were longer than the model reads and were cut (the longer text
    first). Raises :class:`~lmolt_utils.models.loading.ModelError` when the labels are unnamed or not these three, or
    when the self-test fails.
    """

    def __init__(
        self, reference: str, *, device: str = "cpu", dtype: str = "float32", batch_tokens: int = 4096
    ) -> None:
        self.columns = _columns(reference, labels(reference))
        self.reference = reference
        self.dtype = dtype
        self.batch_tokens = batch_tokens
        self.truncated = 0
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(reference)
        self.model: Any = load_model(reference, "classifier", device=device, dtype=dtype)
        positions = int(self.model.config.max_position_embeddings)
        if self.model.config.model_type in ("roberta", "xlm-roberta", "camembert"):
            positions -= int(self.model.config.pad_token_id) + 1  # their positions start after the pad token's
        self.max_length = min(positions, int(self.tokenizer.model_max_length))
        self._self_test()

    def _self_test(self) -> None:
        result = self.forward([(premise, hypothesis) for premise, hypothesis, _ in SELF_TEST])
        for (premise, hypothesis, expected), row in zip(SELF_TEST, result, strict=True):
            got = LABELS[int(row.argmax())]
            if got != expected:
                raise ModelError(
                    f"{self.reference} calls {premise!r} / {hypothesis!r} {got}, not {expected}: labels swapped?"
                )

    @property
    def identity(self) -> dict[str, str]:
        """What an answer depends on besides the texts: model, revision, precision, longest input.

        The revision is a hub commit, or the hash of a local folder; the precision names the kind of device too,
        because a GPU rounds otherwise.
        """
        found = model_identity(self.reference)
        revision = (split_hub_id(found)[1] or "unknown") if isinstance(found, str) else fingerprint(found)
        return {
            "model": self.reference,
            "revision": revision,
            "precision": f"{self.dtype} {torch.device(self.model.device).type}",
            "max_length": str(self.max_length),
        }

    def lengths(self, pairs: Sequence[Pair]) -> list[int]:
        """Tokens of each pair, special tokens included, before anything is cut; every text is tokenised once."""
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        special = self.tokenizer.num_special_tokens_to_add(pair=True)
        count: dict[str, int] = {}
        for start in range(0, len(texts), 1024):
            some = texts[start : start + 1024]
            encoded = self.tokenizer(some, add_special_tokens=False, return_attention_mask=False, verbose=False)
            count |= {text: len(ids) for text, ids in zip(some, encoded["input_ids"], strict=True)}
        return [count[premise] + count[hypothesis] + special for premise, hypothesis in pairs]

    def batches(self, pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
        """The distinct pairs by length, cut into batches of at most ``batch_tokens`` with their padding.

        The same pairs give the same batches in whatever order they come.
        """
        distinct = list(dict.fromkeys(pairs))
        if not distinct:
            return
        lengths = self.lengths(distinct)
        self.truncated += sum(length > self.max_length for length in lengths)
        ordered = sorted(zip(lengths, distinct, strict=True))
        starts = [0]
        for index, (length, _) in enumerate(ordered):
            # Sorted: this pair would be the longest of its batch, so all others are padded to it.
            if index > starts[-1] and (index + 1 - starts[-1]) * min(length, self.max_length) > self.batch_tokens:
                starts.append(index)
        for start, end in pairwise([*starts, len(ordered)]):
            yield [pair for _, pair in ordered[start:end]]

    def forward(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Probabilities of one forward pass, float64 of shape (n, 3), columns :data:`LABELS`.

        The numbers of a pair depend on the shape of its batch in the last digits (1e-6 in float32): nothing else of
        the batch is mixed into it.
        """
        encoded = self.tokenizer(
            [pair[0] for pair in pairs],
            [pair[1] for pair in pairs],
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_token_type_ids=True,
            return_tensors="pt",
        )
        inputs = {k: v.to(self.model.device) for k, v in encoded.items() if k != "token_type_ids"}
        if getattr(self.model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = encoded["token_type_ids"].to(self.model.device)
        with torch.inference_mode():
            probabilities = self.model(**inputs).logits.float().softmax(-1).cpu()
        return probabilities[:, [self.columns[name] for name in LABELS]].double().numpy()

    def probabilities(
        self, premises: Sequence[str], hypotheses: Sequence[str], *, progress: bool = True
    ) -> pd.DataFrame:
        """Probabilities per pair, columns contradiction, entailment, neutral, in the order given.

        Raises ``ValueError`` when the two lists differ in length.
        """
        if len(premises) != len(hypotheses):
            raise ValueError(f"{len(premises)} premises but {len(hypotheses)} hypotheses")
        pairs = list(zip(premises, hypotheses, strict=True))
        answers: dict[Pair, np.ndarray] = {}
        batches = list(self.batches(pairs))
        for batch in tqdm(batches, desc="NLI", unit="batch", leave=False, mininterval=5, disable=not progress):
            answers |= zip(batch, self.forward(batch), strict=True)
        return pd.DataFrame([answers[pair] for pair in pairs], columns=list(LABELS))


def _columns(reference: str, names: dict[int, str]) -> dict[str, int]:
    """Which column of the model each of :data:`LABELS` is; raises :class:`ModelError` where its names do not say."""
    shown = ", ".join(f"{index}: {name}" for index, name in sorted(names.items()))
    if len(names) != len(LABELS):
        raise ModelError(
            f"{reference} has {len(names)} labels ({shown}); contradiction, entailment and neutral are needed: "
            "a model of entailment against the rest cannot measure hallucination"
        )
    columns = {}
    for label in LABELS:
        found = [index for index, name in names.items() if name.startswith(label[:7])]
        if len(found) != 1:
            raise ModelError(
                f"{reference}: the labels ({shown}) name no {label!r}; an NLI model must name its three labels "
                "(id2label in its config.json)"
            )
        columns[label] = found[0]
    return columns
