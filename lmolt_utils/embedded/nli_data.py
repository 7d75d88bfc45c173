"""Sentence pairs with known labels, to train the embedded NLI cross-encoder on.

The property sets decide: a hypothesis is entailed when the premise states every one of its facts,
contradicted when it denies a stated fact (or states the opposite of one), neutral otherwise.
"""

import random
from collections.abc import Iterator, Sequence

from lmolt_utils.embedded.captions import compose
from lmolt_utils.embedded.rules import EFFECTS, QUALITIES

LABELS = ("contradiction", "entailment", "neutral")

#: Properties that exclude each other, by the meaning of their names.
OPPOSITES: tuple[tuple[str, str], ...] = (
    ("inflammatory", "anti inflammatory"),
    ("stimulant", "sedative"),
    ("blood coagulant", "anti coagulant"),
    ("toxin", "nutrient"),
    ("flavouring agent", "warning agent"),
    ("apoptosis", "anti oxidant"),
    ("electroluminescent", "dielectric"),
    ("sweet", "sulfurous"),
)

#: The forms of L+M-24 come first; the others teach that the verb does not matter and a negation does.
_FACT_FORMS = {
    "role": (
        "{s} is a {p}.",
        "{s} belongs to the {p} class of molecules.",
        "{s} is {p}.",
        "{s} acts as a {p}.",
        "{s} is known as a {p}.",
        "{s} can be called a {p}.",
        "{s} serves as {p}.",
    ),
    "effect": (
        "{s} impacts {p}.",
        "{s} has an effect on {p}.",
        "{s} influences {p}.",
        "{s} acts on {p}.",
        "{s} is linked to {p}.",
        "{s} plays a part in {p}.",
    ),
    "quality": ("{s} is {p}.", "{s} smells {p}.", "{s} can be called {p}.", "{s} is known as {p}."),
}
_DENIALS = {
    "role": (
        "{s} is not a {p}.",
        "{s} does not belong to the {p} class of molecules.",
        "{s} does not act as a {p}.",
        "{s} is not known as a {p}.",
    ),
    "effect": ("{s} does not impact {p}.", "{s} has not an effect on {p}.", "{s} is not linked to {p}."),
    "quality": ("{s} is not {p}.", "{s} does not smell {p}.", "{s} is not known as {p}."),
}
#: Never used in training: what the held-out accuracy is measured on.
UNSEEN_FORMS = {
    "role": "{s} is a member of the {p} class.",
    "effect": "{s} affects {p}.",
    "quality": "{s} is characterized as {p}.",
}


def kind(name: str) -> str:
    """``role``, ``effect`` or ``quality``: the slot L+M-24 writes a property in."""
    return "effect" if name in EFFECTS else "quality" if name in QUALITIES else "role"


def fact(name: str, rng: random.Random) -> str:
    """One property as one sentence, in one of the forms of L+M-24."""
    subject = rng.choice(("The molecule", "It"))
    return rng.choice(_FACT_FORMS[kind(name)]).format(s=subject, p=name)


def denial(name: str, rng: random.Random) -> str:
    """The sentence that denies a property."""
    return rng.choice(_DENIALS[kind(name)]).format(s=rng.choice(("The molecule", "It")), p=name)


def unseen_fact(name: str) -> str:
    """One property in the form kept out of training."""
    return UNSEEN_FORMS[kind(name)].format(s="The molecule", p=name)


def _opposites_of(name: str) -> list[str]:
    return [b if name == a else a for a, b in OPPOSITES if name in (a, b)]


def label_of(premise: Sequence[str], hypothesis: Sequence[str]) -> str:
    """The label of two sets of stated (not denied) properties."""
    stated = set(premise)
    if any(other in stated for name in hypothesis for other in _opposites_of(name)):
        return "contradiction"
    return "entailment" if set(hypothesis) <= stated else "neutral"


def pairs(property_sets: Sequence[Sequence[str]], count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """``count`` triples (premise, hypothesis, label), labels about equally frequent.

    Eight in ten pairs compare two facts (what the atomic cross-NLI asks), the rest compare captions and
    facts or two captions (what sentence-level and full-text NLI ask).
    """
    rng = random.Random(f"nli:{seed}")
    vocabulary = sorted({name for names in property_sets for name in names})
    for index in range(count):
        wanted = LABELS[index % 3]
        roll = rng.random()
        if roll < 0.8:
            yield _fact_pair(rng, vocabulary, wanted)
        elif roll < 0.9:
            yield _caption_fact_pair(rng, property_sets, vocabulary, wanted)
        else:
            yield _caption_pair(rng, property_sets, vocabulary, wanted)


def _other(rng: random.Random, vocabulary: Sequence[str], stated: Sequence[str]) -> str:
    """A property that is neither stated nor the opposite of a stated one; half the time a look-alike."""
    words = {word for name in stated for word in name.split()}
    alike = [name for name in vocabulary if words & set(name.split())]
    pool = [n for n in (alike if rng.random() < 0.5 else vocabulary) if label_of(stated, [n]) == "neutral"]
    return rng.choice(pool or [name for name in vocabulary if label_of(stated, [name]) == "neutral"])


def _against(rng: random.Random, stated: Sequence[str]) -> str:
    """A sentence that contradicts the stated properties: a denial, or the opposite where there is one."""
    name = rng.choice(list(stated))
    opposite = _opposites_of(name)
    return fact(rng.choice(opposite), rng) if opposite and rng.random() < 0.5 else denial(name, rng)


def _fact_pair(rng: random.Random, vocabulary: Sequence[str], wanted: str) -> tuple[str, str, str]:
    name = rng.choice(vocabulary)
    if wanted == "contradiction":
        with_opposite = [x for x in vocabulary if _opposites_of(x)]
        name = rng.choice(with_opposite) if with_opposite and rng.random() < 0.3 else name
        sentences = fact(name, rng), _against(rng, [name])
        return (*(sentences if rng.random() < 0.8 else (denial(name, rng), fact(name, rng))), wanted)
    if wanted == "entailment":
        if rng.random() < 0.1:
            return denial(name, rng), denial(name, rng), wanted
        return fact(name, rng), fact(name, rng), wanted
    other = _other(rng, vocabulary, [name])
    if rng.random() < 0.15:  # denying something else says nothing about the premise
        return fact(name, rng), denial(other, rng), wanted
    return fact(name, rng), fact(other, rng), wanted


def _caption_fact_pair(
    rng: random.Random, sets: Sequence[Sequence[str]], vocabulary: Sequence[str], wanted: str
) -> tuple[str, str, str]:
    stated = rng.choice(sets)
    premise = compose(stated, rng)
    if wanted == "contradiction":
        return premise, _against(rng, stated), wanted
    name = rng.choice(list(stated)) if wanted == "entailment" else _other(rng, vocabulary, stated)
    return premise, fact(name, rng), wanted


def _caption_pair(
    rng: random.Random, sets: Sequence[Sequence[str]], vocabulary: Sequence[str], wanted: str
) -> tuple[str, str, str]:
    stated = list(rng.choice(sets))
    part = rng.sample(stated, rng.randint(1, len(stated)))
    if wanted == "contradiction":
        return compose(stated, rng), f"{compose(part, rng)} {_against(rng, stated)}", wanted
    if wanted == "neutral":
        part = [*part[: max(1, len(part) - 1)], _other(rng, vocabulary, stated)]
    return compose(stated, rng), compose(part, rng), wanted
