"""Caption metrics as the L+M-24 evaluation defines them: BLEU-2/4, ROUGE-1/2/L and METEOR.

BLEU and METEOR compare lists of word pieces, so their values belong to a tokenizer; ROUGE has its own. The
official tokenizer is SciBERT (uncased). Where its vocabulary is not at hand a rule replaces it, and because
the two give different numbers for the same captions (MolT5-Large on ChEBI-20: BLEU-2 .588 and .592), the name
of the one used travels with every score. The same holds for METEOR with and without WordNet.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmolt_utils.metrics.bleu import BLEU_ORDERS, BleuStatistics, bleu_statistics
from lmolt_utils.metrics.meteor import MeteorMatcher, meteor, meteor_matcher
from lmolt_utils.metrics.rouge import rouge

__all__ = [
    "CAPTION_METRICS",
    "SCIBERT",
    "CaptionScores",
    "CaptionTokenizer",
    "MeteorMatcher",
    "caption_scores",
    "caption_tokenizer",
    "meteor_matcher",
    "strip_cls",
]

SCIBERT = "allenai/scibert_scivocab_uncased"
CUT = 512  # word pieces that count, per caption (the official script's truncation)
CAPTION_METRICS = ("BLEU-2", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR")

_SPECIAL = frozenset({"[PAD]", "[CLS]", "[SEP]"})
# Known by content (less the last newline), not by path: one vocabulary has one name on every machine.
_SCIBERT_SHA256 = "cf28af60d3f93fbd0503d74b4fba2ea5adf4e9ba5d272bebd2a9dad1e38d2da4"


# ---------------------------------------------------------------------------------------------- tokenizers


@dataclass(frozen=True)
class CaptionTokenizer:
    """Splits captions into the pieces that BLEU and METEOR count.

    name: what to print beside a score; two scores are comparable only under the same name.
    split: n texts -> n lists of pieces, uncut, special tokens still in. whole: the same without what `split`
    remembers from one text to the next.
    """

    name: str
    split: Callable[[Sequence[str]], list[list[str]]]
    whole: Callable[[Sequence[str]], list[list[str]]]

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """n texts -> n lists of pieces: all of them, without [PAD], [CLS] and [SEP]. The length of a
        caption."""
        return [_without_special(pieces) for pieces in self.split(texts)]


def caption_tokenizer(name_or_folder: str = "auto") -> CaptionTokenizer:
    """The tokenizer of BLEU and METEOR. Never asks the network.

    name_or_folder:
    - "auto": SciBERT if it is in the local hub cache, else "regex";
    - "regex": the offline rule, lower-cased runs of word characters and single other characters;
    - a folder, or the file itself, of a tokenizer: `vocab.txt` as lower-cased BERT word pieces (SciBERT's),
      else `tokenizer.json` as it is;
    - a hub id whose files are already in the local cache.

    Raises FileNotFoundError where the folder or the cache lacks those files, ValueError for any other word.
    """
    if name_or_folder == "auto":
        cached = _in_hub_cache(SCIBERT)
        return _from_file(cached, SCIBERT) if cached else caption_tokenizer("regex")
    if name_or_folder == "regex":
        return CaptionTokenizer("regex", _regex_split, _regex_split)
    path = Path(name_or_folder).expanduser()
    if path.is_file():
        return _from_file(path, path.resolve().parent.name)
    if path.is_dir():
        for file in (path / "vocab.txt", path / "tokenizer.json"):
            if file.is_file():
                return _from_file(file, path.resolve().name)
        raise FileNotFoundError(f"no vocab.txt and no tokenizer.json in the tokenizer folder {path}")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name_or_folder):
        cached = _in_hub_cache(name_or_folder)
        if cached is None:
            raise FileNotFoundError(
                f"caption tokenizer {name_or_folder!r} is neither a path nor in the local hub cache: "
                f"run `hf download {name_or_folder} vocab.txt`, or choose 'auto' or 'regex'"
            )
        return _from_file(cached, name_or_folder)
    raise ValueError(
        f"unknown caption tokenizer {name_or_folder!r}: give 'auto', 'regex', a folder, a vocab.txt or a hub id"
    )


def _in_hub_cache(hub_id: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for file in ("vocab.txt", "tokenizer.json"):
        found = try_to_load_from_cache(hub_id, file)
        if isinstance(found, str):
            return Path(found)
    return None


def _from_file(file: Path, label: str) -> CaptionTokenizer:
    from tokenizers import Tokenizer
    from tokenizers.implementations import BertWordPieceTokenizer

    content = file.read_bytes().rstrip(b"\n")
    digest = hashlib.sha256(content).hexdigest()
    try:
        if file.suffix == ".json":
            tokenizer: Any = Tokenizer.from_file(str(file))
            tokenizer.no_truncation()  # settings a saved tokenizer may carry; the cut is ours
            tokenizer.no_padding()
        else:
            vocabulary = content.decode("utf-8").split("\n")
            missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}")
            ids = {token: i for i, token in enumerate(vocabulary)}
            tokenizer = BertWordPieceTokenizer(ids, lowercase=True)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ValueError(f"{file} is not a tokenizer.json or a BERT vocab.txt: {error}") from error

    def encode(texts: Sequence[str]) -> list[list[str]]:
        # A lone surrogate (from broken JSON, say) has no UTF-8 form.
        whole = [text.encode("utf-8", "replace").decode() for text in texts]
        return [e.tokens for e in tokenizer.encode_batch(whole, add_special_tokens=False)]

    # BERT's pieces never cross a space, so each distinct word needs to be split only once.
    split = encode if file.suffix == ".json" else _by_word(encode)
    name = SCIBERT if digest == _SCIBERT_SHA256 else f"{label}@{digest[:8]}"
    return CaptionTokenizer(name, split, encode)


def _by_word(encode: Callable[[Sequence[str]], list[list[str]]]) -> Callable[[Sequence[str]], list[list[str]]]:
    """A splitter of texts from one of words, which remembers the words."""
    known: dict[str, list[str]] = {}

    def split(texts: Sequence[str]) -> list[list[str]]:
        words = [text.split(" ") for text in texts]
        new = [word for word in dict.fromkeys(word for line in words for word in line) if word not in known]
        known.update(zip(new, encode(new), strict=True))
        return [[piece for word in line for piece in known[word]] for line in words]

    return split


def _regex_split(texts: Sequence[str]) -> list[list[str]]:
    return [re.findall(r"\w+|[^\w\s]", text.lower()) for text in texts]


def _without_special(pieces: list[str]) -> list[str]:
    return pieces if _SPECIAL.isdisjoint(pieces) else [piece for piece in pieces if piece not in _SPECIAL]


# -------------------------------------------------------------------------------------------------- scores


@dataclass(frozen=True, eq=False)
class CaptionScores:
    """metrics: corpus value per name of `CAPTION_METRICS`.

    samples: per-row values, arrays of shape (n,), whose mean is the corpus value: ROUGE-1/2/L, METEOR.
    bleu: the counts behind BLEU-2 and BLEU-4.
    reference_lengths, prediction_lengths: pieces per caption, uncut, shape (n,).
    """

    metrics: dict[str, float]
    samples: dict[str, np.ndarray]
    bleu: BleuStatistics
    reference_lengths: np.ndarray
    prediction_lengths: np.ndarray


def strip_cls(caption: str) -> str:
    """The caption without one leading "[CLS] ", as the official script reads outputs."""
    return caption.removeprefix("[CLS] ")


def caption_scores(
    references: Sequence[str],
    predictions: Sequence[str],
    tokenizer: CaptionTokenizer,
    matcher: MeteorMatcher,
) -> CaptionScores:
    """All caption metrics of n pairs, as the L+M-24 evaluation computes them (all in 0..1, higher is better).

    BLEU-2/4: nltk's corpus BLEU without smoothing. METEOR: nltk's (alpha 0.9, beta 3, gamma 0.5), mean over
    rows. ROUGE: F of rouge_score on the raw strings, no stemmer, mean over rows. An empty prediction scores
    0.

    Raises ValueError where the two lists are empty or differ in length.
    """
    if len(references) != len(predictions) or not references:
        raise ValueError(f"{len(references)} references and {len(predictions)} predictions: give n >= 1 of each")
    outputs = [strip_cls(text) for text in predictions]
    split_references, split_outputs = tokenizer.split(references), tokenizer.split(outputs)
    # Cut first, then drop the special tokens: the official order.
    cut_references = [_without_special(pieces[:CUT]) for pieces in split_references]
    cut_outputs = [_without_special(pieces[:CUT]) for pieces in split_outputs]

    samples = rouge(references, outputs)
    samples["METEOR"] = meteor(cut_references, cut_outputs, matcher)
    counts = bleu_statistics(cut_references, cut_outputs)
    metrics = {name: float(counts.score(BLEU_ORDERS[name])) for name in ("BLEU-2", "BLEU-4")}
    metrics |= {name: float(np.mean(values)) for name, values in samples.items()}
    return CaptionScores(
        metrics,
        samples,
        counts,
        np.array([len(_without_special(pieces)) for pieces in split_references]),
        np.array([len(_without_special(pieces)) for pieces in split_outputs]),
    )
