"""NLI classifiers: labels found by name and tested, each pair asked once, batched by tokens.

Captions of one corpus share most of their atomic facts: the pairs of thousands of captions are few distinct ones.
Full-text NLI (Feedback-aligned Mixed LLMs § 3.4), atomic cross-NLI (Less for More) and its baselines all ask here.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from lmolt_utils.files import fingerprint
from lmolt_utils.models.loading import ModelError, labels, load_model, load_tokenizer, model_identity, split_hub_id

#: Columns of all probabilities, in this order whatever the model's own is.
LABELS = ("contradiction", "entailment", "neutral")
CONTRADICTION, ENTAILMENT = range(2)

#: Premise and hypothesis: what the hypothesis is judged by, and what is judged.
Pair = tuple[str, str]
#: Probabilities, in the order of :data:`LABELS`.
Answer = tuple[float, float, float]

#: Two pairs that any NLI model gets right: it is asked about them before it is used.
SELF_TEST = (
    ("The molecule is a nutrient.", "The molecule is a nutrient.", "entailment"),
    ("The molecule is a nutrient.", "The molecule is not a nutrient.", "contradiction"),
)


class Classifier:
    """An NLI model with its labels found by name, checked on an identical and a negated pair.

    Index 0 is contradiction in cross-encoder/nli-deberta-v3-base and entailment in the model of Less for More.
    ``batch_tokens``: premise and hypothesis tokens per forward pass, padding included. ``truncated``: how many distinct
    pairs were longer than the model reads. ``as_released``: read as cross-nli 0.1.0 does (audit D31): index 0 is
    contradiction and 1 entailment whatever their names, the model is told no segments, and nothing is checked.
    """

    def __init__(
        self,
        reference: str,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch_tokens: int = 4096,
        as_released: bool = False,
    ) -> None:
        names = dict(enumerate(LABELS)) if as_released else labels(reference)
        self.columns = _columns(reference, names)
        self.as_released = as_released
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
        if as_released:
            return
        for premise, hypothesis, expected in SELF_TEST:
            if (got := LABELS[int(self.forward([(premise, hypothesis)]).argmax())]) != expected:
                raise ModelError(
                    f"{reference} calls {premise!r} / {hypothesis!r} {got}, not {expected}: labels swapped?"
                )

    @property
    def identity(self) -> dict[str, str]:
        """What an answer depends on besides the texts. A GPU rounds otherwise: the precision names the device too."""
        found = model_identity(self.reference)
        revision = (split_hub_id(found)[1] or "unknown") if isinstance(found, str) else fingerprint(found)
        return {
            "model": self.reference,
            "revision": revision,
            "precision": f"{self.dtype} {torch.device(self.model.device).type}",
            "max_length": str(self.max_length),
            **({"labels": "as released"} if self.as_released else {}),
        }

    def lengths(self, pairs: Iterable[Pair]) -> dict[Pair, int]:
        """Tokens of the distinct pairs, special ones included; counts in ``truncated`` those that will be cut."""
        distinct = list(dict.fromkeys(pairs))
        texts = list(dict.fromkeys(text for pair in distinct for text in pair))
        options: dict[str, Any] = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        ids = self.tokenizer(texts, **options)["input_ids"] if texts else []
        tokens = {text: len(of) for text, of in zip(texts, ids, strict=True)}
        special = self.tokenizer.num_special_tokens_to_add(pair=True)
        found = {pair: tokens[pair[0]] + tokens[pair[1]] + special for pair in distinct}
        self.truncated += sum(length > self.max_length for length in found.values())
        return found

    def batches(self, pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
        """The distinct pairs in batches of at most ``batch_tokens`` with padding; their order makes no difference."""
        batch: list[Pair] = []
        for length, pair in sorted((length, pair) for pair, length in self.lengths(pairs).items()):
            # Sorted: this pair would be the longest of the batch, so all others are padded to it.
            if batch and (len(batch) + 1) * min(length, self.max_length) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(pair)
        if batch:
            yield batch

    def forward(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Probabilities of one forward pass, float64 of shape (n, 3), columns :data:`LABELS`.

        The numbers of a pair depend on the shape of its batch in the last digits (1e-6 in float32).
        """
        encoded = self.tokenizer(
            [premise for premise, _ in pairs],
            [hypothesis for _, hypothesis in pairs],
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_token_type_ids=True,
            return_tensors="pt",
        ).to(self.model.device)
        if self.as_released or getattr(self.model.config, "type_vocab_size", 0) <= 1:
            encoded.pop("token_type_ids")
        with torch.inference_mode():
            probabilities = self.model(**encoded).logits.float().softmax(-1).cpu()
        return probabilities[:, [self.columns[name] for name in LABELS]].double().numpy()

    def probabilities(
        self, premises: Sequence[str], hypotheses: Sequence[str], *, progress: bool = True
    ) -> pd.DataFrame:
        """Probabilities per pair, columns :data:`LABELS`, in the order given."""
        pairs = list(zip(premises, hypotheses, strict=True))
        answers = PairScorer(self)(pairs, progress=progress)
        return pd.DataFrame([answers[pair] for pair in pairs], columns=list(LABELS))


