"""Sentence pairs with known labels, to train the embedded NLI cross-encoder on.

The literals decide, a literal being a property and whether it is stated or denied: a hypothesis is entailed when the
premise holds every one of its literals, contradicted when the premise holds the reverse of one (or the opposite
property), neutral otherwise.

What the accuracy is measured on (:mod:`~tools.embedded_models.nli_quality`) is kept out twice: no training pair has a
withheld combination of properties (:func:`withheld`), and no training text is written in a held-out form
(:data:`HELD_OUT_FACTS` and the forms of L+M-24 that are not plain).
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from lmolt_utils.grammar.compose import Composer
from lmolt_utils.grammar.forms import STYLES
from lmolt_utils.grammar.rules import vocabulary
from lmolt_utils.grammar.vocabulary import Vocabulary

LABELS = ("contradiction", "entailment", "neutral")

#: A property, and whether it is stated (True) or denied.
Literal = tuple[str, bool]
#: Two names that meet, one in the premise and the other in the hypothesis.
Combination = frozenset[str]

#: Properties that exclude each other, by the meaning of their names.
OPPOSITES: tuple[tuple[str, str], ...] = (
    ("inflammatory", "anti inflammatory"), ("stimulant", "sedative"), ("blood coagulant", "anti coagulant"),
    ("toxin", "nutrient"), ("flavouring agent", "warning agent"), ("apoptosis", "anti oxidant"),
    ("electroluminescent", "dielectric"), ("sweet", "sulfurous"),
)  # fmt: skip

SUBJECTS = ("The molecule", "It", "This molecule", "The compound")

#: What follows the subject to state a property. The forms of L+M-24 come first; the others teach that the verb does
#: not matter.
FACTS: dict[str, tuple[str, ...]] = {
    "role": (
        "is a {p}", "belongs to the {p} class of molecules", "is {p}", "acts as a {p}", "is known as a {p}",
        "can be called a {p}", "serves as {p}", "works as an {p}", "is used as a {p}", "is one of the {p} molecules",
        "is both a {p}",
    ),
    "effect": (
        "impacts {p}", "has an effect on {p}", "influences {p}", "acts on {p}", "is linked to {p}",
        "plays a part in {p}", "bears on {p}", "is used for {p}",
    ),
    "quality": ("is {p}", "smells {p}", "can be called {p}", "is known as {p}", "tastes {p}", "seems {p}"),
}  # fmt: skip
#: The same for denying one.
DENIALS: dict[str, tuple[str, ...]] = {
    "role": (
        "is not a {p}", "does not belong to the {p} class of molecules", "does not act as a {p}",
        "is not known as a {p}", "cannot be called a {p}", "is no {p}", "is not one of the {p} molecules",
        "has never served as {p}",
    ),
    "effect": (
        "does not impact {p}", "has not an effect on {p}", "is not linked to {p}", "plays no part in {p}",
        "never acts on {p}", "cannot influence {p}",
    ),
    "quality": ("is not {p}", "does not smell {p}", "is not known as {p}", "is never {p}", "cannot be called {p}"),
}  # fmt: skip
#: Never used in training: what the accuracy is measured on, as (statement, denial).
HELD_OUT_FACTS: dict[str, tuple[tuple[str, str], ...]] = {
    "role": (
        ("is a member of the {p} class", "is not a member of the {p} class"),
        ("counts among the {p} compounds", "does not count among the {p} compounds"),
        ("has the role of a {p}", "has not the role of a {p}"),
        ("was described as a {p}", "was never described as a {p}"),
    ),
    "effect": (
        ("affects {p}", "does not affect {p}"),
        ("has an impact on {p}", "has no impact on {p}"),
        ("modulates {p}", "does not modulate {p}"),
        ("changes the course of {p}", "cannot change the course of {p}"),
    ),
    "quality": (
        ("is characterized as {p}", "is not characterized as {p}"),
        ("has the characteristic of being {p}", "has not the characteristic of being {p}"),
        ("has a {p} odor", "has no {p} odor"),
        ("appears {p}", "never appears {p}"),
    ),
}

_NEGATIONS = ("not", "no", "never", "cannot", "does not", "is not", "has not", "is no", "was never")
_SMALL_WORDS = (
    *("a", "an", "the", "is", "are", "has", "of", "to", "in", "as", "on", "and"),
    *("that", "which", "it", "also", "with", "both", "by", "for", "from", "class", "molecule"),
)
_CONSONANTS, _VOWELS = "bcdfghklmnprstvwxz", "aeiouy"


@dataclass(frozen=True)
class Language:
    """What the pairs talk about: property names, their kinds, and captions in the plain forms."""

    names: Sequence[str]
    vocabulary: Vocabulary
    compose: Callable[[Sequence[str], random.Random], str]

    @classmethod
    def of(cls, names: Sequence[str], vocabulary: Vocabulary) -> "Language":
        """``names`` of ``vocabulary``, in the embedded captions' forms."""
        return cls(names, vocabulary, Composer(vocabulary, STYLES["plain"]).caption)

    def kind(self, name: str) -> str:
        """``role``, ``effect`` or ``quality``: the slot in which L+M-24 writes a property."""
        found = self.vocabulary.kinds.get(name, "role")
        return found if found in FACTS else "role"


