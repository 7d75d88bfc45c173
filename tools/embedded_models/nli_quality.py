"""How good the embedded cross-encoder is: accuracy per kind of pair, on pairs kept out of its training.

Both texts of a held-out pair are written in forms that no training text is written in, and the properties it compares
meet in a pair that no training example has (:func:`~tools.embedded_models.nli_data.withheld`). Two exceptions, told in
training in other forms: opposites (:data:`TOLD`), and a property beside itself (:data:`ITSELF`).
"""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import pandas as pd

from lmolt_utils.grammar import forms
from lmolt_utils.grammar.compose import ComposeError, Composer
from lmolt_utils.grammar.decompose import Atom, Decomposer
from lmolt_utils.grammar.forms import Form, Style
from lmolt_utils.metrics.intervals import wilson
from lmolt_utils.nli.classifier import LABELS, Classifier
from tools.embedded_models.nli_data import EMBEDDED, FACTS, HELD_OUT_FACTS, Literal, label_of, opposites_of, withheld

#: Pairs per kind: an accuracy of 0.97 is then known to 0.02.
PAIRS_PER_KIND = 400
#: The row of all kinds together.
HELD_OUT = "all held-out pairs"
NAMES = EMBEDDED.names


def seen_forms() -> frozenset[Form]:
    """The forms of L+M-24 that training texts are written in: the plain ones, those of single facts, and one that two
    plain ones amount to (a role and a quality)."""
    facts = {text.format(p="{0}") for texts in FACTS.values() for text in texts} | {"is a {0} and is {1}"}
    all_forms = (
        *(*forms.ROLES, *forms.EFFECTS_ALONE, *forms.EFFECTS_AFTER_ROLES, *forms.EFFECTS_AFTER_QUALITIES),
        *(*forms.QUALITIES_ALONE, *forms.QUALITIES_AFTER_ROLES, *forms.QUALITIES_AFTER_EFFECTS),
    )
    return frozenset(form for form in all_forms if form.plain or form.text in facts)


#: What a premise and what a hypothesis state and deny.
Literals = tuple[list[Literal], list[Literal]]


class HeldOutPair(NamedTuple):
    """Two texts, what they state and deny, and the label that follows."""

    kind: str
    premise: str
    hypothesis: str
    label: str
    literals: Literals


class _HeldOut:
    """Draws literals with a withheld combination, always the same ones, and writes them in held-out forms."""

    def __init__(self, property_sets: Sequence[Sequence[str]]) -> None:
        self.rng = random.Random("nli held out")
        self.apart = sorted((min(names), max(names)) for names in withheld(property_sets))
        self.alike = [names for names in self.apart if set(names[0].split()) & set(names[1].split())]
        self.opposed = [name for name in NAMES if opposites_of(name)]
        self.composer = Composer(EMBEDDED.vocabulary, Style(without=seen_forms()))

    def one(self, signs: Sequence[tuple[bool, bool]]) -> Literals:
        name = self.rng.choice(NAMES)
        before, after = self.rng.choice(signs)
        return [(name, before)], [(name, after)]

    def two(self, signs: Sequence[tuple[bool, bool]], choices: Sequence[tuple[str, str]]) -> Literals:
        first, second = self.rng.sample(self.rng.choice(choices), 2)
        before, after = self.rng.choice(signs)
        return [(first, before)], [(second, after)]

    def opposite(self) -> Literals:
        name = self.rng.choice(self.opposed)
        return [(name, True)], [(self.rng.choice(opposites_of(name)), True)]

    def listed(self, asked: str) -> Literals:
        """A caption that states two properties withheld from each other, and what is asked of the second."""
        first, second = self.rng.sample(self.rng.choice(self.apart), 2)
        if asked == "missing":
            return self._without(first, second), [(second, True)]
        if asked == "opposed":
            name = self.rng.choice(self.opposed)
            return self._mixed(self._caption([name])), [(self.rng.choice(opposites_of(name)), True)]
        return self._caption([first, second]), [(second, asked == "contained")]

    def lists(self, asked: str) -> Literals:
        """Two captions, likewise."""
        first, second = self.rng.sample(self.rng.choice(self.apart), 2)
        if asked == "longer":
            premise = self._without(first, second)
            return premise, self._mixed([*premise, (second, True)])
        if asked == "one other":
            premise = self._without(first, second, least=2)
            return premise, self._mixed([*self._some(premise, len(premise) - 1), (second, True)])
        premise = self._caption([first, second])
        rest = [literal for literal in premise if literal[0] != second]
        part = self._some(rest, len(rest)) if self.rng.random() < 0.8 else []
        return premise, self._mixed([*part, (second, asked == "contained")])

    def _caption(self, names: Sequence[str], least: int = 1) -> list[Literal]:
        """``names`` and up to eight more, none of them opposites."""
        while True:
            more = self.rng.sample(NAMES, self.rng.randint(max(0, least - len(names)), 8))
            literals = [(name, True) for name in dict.fromkeys([*names, *more])]
            if len(literals) >= least and label_of(literals, literals) == "entailment":
                return literals

    def _without(self, first: str, second: str, least: int = 1) -> list[Literal]:
        """A caption with ``first`` of which ``second`` is independent."""
        while True:
            literals = self._caption([first], least)
            if label_of(literals, [(second, True)]) == "neutral":
                return literals

    def _some(self, literals: Sequence[Literal], most: int) -> list[Literal]:
        return self.rng.sample(list(literals), self.rng.randint(1, max(1, most)))

    def _mixed(self, literals: Sequence[Literal]) -> list[Literal]:
        return self.rng.sample(list(literals), len(literals))

    def text(self, literals: Sequence[Literal]) -> str:
        """A caption of what is stated, and a sentence for each denial at any place."""
        names = [name for name, stated in literals if stated]
        texts = [self._stated(names)] if names else []
        for name, stated in literals:
            if not stated:
                texts.insert(self.rng.randint(0, len(texts)), self._fact(name, stated=False))
        return " ".join(texts)

    def _stated(self, names: Sequence[str]) -> str:
        for _ in range(20 if len(names) > 1 else 0):
            try:
                return self.composer.caption(names, self.rng)
            except ComposeError:  # another order or other sentences may do without the forms of training
                continue
        return " ".join(self._fact(name, stated=True) for name in names)

    def _fact(self, name: str, *, stated: bool) -> str:
        statement, denial = self.rng.choice(HELD_OUT_FACTS[EMBEDDED.kind(name)])
        subject = self.rng.choice(("The molecule", "It"))
        return f"{subject} {(statement if stated else denial).format(p=name)}."


