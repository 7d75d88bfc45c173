"""METEOR as the L+M-24 evaluation computes it: nltk's, over the tokens of a caption tokenizer.

Matching goes through exact words, Porter stems and WordNet synonyms. Where WordNet is missing only the first two
are left, and the scores are other ones (.001 lower for MolT5-Large on ChEBI-20): the matcher's name travels with
every score.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import nltk
import numpy as np
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.stem.porter import PorterStemmer

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5  # weight of precision; exponent and weight of the fragmentation penalty

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


@dataclass(frozen=True)
class MeteorMatcher:
    """How METEOR may match two words. `name` is printed with the score.

    name: "wordnet" (exact, stem, synonym: the official way) or "exact+stem".
    version: WordNet's version, empty without WordNet. wordnet: nltk's reader, or None.
    stems, synonyms: every distinct word is stemmed and looked up once (most of METEOR's time otherwise).
    """

    name: MatcherName
    version: str
    wordnet: Any = None
    stems: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    synonyms: dict[str, frozenset[str]] = field(default_factory=dict, repr=False, compare=False)

    def stem(self, word: str) -> str:
        """Porter's stem of a lower-cased word."""
        if word not in self.stems:
            self.stems[word] = _PORTER.stem(word)
        return self.stems[word]

    def synonyms_of(self, word: str) -> frozenset[str]:
        """The single-word lemmas of all synsets of a word; nothing without WordNet."""
        if self.wordnet is None:
            return frozenset()
        if word not in self.synonyms:
            names = (lemma.name() for synset in self.wordnet.synsets(word) for lemma in synset.lemmas())
            self.synonyms[word] = frozenset(name for name in names if "_" not in name)
        return self.synonyms[word]


_PORTER = PorterStemmer()


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
        return MeteorMatcher("wordnet", str(reader.get_version()), reader)
    if name == "wordnet":
        raise FileNotFoundError(
            "WordNet was not found: install Debian's `wordnet-base`, or unpack nltk's wordnet into "
            "nltk_data/corpora, or set WNSEARCHDIR to a WordNet `dict` folder; or choose 'exact+stem'"
        )
    return MeteorMatcher("exact+stem", "")


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


def meteor(references: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]], matcher: MeteorMatcher) -> np.ndarray:
    """METEOR of each row, shape (n,). m identical words score 1 - 0.5/m^3, not 1. Equal to nltk's to the last
    bit."""
    rows = [_score(r, o, matcher) for r, o in zip(references, outputs, strict=True)]
    return np.array(rows, dtype=float)


def _score(reference: Sequence[str], output: Sequence[str], matcher: MeteorMatcher) -> float:
    aligned = _align([word.lower() for word in reference], [word.lower() for word in output], matcher)
    matches = len(output) - aligned.count(-1)
    if not matches:
        return 0.0
    chunks = 0
    before = -1  # the reference word that the output word before stands for
    for place in aligned:
        chunks += place >= 0 and (before < 0 or place != before + 1)
        before = place
    precision, recall = matches / len(output), matches / len(reference)
    mean = (precision * recall) / (ALPHA * precision + (1 - ALPHA) * recall)
    return (1 - GAMMA * (chunks / matches) ** BETA) * mean


def _align(reference: list[str], output: list[str], matcher: MeteorMatcher) -> list[int]:
    """For each output word the reference word it matches, or -1.

    nltk's greedy rule: three stages, in each from the last output word to the first, each taking the last word
    of the reference that is still free. The synonym stage sees stems, not words: that is nltk's too.
    """
    aligned = [-1] * len(output)
    free = _positions(range(len(reference)), reference)
    unmatched = _match(aligned, range(len(output)), output, free)
    if not unmatched:
        return aligned
    left = sorted(place for places in free.values() for place in places)
    stems = {place: matcher.stem(reference[place]) for place in left}
    free = _positions(left, stems)
    output_stems = {i: matcher.stem(output[i]) for i in unmatched}
    unmatched = _match(aligned, unmatched, output_stems, free)
    if matcher.wordnet is None:
        return aligned
    for i in reversed(unmatched):
        known = matcher.synonyms_of(output_stems[i])
        best = max((free[word][-1] for word in free.keys() & known if free[word]), default=-1)
        if best >= 0:
            aligned[i] = best
            free[stems[best]].pop()
    return aligned


_Words = list[str] | dict[int, str]


def _positions(places: Sequence[int], words: _Words) -> dict[str, list[int]]:
    """Where each word stands, in ascending order."""
    found: dict[str, list[int]] = {}
    for place in places:
        found.setdefault(words[place], []).append(place)
    return found


def _match(aligned: list[int], places: Sequence[int], words: _Words, free: dict[str, list[int]]) -> list[int]:
    """Match equal words, last to last; returns the places without a match, in ascending order."""
    unmatched = []
    for i in reversed(places):
        there = free.get(words[i])
        if there:
            aligned[i] = there.pop()
        else:
            unmatched.append(i)
    return unmatched[::-1]