def _columns(reference: str, names: dict[int, str]) -> dict[str, int]:
    """Which column of the model each of :data:`LABELS` is; raises :class:`ModelError` where its names do not say."""
    columns = {label: index for label in LABELS for index, name in names.items() if name.startswith(label[:7])}
    if not len(names) == len(columns) == len(LABELS):
        shown = ", ".join(f"{index}: {name}" for index, name in sorted(names.items()))
        raise ModelError(
            f"{reference} has the labels {shown}: an NLI model must name its three labels contradiction, entailment "
            "and neutral (id2label in its config.json)"
        )
    return columns


class PairScorer:
    """Asks a model about pairs, each distinct one once, and none whose answer is in the file ``cache``.

    A kill loses the batch that is being asked.
    """

    def __init__(self, model: Classifier, cache: Path | None = None) -> None:
        self.model = model
        self._cache = cache
        self._identity = hashlib.sha256(json.dumps(model.identity, sort_keys=True).encode()).hexdigest()[:16]
        self._kept = {} if cache is None or not cache.exists() else self._read(cache)
        self._answers: dict[Pair, Answer] = {}

    def __call__(self, pairs: Iterable[Pair], *, progress: bool = True) -> Mapping[Pair, Answer]:
        """The answers to ``pairs`` (and to all pairs asked before)."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._answers]
        known = {pair: self._kept[pair] for pair in new if pair in self._kept}
        self._answers |= known
        self.model.lengths(known)  # those answered from the cache were cut as well
        batches = list(self.model.batches(pair for pair in new if pair not in known))
        quiet = not progress or len(batches) <= 16  # soon done: no bar
        for batch in tqdm(batches, desc="NLI", unit="batch", leave=False, mininterval=5, disable=quiet):
            fresh = dict(zip(batch, map(tuple, self.model.forward(batch).tolist()), strict=True))
            self._add(fresh)
            self._answers |= fresh
        return self._answers

    def _read(self, cache: Path) -> dict[Pair, Answer]:
        answers: dict[Pair, Answer] = {}
        with open(cache, encoding="utf-8", errors="replace") as handle:
            for line in handle:
                with suppress(ValueError, LookupError, TypeError):  # damaged, as by a kill: the pair is asked again
                    entry = json.loads(line)
                    pair, answer = tuple(entry["pair"]), tuple(entry["answer"])
                    if entry["nli"] == self._identity and entry.get("crc") in (None, _crc(pair, answer)):
                        answers[pair] = answer
        return answers

    def _add(self, answers: Mapping[Pair, Answer]) -> None:
        if self._cache is None:
            return
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        with open(self._cache, "a", encoding="utf-8") as handle:
            for pair, answer in answers.items():
                entry = {"nli": self._identity, "pair": pair, "answer": answer, "crc": _crc(pair, answer)}
                handle.write(json.dumps(entry) + "\n")


def _crc(pair: Pair, answer: Answer) -> int:
    """Tells a line of the cache in which the disk turned a digit."""
    return zlib.crc32(json.dumps([pair, answer]).encode())