_STATED = ((True, True),)
#: What is compared. Facts are single sentences with one property, lists are captions of up to ten.
KINDS: dict[str, Callable[[_HeldOut], Literals]] = {
    "identical fact": lambda draw: draw.one(_STATED),
    "denied twice": lambda draw: draw.one(((False, False),)),
    "negated fact": lambda draw: draw.one(((True, False), (False, True))),
    "opposite property": lambda draw: draw.opposite(),
    "unrelated fact": lambda draw: draw.two(_STATED, draw.apart),
    "look-alike fact": lambda draw: draw.two(_STATED, draw.alike),
    "unrelated denial": lambda draw: draw.two(((True, False), (False, True), (False, False)), draw.apart),
    "fact in list": lambda draw: draw.listed("contained"),
    "fact not in list": lambda draw: draw.listed("missing"),
    "list and denial": lambda draw: draw.listed("denied"),
    "list and opposite": lambda draw: draw.listed("opposed"),
    "contained list": lambda draw: draw.lists("contained"),
    "list with one other": lambda draw: draw.lists("one other"),
    "longer list": lambda draw: draw.lists("longer"),
    "contradictory list": lambda draw: draw.lists("denied"),
}
#: Kinds whose combinations training has to tell.
TOLD = ("opposite property", "list and opposite")
#: Kinds that compare a name with itself: held out by their forms alone.
ITSELF = ("identical fact", "denied twice", "negated fact")


def held_out_pairs(property_sets: Sequence[Sequence[str]], per_kind: int = PAIRS_PER_KIND) -> Iterator[HeldOutPair]:
    """``per_kind`` pairs of each of :data:`KINDS`; ``property_sets``: those of the training split."""
    draw = _HeldOut(property_sets)
    for kind, literals in KINDS.items():
        for _ in range(per_kind):
            premise, hypothesis = literals(draw)
            label = label_of(premise, hypothesis)
            yield HeldOutPair(kind, draw.text(premise), draw.text(hypothesis), label, (premise, hypothesis))


def nli_quality(reference: str, property_sets: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Accuracy of a model per kind of held-out pair, and over all of them (:data:`HELD_OUT`).

    Columns pairs, accuracy, low and high (Wilson's 95 % interval).
    """
    asked = pd.DataFrame(held_out_pairs(property_sets))
    right = _right(reference, asked)
    rows = {kind: _rated(right[asked["kind"] == kind]) for kind in KINDS}
    return pd.DataFrame(rows | {HELD_OUT: _rated(right)}).T


def atoms_quality(reference: str) -> pd.DataFrame:
    """The same on what atomic cross-NLI asks: every two properties as canonical atoms, in L+M-24's own forms."""
    decomposer = Decomposer(EMBEDDED.vocabulary)
    atoms = {name: decomposer.canonical(Atom(name, name, "is")) for name in NAMES}
    pairs = [(atoms[a], atoms[b], label_of([(a, True)], [(b, True)])) for a, b in product(NAMES, NAMES)]
    asked = pd.DataFrame(pairs, columns=["premise", "hypothesis", "label"])
    right = _right(reference, asked)
    kinds = {"same atom": "entailment", "opposite atoms": "contradiction", "other atoms": "neutral"}
    return pd.DataFrame({kind: _rated(right[asked["label"] == label]) for kind, label in kinds.items()}).T


def _right(reference: str, asked: pd.DataFrame) -> pd.Series:
    classifier = Classifier(reference, batch_tokens=8192)
    answers = classifier.probabilities(list(asked["premise"]), list(asked["hypothesis"]), progress=False)
    return pd.Series(answers[list(LABELS)].idxmax(axis=1).to_numpy() == asked["label"].to_numpy())


def _rated(right: pd.Series) -> dict[str, float]:
    low, high = wilson(float(right.mean()), len(right))
    return {"pairs": len(right), "accuracy": float(right.mean()), "low": low, "high": high}
