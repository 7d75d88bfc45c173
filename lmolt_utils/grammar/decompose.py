"""Atomic facts and property sets out of captions: the grammar of :mod:`forms` read backwards.

A caption is split into sentences, a sentence at its heads into clauses, a clause's list at its separators into names,
where the longest known name wins. Names are only looked for where the grammar has one, so ``cat`` or ``low`` never
match free text by accident. A sentence that the grammar does not explain is one fact without a property.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

from lmolt_utils.grammar.forms import CONNECTIVES, HEADS, LIST_SEPARATOR, SUBJECTS
from lmolt_utils.grammar.vocabulary import Vocabulary, canonical


@dataclass(frozen=True)
class Atom:
    """One fact of a caption: a sentence in the caption's words, and the canonical name of its property if it has one.

    ``verb``: a key of :data:`~lmolt_utils.grammar.forms.HEADS`, ``has`` for odours and tastes, empty for other quotes.
    """

    text: str
    property: str | None
    verb: str


def _any_of(phrases: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, phrases), key=len, reverse=True))


_SUBJECT = re.compile(rf"(?:{_any_of(SUBJECTS)})(?= |$)", re.IGNORECASE)
_CONNECTIVE = "".join(f"(?:(?:{_any_of(words)}) )?" for words in CONNECTIVES)
_VERBS = {head: verb for verb, heads in HEADS.items() for head in heads}
_CLAUSE = re.compile(rf"[,;:]? {_CONNECTIVE}({_any_of(_VERBS)})(?= |$)")
_CLASS_END = re.compile(r" class(?:es)?(?: of molecules)?$", re.IGNORECASE)
_ARTICLE = re.compile(r"(?:both )?(?:the |(an? )?)", re.IGNORECASE)
#: A name with the rest of a broken clause glued on: "fat storage that impactsyes".
_BROKEN_CLAUSE = re.compile(r"(.+?),? (?:that|which|it|with|who)\b")
#: Abbreviations that a name follows: their stop ends no sentence.
_ABBREVIATIONS = r"St Ste Mt Mr Mrs Ms Dr Prof Fig Figs sp spp ssp subsp var vs cf ca approx e\.g i\.e"
_NO_ABBREVIATION = re.sub(r"(\S+) ?", r"(?<!\\b\1\.)", _ABBREVIATIONS)
#: New sentences: after a stop before a capital, wherever a molecule is named anew, and glued ones.
_SENTENCE_BREAK = re.compile(
    rf"(?<=[.!?]){_NO_ABBREVIATION} (?=[A-Z])"
    r"| (?=(?:The|This) molecule\b)|(?<=[.!?]) ?(?=(?:[Tt]he|[Tt]his) molecule\b)"
    rf"|(?<=[.!?]) ?(?=[Ii]t (?:{_any_of(head.split()[0] for head in _VERBS)})\b)"
)
_STOP = " .!?;,\"'"

# ---- quoted text ----

_QUOTE = re.compile(
    r"(?:[,;]? (?:and|which|that|it)){0,2} has (?!(?:an? |no )?(?:effect|impact)s?\b)(.*)$", re.IGNORECASE
)
_QUOTE_WITH = re.compile(
    r",? with (an? (?!effect|impact).*(?:odou?r|smell|aroma|taste|flavou?r|odou?rless|tasteless)\b.*)$", re.IGNORECASE
)
#: L+M-24 quotes as PubChem writes, with a capital: "has Sweet"; "has a role as ..." of ordinary prose is no odour.
_VERBATIM = re.compile(r"(?:[Bb]oth )?(?:an? )?[A-Z0-9]")
_TWO_QUOTES = re.compile(r"both an? ?(.*?)[ .]+and an? ?(?=[A-Z(])(.*)$|both an? ?(.*) and an? ?(.*)$")
_ODOR = re.compile(r"odou?r|smell|scent|aroma|fragran|stench|tear gas", re.IGNORECASE)
_TASTE = re.compile(r"tast|flavou?r", re.IGNORECASE)
_POLYMERIZATION = re.compile(r"polymeri[sz]", re.IGNORECASE)
_DECOMPOSITION = re.compile(
    r"\bheat(?:ed|ing) to decomp|^(?:is |will )?decomp\w* (?:at|above|below|in|on|by|with|to|when)\b|\bthermal decomp"
    r"|\bemit\w* .*(?:fumes|smoke|vapou?rs?|gas|oxides)"
    r"|\b(?:decompos|combustion|thermal|burn|fire|heated|react)\w* .*(?:fumes|toxic|oxides|hazard|products|oxidi|explo)"
    r"|\b(?:fumes|gases|vapou?rs?|oxides|products) .*(?:toxic|decompos|heated|form\b|evolve)",
    re.IGNORECASE,
)
#: The longest hazard texts of L+M-24 have a few sentences; a longer run of other prose is none.
_LONGEST_QUOTE = 1200


def _hazard(text: str) -> str | None:
    """The free-text property that a quoted sentence is about, if any."""
    if re.search(r"heated to decomp", text, re.IGNORECASE):
        return "decomposition_evaluation"
    if _POLYMERIZATION.search(text):
        return "polymerization_evaluation"
    return "decomposition_evaluation" if _DECOMPOSITION.search(text) else None


def _sense(text: str) -> str | None:
    """Odour or taste; None when the words do not say (``Sweet, fruity``)."""
    odor, taste = _ODOR.search(text), _TASTE.search(text)
    if odor and taste:
        return "odor_evaluation" if odor.start() < taste.start() else "taste_evaluation"
    return "odor_evaluation" if odor else "taste_evaluation" if taste else None


def _senses(quote: str) -> list[tuple[str, str]]:
    """The quoted facts after "has", with their property: one, or an odour and a taste in either order."""
    pair = _TWO_QUOTES.match(quote)
    if pair is None:
        return [(_ARTICLE.sub("", quote, count=1), _sense(quote) or "odor_evaluation")]
    one, two = (text.strip(_STOP) for text in pair.groups() if text is not None)
    first, second = _sense(one), _sense(two)
    other = {"odor_evaluation": "taste_evaluation", "taste_evaluation": "odor_evaluation"}
    if first is None or first == second == "odor_evaluation":
        first = other[second] if second and first is None else "odor_evaluation"
    return [(one, first), (two, second if second and second != first else other[first])]


# ---- names ----

_WORDY = re.compile(r"[^\W_]{2}")
#: Words that make a phrase a clause of ordinary prose; no property of L+M-24 holds one.
_PROSE = re.compile(
    r"\b(?:that|which|who|it|its|is|are|was|were|be|been|has|have|had|this|these|those|can|may|not|from|at|as|than|there"
    r"|with|by|such|used|found|derived|consisting|where|when|into|one|two|three|via|position|carrying)\b"
)
_NOT_A_NAME = re.compile(r"[<>{}=\\@#|*$\"!?;]|https?:|\.\s")
#: Names shorter than this (cat, low, dry, warm) are words of any prose.
_ACCIDENTAL = 5


def _name_like(phrase: str) -> bool:
    """Whether an unknown phrase in a name's place reads like one of L+M-24's names, which have at most 6 words."""
    return (
        len(phrase) <= 80
        and len(phrase.split()) <= 8
        and phrase.count("(") == phrase.count(")")
        and phrase.count("[") == phrase.count("]")
        and bool(_WORDY.search(phrase))
        and not _NOT_A_NAME.search(phrase)
        and not _PROSE.search(phrase)
    )


class Decomposer:
    """Reads captions with a vocabulary, by default the shipped one; what was read before is remembered.

    ``open_vocabulary``: an unknown phrase in a name's place counts as a property under its own (canonical) name, if it
    reads like a name and the grammar explains the whole sentence; else it is a fact without a property.
    """

    def __init__(self, vocabulary: Vocabulary | None = None, *, open_vocabulary: bool = False) -> None:
        self.vocabulary = vocabulary or Vocabulary.embedded()
        self.open_vocabulary = open_vocabulary
        self._sentence: Callable[[str], list[Atom] | None] = lru_cache(65_536)(self._read)

    def __call__(self, caption: str) -> list[Atom]:
        """The caption's facts in their order; a fact stated twice is there twice."""
        read = [(text, self._sentence(text)) for text in sentences(caption)]
        atoms: list[Atom] = []
        for quoted, run in groupby(read, key=lambda item: item[1] is None):
            if quoted:
                atoms += self._quotes([text for text, _ in run])
            else:
                atoms += [atom for _, found in run for atom in found or ()]
        return atoms

    def properties(self, caption: str) -> set[str]:
        """The canonical names of the properties that the caption states."""
        return {atom.property for atom in self(caption) if atom.property is not None}

    def canonical(self, atom: Atom) -> str:
        """The one sentence for a fact, however a caption puts it."""
        name = atom.property
        if name is None or atom.verb in ("has", ""):
            return atom.text
        kind = self.vocabulary.kinds.get(name)
        if kind == "effect" or (kind is None and atom.verb not in ("is", "belongs to")):
            return f"The molecule impacts {name}."
        return f"The molecule is {name}." if kind == "quality" else f"The molecule is a {name}."

    def _quotes(self, texts: Sequence[str]) -> list[Atom]:
        """Facts of a run of quoted sentences: those of one hazard, with unclear ones beside them, are one fact."""
        hazards = [_hazard(text) for text in texts] if sum(map(len, texts)) <= _LONGEST_QUOTE else []
        if not any(hazards):
            return [Atom(text, None, "") for text in texts]
        current = next(hazard for hazard in hazards if hazard)
        filled = [current := hazard or current for hazard in hazards]
        pairs = zip(filled, texts, strict=True)
        return [
            Atom(" ".join(text for _, text in run), self.vocabulary.find(hazard), "")
            for hazard, run in groupby(pairs, key=lambda pair: pair[0])
        ]

    def _read(self, sentence: str) -> list[Atom] | None:
        """The facts of one sentence; ``None`` of free text, or ordinary prose."""
        subject = _SUBJECT.match(sentence)
        body, quotes = self._had((sentence[subject.end() :] if subject else f" {sentence}").rstrip(_STOP))
        # One group in the pattern: head words at odd places, what follows each at even ones.
        start, *rest = _CLAUSE.split(body)
        atoms: list[Atom] = []
        whole = bool(rest or quotes)
        if start.strip():
            # Text before the first head: a sentence that lost its "The molecule is a", or ordinary prose.
            whole &= not subject and self._list(start.strip(_STOP), "is", atoms)
        for head, slot in zip(rest[::2], rest[1::2], strict=True):
            whole &= self._list(slot.strip(_STOP), _VERBS[head], atoms)
        if not subject and not (whole and all(atom.property in self.vocabulary.kinds for atom in atoms)):
            return None
        if not whole or sentence[:6].lower() == "it is ":
            atoms = [self._doubted(atom, whole) for atom in atoms]
        if not (whole or quotes or any(atom.property for atom in atoms)):
            return [Atom(sentence, None, "")]
        return [*atoms, *quotes]

    def _had(self, body: str) -> tuple[str, list[Atom]]:
        """The part of ``body`` before a quoted odour or taste, and the facts quoted."""
        found = _QUOTE.search(body) or _QUOTE_WITH.search(body)
        quote = found[1].strip(_STOP) if found else ""
        if found is None or not (_sense(quote) or _VERBATIM.match(quote)):
            return body, []
        facts = [(f"The molecule has {text}.", self.vocabulary.find(sense)) for text, sense in _senses(quote)]
        return body[: found.start()], [Atom(text, name, "has") for text, name in facts]

    def _doubted(self, atom: Atom, whole: bool) -> Atom:
        """The atom without its property where that may be an accident of other prose, such as "It is warm."

        Of a sentence not understood whole only known names count, and no short ones.
        """
        name = atom.property
        if name is None or (whole and atom.verb != "is"):
            return atom
        believed = len(name) >= _ACCIDENTAL and (whole or name in self.vocabulary.kinds)
        return atom if believed else replace(atom, property=None)

    def _list(self, slot: str, verb: str, atoms: list[Atom]) -> bool:
        """Add the facts of one clause to ``atoms``; returns whether every item is a name."""
        if verb == "belongs to":
            slot = _CLASS_END.sub("", slot)
        items = LIST_SEPARATOR.split(slot)  # names at even places, the separators between them at odd ones
        article, whole, index = "", True, 0
        while index < len(items):
            if (found := _ARTICLE.match(items[index])) and found[1]:
                article = found[1].lower()  # the first item's holds for the others: "is a X, Y, Z"
            text, name, used = self._name(items, index)
            whole &= name is not None or self.open_vocabulary
            if name is None:
                broken = _BROKEN_CLAUSE.match(text)
                if broken and (name := self.vocabulary.find(broken[1])):
                    text, whole = broken[1], False
                elif self.open_vocabulary and _name_like(text):
                    name = canonical(text)
                else:
                    whole = False
            if text:
                atoms.append(Atom(self._text(verb, text, name, article), name, verb))
            index += used
        return whole

    def _name(self, items: Sequence[str], index: int) -> tuple[str, str | None, int]:
        """The item at ``index`` without its article, the known name it is or starts, and the places this takes."""
        text = _ARTICLE.sub("", items[index], count=1)
        for count in range(self.vocabulary.longest.get(text.lower(), 1), 0, -1):
            together = text + "".join(items[index + 1 : index + 2 * count - 1])
            if name := self.vocabulary.find(together):
                return together, name, 2 * count
        for ending in (" compound", " compounds", " molecule"):
            if text.endswith(ending) and (name := self.vocabulary.find(text.removesuffix(ending))):
                return text.removesuffix(ending), name, 2
        return text, None, 2

    def _text(self, verb: str, text: str, name: str | None, article: str) -> str:
        if verb == "belongs to":
            return f"The molecule belongs to the {text} class of molecules."
        if verb == "is" and not (name and self.vocabulary.kind(name) == "quality"):
            return f"The molecule is {article}{text}."
        return f"The molecule {verb} {text}."


def sentences(caption: str) -> list[str]:
    """The sentences of a caption, with single spaces; names with full stops in them (EC numbers) stay whole."""
    return [text for text in _SENTENCE_BREAK.split(" ".join(caption.split())) if text]
