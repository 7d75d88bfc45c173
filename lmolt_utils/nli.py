"""Full-text NLI: the probability that a reference entails a prediction (Feedback-aligned Mixed LLMs § 3.4).

The atomic cross-NLI of Less for More builds on :func:`probabilities`: equal pairs are asked once, in batches of
like length.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from lmolt_utils.models import ModelError, labels, load_model, load_tokenizer

LABELS = ("contradiction", "entailment", "neutral")
_SELF_TEST = (
    ("The molecule is a nutrient.", "The molecule is a nutrient.", "entailment"),
    ("The molecule is a nutrient.", "The molecule is not a nutrient.", "contradiction"),
)


class Classifier:
    """An NLI model with its labels found by name, checked on an identical and a negated pair.

    Index 0 is contradiction in cross-encoder/nli-deberta-v3-base and entailment in the model of Less for More: a
    fixed index would swap them silently. Raises :class:`~lmolt_utils.models.ModelError` when the labels are unnamed,
    or when the self-test fails.
    """

    def __init__(self, reference: str, *, device: str = "cpu", dtype: str = "float32", batch_size: int = 64) -> None:
        names = labels(reference)
        self.columns = {}
        for label in LABELS:
            found = [index for index, name in names.items() if name.startswith(label[:7])]
            if len(found) != 1:
                raise ModelError(
                    f"{reference}: labels {names} name no {label!r}; an NLI model must name its three labels"
                )
            self.columns[label] = found[0]
        self.reference = reference
        self.batch_size = batch_size
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(reference)
        self.model: Any = load_model(reference, "classifier", device=device, dtype=dtype)
        self._self_test()

    def _self_test(self) -> None:
        result = self.probabilities([t[0] for t in _SELF_TEST], [t[1] for t in _SELF_TEST], progress=False)
        for (premise, hypothesis, expected), (_, row) in zip(_SELF_TEST, result.iterrows(), strict=True):
            got = str(row.astype(float).idxmax())
            if got != expected:
                raise ModelError(
                    f"{self.reference} calls {premise!r} / {hypothesis!r} {got}, not {expected}: labels swapped?"
                )

    def probabilities(
        self, premises: Sequence[str], hypotheses: Sequence[str], *, progress: bool = True
    ) -> pd.DataFrame:
        """Probabilities per pair, columns contradiction, entailment, neutral, in the order given.

        Raises ``ValueError`` when the two lists differ in length.
        """
        if len(premises) != len(hypotheses):
            raise ValueError(f"{len(premises)} premises but {len(hypotheses)} hypotheses")
        pairs = list(zip(premises, hypotheses, strict=True))
        distinct = sorted(set(pairs), key=lambda pair: (len(pair[0]) + len(pair[1]), pair))
        answers: dict[tuple[str, str], list[float]] = {}
        starts = range(0, len(distinct), self.batch_size)
        for start in tqdm(starts, desc="NLI", unit="batch", leave=False, mininterval=5, disable=not progress):
            chunk = distinct[start : start + self.batch_size]
            encoded = self.tokenizer(
                [pair[0] for pair in chunk],
                [pair[1] for pair in chunk],
                padding=True,
                truncation=True,
                max_length=self.model.config.max_position_embeddings,
                return_token_type_ids=True,
                return_tensors="pt",
            )
            inputs = {k: v.to(self.model.device) for k, v in encoded.items() if k != "token_type_ids"}
            if getattr(self.model.config, "type_vocab_size", 0) > 1:
                inputs["token_type_ids"] = encoded["token_type_ids"].to(self.model.device)
            with torch.inference_mode():
                probabilities = self.model(**inputs).logits.float().softmax(-1).cpu()
            for pair, row in zip(
                chunk, probabilities[:, [self.columns[name] for name in LABELS]].tolist(), strict=True
            ):
                answers[pair] = row
        return pd.DataFrame([answers[pair] for pair in pairs], columns=list(LABELS))
