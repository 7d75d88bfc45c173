"""Captions from property sets, in the sentences of L+M-24, the properties in random order.

L+M-24 shuffles a molecule's properties, halves the list until no part has more than six, and writes each part in a
sentence made for its kinds: three roles and two effects are always "is a R, R, R that impacts E and E". The captions
of the data set's ``evaluation/`` folder show both (7, 10, 13 and 18 properties are 3+4, 5+5, 6+3+4 and 4+5+4+5 in all
199). ``sentences.tsv`` counts each sentence among 41,453 of the shared task's retrieval submission, whose captions are
those of training molecules; where one wording serves several kinds its count is shared out as the 199 captions and
three other submissions use it. Sentences below 3 % of their kinds' are left out.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

from lmolt_utils.errors import CompanionError
from lmolt_utils.grammar import forms
from lmolt_utils.grammar.forms import FREE_TEXT, SENTENCES_PER_CAPTION, STYLES, Form, Style
from lmolt_utils.grammar.vocabulary import Kind, Vocabulary, canonical

#: The most properties in one sentence of L+M-24.
LONGEST = 6
#: How ``sentences.tsv`` writes the kinds of a sentence's properties: role, class, effect, quality.
LETTERS: dict[Kind, str] = {"role": "R", "class": "C", "effect": "E", "quality": "Q"}
_SLOT = re.compile(r"\b[RCEQ]\b")


class ComposeError(CompanionError):
    """A property set that no caption can state."""


@cache
def sentences_of() -> dict[str, tuple[list[str], list[int]]]:
    """By the kinds of their properties (``CEQR``, sorted letters): L+M-24's sentences, and their counts."""
    table: dict[str, tuple[list[str], list[int]]] = {}
    for line in Path(__file__).with_name("sentences.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        count, sentence = line.split("\t")
        texts, counts = table.setdefault("".join(sorted(_SLOT.findall(sentence))), ([], []))
        texts.append(sentence)
        counts.append(int(count))
    return table


def parts(names: Sequence[str]) -> list[Sequence[str]]:
    """The names of each sentence: the list is halved, the smaller half first, until a part is short enough."""
    if len(names) <= LONGEST:
        return [names]
    middle = len(names) // 2
    return [*parts(names[:middle]), *parts(names[middle:])]


def filled(sentence: str, names: Sequence[str], letters: Sequence[str]) -> str:
    """``sentence`` with ``names`` in the slots of their ``letters``, those of one letter in their order."""
    pairs = list(zip(letters, names, strict=True))
    left = {letter: iter([name for own, name in pairs if own == letter]) for letter in letters}
    return _SLOT.sub(lambda slot: next(left[slot[0]]), sentence)


def _ands(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) <= 2 else f"{', '.join(names[:-1])}, and {names[-1]}"


def _lists(names: Sequence[str]) -> SimpleNamespace:
    """The lists of ``names`` that a form's slots ask for."""
    ands, articles = _ands(names), _ands([f"a {name}" for name in names])
    both = f"both {ands}" if len(names) == 2 else ands
    return SimpleNamespace(commas=", ".join(names), ands=ands, both=both, articles=articles)


@dataclass(frozen=True)
class Composer:
    """Writes captions; ``vocabulary`` says which names are roles, classes, effects, qualities or free text."""

    vocabulary: Vocabulary
    style: Style = STYLES["lpm24"]

    def compose(self, properties: Iterable[str], rng: random.Random) -> str:
        """A caption that states each of ``properties`` once, whatever their order."""
        return self.caption(sorted({canonical(name) for name in properties}), rng)

    def caption(self, names: Sequence[str], rng: random.Random) -> str:
        """The same for distinct canonical names, whose order counts; raises :class:`ComposeError` for none."""
        if not names:
            raise ComposeError("a caption needs at least one property")
        free = [name for name in names if self.vocabulary.kind(name) == "free text"]
        stated = [name for name in names if name not in free]
        sentences = self._sentences(stated, rng) if stated else []
        for text in _free_sentences(free, rng):
            sentences.insert(rng.randint(0, len(sentences)), text)
        return " ".join(sentences)

    def _sentences(self, names: list[str], rng: random.Random) -> list[str]:
        rng.shuffle(names)
        if self.style.whole:
            return [self._whole(rng, part) for part in parts(names)]
        wanted = rng.choices((1, 2, 3), weights=SENTENCES_PER_CAPTION)[0]
        cuts = sorted(rng.sample(range(1, len(names)), min(wanted, max(1, len(names) // 2)) - 1))
        bounds = pairwise([0, *cuts, len(names)])
        return [self._sentence(rng, names[start:end], first=start == 0) for start, end in bounds]

    def _whole(self, rng: random.Random, names: Sequence[str]) -> str:
        """A sentence of L+M-24 for these kinds of names; one put together from clauses where it has none."""
        letters = [LETTERS[self.vocabulary.kind(name)] for name in names]
        found = sentences_of().get("".join(sorted(letters)))
        if found is None:
            return self._sentence(rng, names, first=False)
        (sentence,) = rng.choices(*found)
        return filled(sentence, names, letters)

    def _sentence(self, rng: random.Random, names: Sequence[str], first: bool) -> str:
        of = {kind: [name for name in names if self.vocabulary.kind(name) == kind] for kind in LETTERS}
        roles, effects, qualities = of["role"] + of["class"], of["effect"], of["quality"]
        if roles:
            text = self._state(rng, roles, forms.ROLES)
            if effects:
                text += self._state(rng, effects, forms.EFFECTS_AFTER_ROLES)
            if qualities:
                after = forms.QUALITIES_AFTER_EFFECTS if effects else forms.QUALITIES_AFTER_ROLES
                text += self._state(rng, qualities, after)
        elif qualities:
            text = self._state(rng, qualities, forms.QUALITIES_ALONE)
            if effects:
                text += self._state(rng, effects, forms.EFFECTS_AFTER_QUALITIES)
        else:
            text = self._state(rng, effects, forms.EFFECTS_ALONE)
        # L+M-24 starts with "It" wherever no "is" follows; the embedded captions introduce the molecule first.
        it = not text.startswith("is ") and not (first and self.style.plain)
        return f"{'It' if it else 'The molecule'} {text}."

    def _state(self, rng: random.Random, names: Sequence[str], choices: tuple[Form, ...]) -> str:
        """``names`` in one of the forms that take that many."""
        plain = self.style.plain
        classes = plain or self.vocabulary.kind(names[-1]) == "class"  # only classes are called so, but in plain style
        fitting = [
            form
            for form in choices
            if form.least <= len(names) <= form.most
            and (form.plain or not plain)
            and (classes or not form.of_class)
            and form not in self.style.without
        ]
        if not fitting:
            raise ComposeError(f"the style leaves out every form for {', '.join(names)}: let it use one more")
        form = fitting[0]
        if len(fitting) > 1:
            form = rng.choice(fitting) if plain else rng.choices(fitting, [form.weight for form in fitting])[0]
        lists = {"all": _lists(names), "rest": _lists(names[1:]), "front": _lists(names[:-1])}
        return form.text.format(*names, last=names[-1], **lists)


def _free_sentences(names: Sequence[str], rng: random.Random) -> list[str]:
    """Quoted facts as L+M-24 sets them, in a usual wording: odour and taste after "has", the hazards as they stand."""
    facts = {name: rng.choice(FREE_TEXT[name]) for name in names}
    had = [facts.pop(name) for name in ("odor_evaluation", "taste_evaluation") if name in facts]
    if len(had) == 2:
        rng.shuffle(had)
        had = [f"both a {had[0]} and a {had[1]}"]
    return [f"The molecule has {fact}." for fact in had] + list(facts.values())
