"""Caption metrics as the L+M-24 evaluation defines them: BLEU-2/4, ROUGE-1/2/L and METEOR.

BLEU and METEOR compare lists of word pieces, so their values belong to a tokenizer; ROUGE has its own. The
official tokenizer is SciBERT (uncased). Where its vocabulary is not at hand a rule replaces it, and because
the two give different numbers for the same captions (MolT5-Large on ChEBI-20: BLEU-2 .588 and .592), the name
of the one used travels with every score. The same holds for METEOR with and without WordNet.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import nltk
import numpy as np
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.stem.api import StemmerI
from nltk.stem.porter import PorterStemmer
from nltk.translate.bleu_score import corpus_bleu
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer

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
    split: n texts -> n lists of pieces, uncut, special tokens still in.
    """

    name: str
    split: Callable[[Sequence[str]], list[list[str]]]

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
        return CaptionTokenizer("regex", _regex_split)
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

    def split(texts: Sequence[str]) -> list[list[str]]:
        return [e.tokens for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    name = SCIBERT if digest == _SCIBERT_SHA256 else f"{label}@{digest[:8]}"
    return CaptionTokenizer(name, split)


def _regex_split(texts: Sequence[str]) -> list[list[str]]:
    return [re.findall(r"\w+|[^\w\s]", text.lower()) for text in texts]


def _without_special(pieces: Sequence[str]) -> list[str]:
    return [piece for piece in pieces if piece not in _SPECIAL]


# -------------------------------------------------------------------------------------------------- METEOR

MatcherName = Literal["wordnet", "exact+stem"]

# WordNet's table of lexicographer files (lexnames(5WN)): number, name, part of speech. Debian leaves it out.
_LEXNAMES = (
    ("adj", "all pert"),
    ("adv", "all"),
    (
        "noun",
        "Tops act animal artifact attribute body cognition communication event feeling food group location "
        "motive object person phenomenon plant possession process quantity relation shape state substance "
        "time",
    ),
    (
        "verb",
        "body change cognition communication competition consumption contact creation emotion motion "
        "perception possession social stative weather",
    ),
    ("adj", "ppl"),
)
_PART_OF_SPEECH = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
_WORDNET_FILES = tuple(f"{kind}.{pos}" for kind in ("index", "data") for pos in ("adj", "adv", "noun", "verb"))
_WORDNET_FILES += ("adj.exc", "adv.exc", "noun.exc", "verb.exc")


class _NoSynonyms:
    """Stands where nltk expects WordNet: no word has a synonym."""

    def synsets(self, word: str) -> list[Any]:
        return []


class _CachedStemmer(StemmerI):
    """Porter's stemmer, each distinct word stemmed once (most of METEOR's time otherwise)."""

    def __init__(self) -> None:
        self._stem = lru_cache(maxsize=200_000)(PorterStemmer().stem)

    def stem(self, token: str) -> str:
        return self._stem(token)


class _CachedSynonyms:
    """A WordNet reader, each distinct word looked up once."""

    def __init__(self, reader: Any) -> None:
        self.synsets = lru_cache(maxsize=200_000)(reader.synsets)


@dataclass(frozen=True)
class MeteorMatcher:
    """How METEOR may match two words. `name` is printed with the score.

    name: "wordnet" (exact, stem, synonym: the official way) or "exact+stem".
    version: WordNet's version, empty without WordNet.
    """

    name: MatcherName
    version: str
    stemmer: StemmerI
    synonyms: Any


def meteor_matcher(name: str = "auto") -> MeteorMatcher:
    """METEOR's matcher; "auto" takes WordNet where it is installed and exact and stem matching elsewhere.

    WordNet is looked for in nltk's data folders, then in $WNSEARCHDIR and where Debian's `wordnet-base` puts
    it (copied once into a cache folder of the layout that nltk reads). Loading it takes some seconds, once a
    process.

    Raises FileNotFoundError for "wordnet" where there is none, ValueError for another name.
    """
    if name not in ("auto", "wordnet", "exact+stem"):
        raise ValueError(f"unknown METEOR matcher {name!r}: give 'auto', 'wordnet' or 'exact+stem'")
    reader = None if name == "exact+stem" else load_wordnet()
    if reader is not None:
        return MeteorMatcher("wordnet", str(reader.get_version()), _CachedStemmer(), _CachedSynonyms(reader))
    if name == "wordnet":
        raise FileNotFoundError(
            "WordNet was not found: install Debian's `wordnet-base`, or unpack nltk's wordnet into "
            "nltk_data/corpora, or set WNSEARCHDIR to a WordNet `dict` folder; or choose 'exact+stem'"
        )
    return MeteorMatcher("exact+stem", "", _CachedStemmer(), _NoSynonyms())


@lru_cache(maxsize=1)
def load_wordnet() -> Any | None:
    """An nltk WordNet reader, or None where the machine has no WordNet."""
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
        return wordnet
    except (LookupError, OSError):  # none, or one that nltk will not read
        pass
    for folder in (os.environ.get("WNSEARCHDIR", ""), "/usr/share/wordnet"):
        if folder and all((Path(folder) / file).is_file() for file in _WORDNET_FILES):
            return open_wordnet(Path(folder))
    return None


class _EnglishWordNet(WordNetCorpusReader):
    """nltk's reader without its table for other languages, which needs a file that `wordnet-base` lacks."""

    def map_wn(self, version: str = "wordnet") -> None:
        return None


def open_wordnet(database: Path) -> WordNetCorpusReader:
    """A reader on a copy of a WordNet database in nltk's layout, made where it is not there yet.

    A copy, since nltk reads only below its own data folders, and wants them closed to other users' writing.
    """
    stamp = "\n".join(f"{database.resolve()} {f} {(database / f).stat().st_size}" for f in _WORDNET_FILES)
    root = _cache_folder() / f"nltk_data-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    if not root.is_dir():
        with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
            half = Path(scratch) / "nltk_data"
            _copy_wordnet(database, half)
            # All or nothing: a killed process leaves no half copy under the final name.
            with suppress(OSError):  # another process was first
                half.rename(root)
    if str(root) not in nltk.data.path:
        nltk.data.path.append(str(root))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "multilingual functions are not available"
        return _EnglishWordNet(str(root / "corpora" / "wordnet"), None)


def _cache_folder() -> Path:
    """The user's cache folder, or where that cannot be written one for this process alone."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lmolt"
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            return cache
    private = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    return private


def _copy_wordnet(database: Path, root: Path) -> None:
    target = root / "corpora" / "wordnet"
    for folder in (root, target.parent, target):
        folder.mkdir(mode=0o700)
    for file in _WORDNET_FILES:
        shutil.copyfile(database / file, target / file)
    names = [(pos, name) for pos, names in _LEXNAMES for name in names.split()]
    table = (f"{i:02d}\t{pos}.{name}\t{_PART_OF_SPEECH[pos]}\n" for i, (pos, name) in enumerate(names))
    (target / "lexnames").write_text("".join(table), encoding="ascii")
    for copied in target.iterdir():
        copied.chmod(0o600)


# -------------------------------------------------------------------------------------------------- scores


@dataclass(frozen=True, eq=False)
class CaptionScores:
    """metrics: corpus value per name of `CAPTION_METRICS`.

    samples: per-row values, arrays of shape (n,), whose mean is the corpus value: ROUGE-1/2/L, METEOR.
    reference_lengths, prediction_lengths: pieces per caption, uncut, shape (n,).
    """

    metrics: dict[str, float]
    samples: dict[str, np.ndarray]
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
    metrics = dict(zip(("BLEU-2", "BLEU-4"), bleu(cut_references, cut_outputs, (2, 4)), strict=True))
    metrics |= {name: float(np.mean(values)) for name, values in samples.items()}
    return CaptionScores(
        metrics,
        samples,
        np.array([len(_without_special(pieces)) for pieces in split_references]),
        np.array([len(_without_special(pieces)) for pieces in split_outputs]),
    )


def bleu(references: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]], orders: Sequence[int]) -> list[float]:
    """Corpus BLEU of n token lists against one reference each, uniform weights up to each order in `orders`.

    nltk's method 0: where some order has no match at all the score is 0 or a number of no size (about 1e-80).
    """
    weights = [(1 / order,) * order for order in orders]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nltk's advice to smooth such scores
        scores = corpus_bleu([[list(r)] for r in references], [list(o) for o in outputs], weights)
    return [float(score) for score in np.atleast_1d(scores)]  # a bare number for one order


def meteor(references: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]], matcher: MeteorMatcher) -> np.ndarray:
    """METEOR of each row, shape (n,). m identical words score 1 - 0.5/m^3, not 1."""
    return np.array(
        [
            meteor_score([reference], output, stemmer=matcher.stemmer, wordnet=matcher.synonyms)
            for reference, output in zip(references, outputs, strict=True)
        ],
        dtype=float,
    )


def rouge(references: Sequence[str], outputs: Sequence[str]) -> dict[str, np.ndarray]:
    """ROUGE-1, ROUGE-2 and ROUGE-L (F) of each row, shape (n,) each."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    rows = [scorer.score(reference, output) for reference, output in zip(references, outputs, strict=True)]
    names = {"ROUGE-1": "rouge1", "ROUGE-2": "rouge2", "ROUGE-L": "rougeL"}
    return {name: np.array([row[key].fmeasure for row in rows], dtype=float) for name, key in names.items()}
