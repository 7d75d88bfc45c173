"""Caption metrics as the L+M-24 evaluation defines them: BLEU-2/4, ROUGE-1/2/L and METEOR.

BLEU and METEOR compare lists of word pieces, officially SciBERT's (uncased). Where its vocabulary is not at hand a rule
replaces it, and because the two give different numbers for the same captions (MolT5-Large on ChEBI-20: BLEU-2 .588 and
.592), the name of the one used travels with every score; likewise METEOR with and without WordNet (.001 lower).
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer

from lmolt_utils.errors import DataError
from lmolt_utils.metrics.intervals import Scored
from lmolt_utils.metrics.ngrams import BLEU_ORDERS, bleu_statistics
from lmolt_utils.paths import from_root
from lmolt_utils.run.hub import snapshot

SCIBERT = "allenai/scibert_scivocab_uncased"
CUT = 512  # word pieces that count, per caption (the official script's truncation)
CAPTION_METRICS = ("BLEU-2", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR")

_VOCABULARY = "vocab.txt"
_SPECIAL = frozenset({"[PAD]", "[CLS]", "[SEP]"})
# Known by content (less the last newline): one vocabulary has one name on every machine.
_SCIBERT_SHA256 = "cf28af60d3f93fbd0503d74b4fba2ea5adf4e9ba5d272bebd2a9dad1e38d2da4"


# ---- tokenizers ----


@dataclass(frozen=True)
class CaptionTokenizer:
    """Splits captions into the pieces that BLEU and METEOR count; scores compare only under the same name.

    split: n texts to n lists of pieces, uncut, special tokens still in.
    """

    name: str
    split: Callable[[Sequence[str]], list[list[str]]]


def caption_tokenizer(name_or_folder: str = "auto") -> CaptionTokenizer:
    """The tokenizer of BLEU and METEOR. Never asks the network.

    - "auto": SciBERT if it is in the local hub cache, else "regex";
    - "regex": the offline rule, lower-cased runs of word characters and single other characters;
    - lower-cased BERT word pieces by a `vocab.txt`: the file, its folder, or a hub id that is in the local cache.

    Raises DataError where there is no such file, ValueError where it is no vocabulary.
    """
    if name_or_folder == "auto":
        return caption_tokenizer(SCIBERT if snapshot(SCIBERT, "vocabulary") else "regex")
    if name_or_folder == "regex":
        return CaptionTokenizer("regex", lambda texts: [re.findall(r"\w+|[^\w\s]", text.lower()) for text in texts])
    path = Path(from_root(name_or_folder)).expanduser()
    if path.is_dir():
        path /= _VOCABULARY
    if path.is_file():
        return _from_file(path, path.resolve().parent.name)
    if cached := snapshot(name_or_folder, "vocabulary"):
        return _from_file(cached / _VOCABULARY, name_or_folder)
    raise DataError(
        f"caption tokenizer {name_or_folder!r}: no {_VOCABULARY} there, nor in the local hub cache: run `hf download "
        f"{SCIBERT} {_VOCABULARY}`, or choose 'auto' or 'regex'"
    )


def _from_file(file: Path, label: str) -> CaptionTokenizer:
    from tokenizers.implementations import BertWordPieceTokenizer

    content = file.read_bytes().rstrip(b"\n")
    digest = hashlib.sha256(content).hexdigest()
    vocabulary = content.decode("utf-8", "replace").split("\n")
    if missing := [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]:
        raise ValueError(f"{file} is no BERT {_VOCABULARY}: it lacks {', '.join(missing)}")
    tokenizer = BertWordPieceTokenizer({token: i for i, token in enumerate(vocabulary)}, lowercase=True)

    def split(texts: Sequence[str]) -> list[list[str]]:
        # A lone surrogate (from broken JSON, say) has no UTF-8 form.
        whole = [text.encode("utf-8", "replace").decode() for text in texts]
        return [e.tokens for e in tokenizer.encode_batch(whole, add_special_tokens=False)]

    return CaptionTokenizer(SCIBERT if digest == _SCIBERT_SHA256 else f"{label}@{digest[:8]}", split)


def _without_special(pieces: list[str]) -> list[str]:
    return [piece for piece in pieces if piece not in _SPECIAL]


# ---- METEOR ----


@dataclass(frozen=True)
class MeteorMatcher:
    """How METEOR may match words: "wordnet 3.0" (exact, stem, synonym: the official way) or "exact+stem"."""

    name: str
    wordnet: Any = None


#: Every distinct word is stemmed once: most of METEOR's time otherwise.
stem = cache(PorterStemmer().stem)


def meteor_matcher(name: str = "auto") -> MeteorMatcher:
    """METEOR's matcher; "auto" takes WordNet where nltk's data folders have it, exact and stem matching elsewhere.

    Raises DataError for "wordnet" where there is none, ValueError for another name.
    """
    from nltk.corpus import wordnet

    if name not in ("auto", "wordnet", "exact+stem"):
        raise ValueError(f"unknown METEOR matcher {name!r}: give 'auto', 'wordnet' or 'exact+stem'")
    if name != "exact+stem":
        try:
            wordnet.ensure_loaded()
            return MeteorMatcher(f"wordnet {wordnet.get_version()}", wordnet)
        except (LookupError, OSError) as error:  # none, or one that nltk will not read
            if name == "wordnet":
                raise DataError(
                    "WordNet is not in nltk's data folders: README says how to get it, or choose 'exact+stem'"
                ) from error
    return MeteorMatcher("exact+stem")


def meteor(references: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]], matcher: MeteorMatcher) -> np.ndarray:
    """nltk's METEOR of each row of tokens, shape (n,). m identical words score 1 - 0.5/m^3, not 1."""
    synsets = (lambda word: ()) if matcher.wordnet is None else cache(matcher.wordnet.synsets)
    how: dict[str, Any] = {"stemmer": SimpleNamespace(stem=stem), "wordnet": SimpleNamespace(synsets=synsets)}
    return np.array([single_meteor_score(r, o, **how) for r, o in zip(references, outputs, strict=True)], dtype=float)


