"""Captions from property sets, in the sentence forms of L+M-24, the properties in random order."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

from lmolt_utils.errors import CompanionError
from lmolt_utils.grammar import forms
from lmolt_utils.grammar.forms import FREE_TEXT, SENTENCES_PER_CAPTION, STYLES, Form, Style
from lmolt_utils.grammar.sentences import LETTERS, SENTENCES, filled, parts, signature
from lmolt_utils.grammar.vocabulary import Vocabulary, canonical


class ComposeError(CompanionError):
    """A property set that no caption can state."""


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
        found = SENTENCES.get(signature(letters))
        if found is None:
            return self._sentence(rng, names, first=False)
        (sentence,) = rng.choices(*found)
        return filled(sentence, names, letters)

    def _sentence(self, rng: random.Random, names: Sequence[str], first: bool) -> str:
        kinds = {name: self.vocabulary.kind(name) for name in names}
        effects = [name for name in names if kinds[name] == "effect"]
        qualities = [name for name in names if kinds[name] == "quality"]
        roles = [name for name in names if kinds[name] == "role"] + [name for name in names if kinds[name] == "class"]
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
            weights = [form.weight for form in fitting]
            form = rng.choice(fitting) if plain else rng.choices(fitting, weights=weights)[0]
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
