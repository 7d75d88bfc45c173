"""L+M-24's own sentences: how a property set is divided, and what each part becomes."""

import random
import re
from collections import defaultdict

import pytest

from lmolt_utils.grammar.compose import Composer
from lmolt_utils.grammar.decompose import Decomposer, sentences
from lmolt_utils.grammar.sentences import SENTENCES, filled, parts, signature
from lmolt_utils.grammar.vocabulary import Vocabulary
from tests.grammar.test_grammar import gold, lpm24_vocabulary, needs_lpm24

KINDS = {
    **dict.fromkeys(("nutrient", "emulsifier", "surfactant", "fat storage", "food additive", "apoptosis"), "role"),
    **dict.fromkeys(("aging", "obesity", "gout", "cancer", "seizure", "tangier disease"), "effect"),
    **dict.fromkeys(("anti viral", "cancer treatment", "anti fungal", "fluorescent"), "class"),
    **dict.fromkeys(("smooth", "nutty", "sweet"), "quality"),
}
VOCABULARY = Vocabulary.of(KINDS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(1, [1]), (6, [6]), (7, [3, 4]), (8, [4, 4]), (10, [5, 5]), (13, [6, 3, 4]), (18, [4, 5, 4, 5])],
)
def test_sets_are_halved_as_in_real_captions(count: int, sizes: list[int]) -> None:
    """The sizes of every real caption with so many properties (next test)."""
    assert [len(part) for part in parts(["x"] * count)] == sizes


@needs_lpm24
def test_real_captions_are_divided_so() -> None:
    decompose, found = Decomposer(lpm24_vocabulary()), defaultdict(set)
    for caption, _ in gold():
        sizes = [len(decompose.properties(sentence)) for sentence in sentences(caption)]
        found[sum(sizes)].add(tuple(sizes))
    for count in (6, 7, 8, 10, 13, 18):
        assert found[count] == {tuple(len(part) for part in parts(["x"] * count))}


def test_three_roles_and_two_effects_are_always_said_alike() -> None:
    names = ["nutrient", "emulsifier", "surfactant", "aging", "obesity"]
    composer, form = Composer(VOCABULARY), r"The molecule is a [\w ]+, [\w ]+, [\w ]+ that impacts \w+ and \w+\."
    captions = {composer.compose(names, random.Random(seed)) for seed in range(200)}
    assert all(re.fullmatch(form, caption) for caption in captions)
    assert len(captions) == 12  # every order of the roles and of the effects


def test_every_sentence_is_read_back() -> None:
    decompose = Decomposer(VOCABULARY)
    letters = {"R": "role", "C": "class", "E": "effect", "Q": "quality"}
    names = {letter: [name for name, kind in KINDS.items() if kind == wanted] for letter, wanted in letters.items()}
    for key, (texts, _) in SENTENCES.items():
        for text in texts:
            used = {letter: names[letter][: key.count(letter)] for letter in letters}
            sentence = filled(text, used)
            assert decompose.properties(sentence) == {name for own in used.values() for name in own}, sentence
            assert decompose.parsed(sentence), sentence


def test_a_signature_has_no_order() -> None:
    assert signature("ERRE") == signature("REER") == "RREE"