# ---- scores ----


def rouge(references: Sequence[str], outputs: Sequence[str]) -> dict[str, np.ndarray]:
    """rouge_score's ROUGE-1, ROUGE-2 and ROUGE-L (F, no stemmer) of each row, 0..1, shape (n,) each. Raw strings in."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    rows = [scorer.score(r, o) for r, o in zip(references, outputs, strict=True)]
    return {f"ROUGE-{n}": np.array([row[f"rouge{n}"].fmeasure for row in rows]) for n in ("1", "2", "L")}


def strip_cls(caption: str) -> str:
    """The caption without one leading "[CLS] ", as the official script reads outputs."""
    return caption.removeprefix("[CLS] ")


def caption_scores(
    references: Sequence[str], predictions: Sequence[str], tokenizer: CaptionTokenizer, matcher: MeteorMatcher
) -> Scored:
    """All caption metrics of n pairs, as the L+M-24 evaluation computes them (all in 0..1, higher is better).

    METEOR and ROUGE are means over rows. An empty prediction scores 0. length_deviation: output minus reference, in
    pieces, uncut.
    """
    outputs = [strip_cls(text) for text in predictions]
    sides = [tokenizer.split(side) for side in (references, outputs)]
    # Cut first, then drop the special tokens: the official order.
    cut = [[_without_special(pieces[:CUT]) for pieces in side] for side in sides]
    samples = pd.DataFrame({**rouge(references, outputs), "METEOR": meteor(cut[0], cut[1], matcher)})
    counts = bleu_statistics(cut[0], cut[1])
    metrics = {name: counts.score(BLEU_ORDERS[name]) for name in ("BLEU-2", "BLEU-4")}
    metrics |= {str(name): float(values.to_numpy().mean()) for name, values in samples.items()}
    lengths = [np.array([len(_without_special(pieces)) for pieces in side]) for side in sides]
    samples["length_deviation"] = lengths[1] - lengths[0]
    return Scored({name: metrics[name] for name in CAPTION_METRICS}, samples, counts)