EMBEDDED = Language.of(vocabulary(), Vocabulary.embedded())


def opposites_of(name: str) -> list[str]:
    """The properties that exclude ``name``."""
    return [b if name == a else a for a, b in OPPOSITES if name in (a, b)]


def label_of(premise: Iterable[Literal], hypothesis: Iterable[Literal]) -> str:
    """The label of two sets of literals."""
    held, asked = set(premise), list(hypothesis)
    for name, stated in asked:
        if (name, not stated) in held or (stated and any((other, True) in held for other in opposites_of(name))):
            return "contradiction"
    return "entailment" if set(asked) <= held else "neutral"


def withheld(property_sets: Sequence[Sequence[str]], language: Language = EMBEDDED) -> set[Combination]:
    """The pairs of properties kept out of training: every tenth of those that no property set holds, by a fixed seed.

    Opposites are not among them: what excludes what cannot be known without having been told.
    """
    together = {frozenset(pair) for names in property_sets for pair in combinations(sorted(names), 2)}
    together |= {frozenset(pair) for pair in OPPOSITES}
    apart = [frozenset(pair) for pair in combinations(language.names, 2) if frozenset(pair) not in together]
    return set(random.Random("nli withheld").sample(apart, len(apart) // 10))


def meetings(premise: Iterable[Literal], hypothesis: Iterable[Literal]) -> set[Combination]:
    """Every combination of a name of the premise with one of the hypothesis."""
    asked = list(hypothesis)
    return {frozenset((one, other)) for one, _ in premise for other, _ in asked}


@dataclass(frozen=True)
class Writer:
    """Puts literals into words in the forms of training: known ones and forms of invented words."""

    rng: random.Random
    language: Language = EMBEDDED

    def fact(self, literal: Literal, slot: str | None = None) -> str:
        """One sentence for one literal, in a known form of ``slot`` (default: the name's own)."""
        name, stated = literal
        form = self.rng.choice((FACTS if stated else DENIALS)[slot or self.language.kind(name)])
        return f"{self._subject()} {form.format(p=name)}."

    def strange_fact(self, literal: Literal) -> str:
        """The same in a form of invented and small words: whatever the verb, only the name and a negation count."""
        name, stated = literal
        before = self._filler(1, 3)
        if not stated:
            before.insert(self.rng.randint(0, len(before)), self.rng.choice(_NEGATIONS))
        after = self._filler(1, 2) if self.rng.random() < 0.3 else []
        return f"{self._subject()} {' '.join([*before, name, *after])}."

    def any_fact(self, literal: Literal, strange: float) -> str:
        """The one or the other; ``strange`` is the share of the second."""
        return self.strange_fact(literal) if self.rng.random() < strange else self.fact(literal)

    def two_facts(self, premise: Literal, hypothesis: Literal) -> tuple[str, str]:
        """Two facts to compare; some around invented names, so that comparing is learned and not a list of names."""
        if self.rng.random() >= 0.15 or hypothesis[0] in opposites_of(premise[0]):
            return self.any_fact(premise, 0.35), self.any_fact(hypothesis, 0.35)
        slot = self.rng.choice(tuple(FACTS))
        one = other = self.name()
        if hypothesis[0] != premise[0]:
            words = one.split()
            if self.rng.random() < 0.5:  # a look-alike: one word more, less or another
                place = self.rng.randrange(len(words))
                words[place : place + self.rng.randint(0, 1)] = [self.word()]
                other = " ".join(words)
            while other == one:
                other = self.name()
        return self.fact((one, premise[1]), slot), self.fact((other, hypothesis[1]), slot)

    def strange_caption(self, names: Sequence[str]) -> str:
        """One to three sentences that state every name, with invented words between them."""
        order = self.rng.sample(list(names), len(names))
        cuts = sorted(self.rng.sample(range(1, len(order)), min(self.rng.randint(0, 2), len(order) - 1)))
        sentences = []
        for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True):
            words = [self._subject(), *self._filler(1, 3), order[start]]
            for name in order[start + 1 : end]:
                roll = self.rng.random()
                if roll < 0.5:
                    words[-1] += ","
                words += [*(self._small(0, 3) if roll < 0.8 else self._filler(1, 3)), name]
            sentences.append(" ".join(words) + ".")
        return " ".join(sentences)

    def caption(self, literals: Sequence[Literal]) -> str:
        """Statements as a caption, denials as sentences before, after or instead of it."""
        stated = [name for name, yes in literals if yes]
        texts = []
        if stated:
            strange = self.rng.random() < 0.4
            texts.append(self.strange_caption(stated) if strange else self.language.compose(stated, self.rng))
        for denied in (literal for literal in literals if not literal[1]):
            sentence = self.any_fact(denied, 0.4)
            texts.insert(self.rng.randint(0, len(texts)), sentence)
        return " ".join(texts)

    def word(self) -> str:
        """An invented word."""
        syllables = self.rng.randint(1, 2)
        text = "".join(self.rng.choice(_CONSONANTS) + self.rng.choice(_VOWELS) for _ in range(syllables))
        return text + (self.rng.choice(_CONSONANTS) if self.rng.random() < 0.5 else "")

    def name(self) -> str:
        """An invented property name: one to three words, some of them words of known names."""
        words = [word for known in self.language.names for word in known.split()]
        return " ".join(
            self.rng.choice(words) if self.rng.random() < 0.4 else self.word() for _ in range(self.rng.randint(1, 3))
        )

    def _subject(self) -> str:
        return self.rng.choices(SUBJECTS, weights=(6, 3, 1, 1))[0]

    def _small(self, least: int, most: int) -> list[str]:
        return [self.rng.choice(_SMALL_WORDS) for _ in range(self.rng.randint(least, most))]

    def _filler(self, least: int, most: int) -> list[str]:
        """Small words around at least one invented one, so that it is none of the held-out forms."""
        words = [*self._small(0, most), *(self.word() for _ in range(self.rng.randint(least, 2)))]
        self.rng.shuffle(words)
        return words


def pairs(
    property_sets: Sequence[Sequence[str]], count: int, seed: int, language: Language = EMBEDDED
) -> Iterator[tuple[str, str, str]]:
    """``count`` triples (premise, hypothesis, label), labels about equally frequent."""
    return (row[:3] for row in drawn(property_sets, count, seed, language))


def drawn(
    property_sets: Sequence[Sequence[str]], count: int, seed: int, language: Language = EMBEDDED
) -> Iterator[tuple[str, str, str, list[Literal], list[Literal]]]:
    """The same with the literals of both texts.

    Half of the pairs compare two facts (what the atomic cross-NLI asks), the rest captions and facts or two captions
    (what sentence-level and full-text NLI ask).
    """
    rng = random.Random(f"nli:{seed}")
    source, writer = _Literals(rng, property_sets, language), Writer(rng, language)
    for index in range(count):
        wanted, roll = LABELS[index % 3], rng.random()
        if roll < 0.5:
            premise, hypothesis = source.facts(wanted)
            texts = writer.two_facts(premise[0], hypothesis[0])
        elif roll < 0.7:
            premise, hypothesis = source.caption_and_fact(wanted)
            asked = writer.any_fact(hypothesis[0], 0.4)
            texts = writer.caption(premise), asked
        else:
            premise, hypothesis = source.captions(wanted)
            texts = writer.caption(premise), writer.caption(hypothesis)
        yield *texts, wanted, premise, hypothesis


class _Literals:
    """Draws literals of a wanted label, without the withheld combinations."""

    def __init__(self, rng: random.Random, property_sets: Sequence[Sequence[str]], language: Language) -> None:
        self.rng = rng
        self.sets = [list(names) for names in property_sets]
        self.names = language.names
        self.withheld = withheld(property_sets, language)
        self.opposed = [name for name in self.names if opposites_of(name)]
        self.words = {name: name.split() for name in self.names}
        #: What may not be asked about a name as something else: its opposites and what is withheld from it.
        self.barred = {name: set(opposites_of(name)) for name in self.names}
        for combination in self.withheld:
            for name in combination:
                self.barred[name] |= combination

    def facts(self, wanted: str) -> tuple[list[Literal], list[Literal]]:
        rng = self.rng
        if wanted == "entailment":
            literal = rng.choice(self.names), rng.random() < 0.8
            return [literal], [literal]
        if wanted == "contradiction":
            if rng.random() < 0.25:
                name = rng.choice(self.opposed)
                return [(name, True)], [(rng.choice(opposites_of(name)), True)]
            name, stated = rng.choice(self.names), rng.random() < 0.6
            return [(name, stated)], [(name, not stated)]
        name = rng.choice(self.names)
        signs = rng.choices(((True, True), (True, False), (False, True), (False, False)), weights=(6, 2, 1, 1))[0]
        return [(name, signs[0])], [(self.other([name]), signs[1])]

    def caption_and_fact(self, wanted: str) -> tuple[list[Literal], list[Literal]]:
        while True:
            stated = self.stated()
            premise = [(name, True) for name in stated]
            if wanted == "neutral":
                return premise, [(self.other(stated), self.rng.random() < 0.75)]
            hypothesis = [self.reverse(stated) if wanted == "contradiction" else (self.rng.choice(stated), True)]
            if not meetings(premise, hypothesis) & self.withheld:
                return premise, hypothesis

    def captions(self, wanted: str) -> tuple[list[Literal], list[Literal]]:
        rng = self.rng
        while True:
            stated = self.stated()
            part = rng.sample(stated, rng.randint(1, len(stated)))
            premise = [(name, True) for name in stated]
            hypothesis = [(name, True) for name in part]
            if wanted == "contradiction":
                literal = self.reverse(stated)
                hypothesis = [other for other in hypothesis if other[0] != literal[0]] + [literal]
            elif wanted == "neutral":
                keep = rng.randint(0, len(part))
                other = self.other(stated), rng.random() < 0.85
                hypothesis = [*hypothesis[:keep], other]
            if not meetings(premise, hypothesis) & self.withheld and label_of(premise, hypothesis) == wanted:
                return premise, hypothesis

    def stated(self) -> list[str]:
        """A property set of the corpus or, as often, names that no molecule has together."""
        rng = self.rng
        while True:
            if rng.random() < 0.5:
                names = list(rng.choice(self.sets))
            else:
                names = rng.sample(self.names, rng.choice((1, 2, 2, 3, 3, 4, 5, 6, 8, 10)))
            literals = [(name, True) for name in names]
            if label_of(literals, literals) == "entailment":
                return names

    def reverse(self, stated: Sequence[str]) -> Literal:
        """A literal that the stated properties contradict: a denial, or the opposite where there is one."""
        opposed = [other for name in stated for other in opposites_of(name) if other not in stated]
        if opposed and self.rng.random() < 0.4:
            return self.rng.choice(opposed), True
        return self.rng.choice(stated), False

    def other(self, stated: Sequence[str]) -> str:
        """A property that is neither stated nor opposed nor withheld from a stated one; often a look-alike."""
        words = {word for name in stated for word in name.split()}
        barred = set(stated).union(*(self.barred[name] for name in stated))
        free = [name for name in self.names if name not in barred]
        alike = [name for name in free if not words.isdisjoint(self.words[name])]
        return self.rng.choice(alike if alike and self.rng.random() < 0.4 else free)
