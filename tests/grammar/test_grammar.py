"""The caption grammar in both directions: against real captions, real property sets, and text that is no caption."""

import gzip
import json
import os
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest

from lmolt_utils.cli import main
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.errors import DataError
from lmolt_utils.grammar.compose import LETTERS, Composer, filled, parts, sentences_of
from lmolt_utils.grammar.decompose import Atom, Decomposer, sentences
from lmolt_utils.grammar.forms import FREE_TEXT, STYLES
from lmolt_utils.grammar.vocabulary import Vocabulary, canonical

SHARED = Path(os.environ.get("LMOLT_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")) / "lpm24"
needs_lpm24 = pytest.mark.skipif(not SHARED.is_dir(), reason=f"L+M-24's public files are not in {SHARED}")

NAMES = Vocabulary.of(
    {
        **dict.fromkeys(["Emulsifier", "Nutrient", "inflammatory", "fat storage", "energy storage"], "role"),
        **dict.fromkeys(["anti inflammatory", "anti viral", "cancer treatment", "anti viral compound"], "class"),
        **dict.fromkeys(["tyrosine kinase inhibitor", "kinase inhibitor", "tnfα inhibitor", "rorγ modulator"], "role"),
        **dict.fromkeys(["Food and nutrition", "EC 1.6.3.1. [NAD(P)H oxidase (H2O2-forming)] inhibitor"], "role"),
        "EC 3.2.1.114 (mannosyl-oligosaccharide 1,3-1,6-alpha-mannosidase) inhibitor": "role",
        **dict.fromkeys(["D, l-2-hydroxygluraric aciduria", "Obesity", "Aging", "cancer", "breast cancer"], "effect"),
        **dict.fromkeys(["Hepatic and biliary malignancies", "Alzheimer's disease"], "effect"),
        **dict.fromkeys(["smooth", "cat", "pea", "low", "Odorless"], "quality"),
        **dict.fromkeys(FREE_TEXT, "free text"),
    }
)


DECOMPOSE = Decomposer(NAMES)


def explained(decompose: Decomposer, sentence: str) -> bool:
    return all(atom.property for atom in decompose(sentence))


@cache
def lpm24_vocabulary() -> Vocabulary:
    return Vocabulary.read(SHARED / "nested_props.json")


def lpm24_sets() -> Iterator[tuple[str, frozenset[str]]]:
    with gzip.open(SHARED / "molecule_properties.tsv.gz", "rt", encoding="utf-8") as handle:
        next(handle)
        for line in handle:
            molecule, names = line.rstrip("\n").split("\t")
            yield molecule, frozenset(map(canonical, names.split("|")))


@cache
def gold() -> list[tuple[str, frozenset[str]]]:
    """The 199 example captions with the property sets of their molecules."""
    rows = [line.split("\t") for line in (SHARED / "smiles2caption_example.tsv").read_text("utf-8").splitlines()[1:]]
    wanted = {row[0] for row in rows}
    sets = {molecule: names for molecule, names in lpm24_sets() if molecule in wanted}
    return [(row[1], sets[row[0]]) for row in rows]


# ---- one grammar ----


def test_the_embedded_corpus_is_what_the_embedded_models_were_trained_on() -> None:
    # The digest of the corpus as it was before the grammar replaced its composer.
    text = generate(1000, 0).to_csv()
    assert sha256(text.encode()).hexdigest() == "b3c1e99a181ca411196cdeba4691f7bbbbbb36b00a08feb62bc50cc66738bc3e"


@pytest.mark.parametrize("style", STYLES)
def test_composed_captions_are_decomposed_to_the_same_set(style: str) -> None:
    """A seeded sample of sets from the shipped vocabulary and of awkward names, several captions each."""
    rng = random.Random(24)
    for vocabulary, count in ((Vocabulary.embedded(), 500), (NAMES, 250)):
        names, decompose = sorted(vocabulary.kinds), Decomposer(vocabulary)
        composer = Composer(vocabulary, STYLES[style])
        for _ in range(count):
            properties = set(rng.sample(names, rng.choice((1, 2, 3, 5, 8, 13, 18))))
            for _ in range(2):
                caption = composer.compose(properties, rng)
                assert decompose.properties(caption) == properties, caption
                assert explained(decompose, caption), caption


@needs_lpm24
def test_every_property_set_of_lpm24_survives_the_round_trip() -> None:
    """Each distinct set of the 160,560 molecules, and each of the 3,427 names alone and in company."""
    vocabulary, rng = lpm24_vocabulary(), random.Random(0)
    composer, decompose, names = Composer(vocabulary), Decomposer(vocabulary), sorted(vocabulary.kinds)
    rows = [properties for _, properties in lpm24_sets()]
    assert (len(rows), len(names)) == (160_560, 3427)
    sets = [*dict.fromkeys(rows)]
    sets += [frozenset({name, *company}) for name in names for company in ([], rng.sample(names, 3))]
    captions = [composer.compose(properties, rng) for properties in sets]
    assert [text for text, stated in zip(captions, sets, strict=True) if decompose.properties(text) != stated] == []


# ---- composing ----


def test_captions_depend_on_the_set_and_the_seed_only() -> None:
    names, compose = ["aging", "Emulsifier", "obesity", "smooth", "nutrient"], Composer(NAMES).compose
    first = compose(names, random.Random(3))
    assert compose([*names[::-1], "AGING"], random.Random(3)) == first
    assert compose(names, random.Random(4)) != first


def test_kinds_decide_the_slot() -> None:
    compose = Composer(NAMES).compose
    assert compose(["odor_evaluation", "taste_evaluation"], random.Random(0)).startswith("The molecule has both a ")
    for seed in range(20):
        caption = compose(["obesity", "nutrient", "smooth"], random.Random(seed))
        for slot in ("(impacts|on|impacting|affect) obesity", "(is|being|as) smooth", "(a|is) nutrient"):
            assert re.search(slot, caption)


def test_sets_are_halved_as_in_real_captions() -> None:
    """The sizes of every real caption with so many properties (the gold captions below)."""
    for sizes in ([1], [6], [3, 4], [4, 4], [5, 5], [6, 3, 4], [4, 5, 4, 5]):
        assert [len(part) for part in parts(["x"] * sum(sizes))] == sizes


KINDS = Vocabulary.of({f"{kind} number {place}": kind for kind in LETTERS for place in range(6)})


def test_three_roles_and_two_effects_are_always_said_alike() -> None:
    names = [*(f"role number {place}" for place in range(3)), "effect number 0", "effect number 1"]
    form = r"The molecule is a role [\w ]+, role [\w ]+, role [\w ]+ that impacts effect \w+ \d and effect \w+ \d\."
    captions = {Composer(KINDS).compose(names, random.Random(seed)) for seed in range(200)}
    assert all(re.fullmatch(form, caption) for caption in captions)
    assert len(captions) == 12  # every order of the roles and of the effects


def test_every_sentence_is_read_back() -> None:
    decompose, kinds = Decomposer(KINDS), {letter: kind for kind, letter in LETTERS.items()}
    assert sum(len(texts) for texts, _ in sentences_of().values()) == 108
    for letters, (texts, _) in sentences_of().items():
        names = [f"{kinds[letter]} number {letters[:place].count(letter)}" for place, letter in enumerate(letters)]
        for text in texts:
            sentence = filled(text, names, letters)
            assert decompose.properties(sentence) == set(names), sentence
            assert explained(decompose, sentence), sentence


# ---- decomposing ----

#: Captions, each followed by the names that it states.
BY_HAND = """
# Rare lists and class phrases (those of sentences.tsv are read back above).
The molecule is a nutrient and emulsifier, belonging to the anti viral class of molecules, with effects on aging and
impacts on both cancer and obesity.
= nutrient|emulsifier|anti viral|aging|cancer|obesity
The molecule is a nutrient, emulsifier, and anti viral compound.
= nutrient|emulsifier|anti viral compound
The molecule is a cancer treatment, nutrient, and emulsifier compound.
= cancer treatment|nutrient|emulsifier
It impacts aging, or obesity, as well as cancer.
= aging|obesity|cancer

# Names that hold other names, commas, "and", full stops, brackets; Greek letters lost by T5.
The molecule is a food and nutrition and nutrient.
= food and nutrition|nutrient
It impacts D, l-2-hydroxygluraric aciduria, hepatic and biliary malignancies, and Alzheimer's disease.
= d, l-2-hydroxygluraric aciduria|hepatic and biliary malignancies|alzheimer's disease
The molecule is a EC 1.6.3.1. [NAD(P)H oxidase (H2O2-forming)] inhibitor and is smooth. It impacts aging.
= ec 1.6.3.1. [nad(p)h oxidase (h2o2-forming)] inhibitor|smooth|aging
The molecule is a ec 3.2.1.114 (mannosyl-oligosaccharide 1,3-1,6-alpha-mannosidase) inhibitor, nutrient.
= ec 3.2.1.114 (mannosyl-oligosaccharide 1,3-1,6-alpha-mannosidase) inhibitor|nutrient
The molecule is a tnf inhibitor and a ror modulator.
= tnfα inhibitor|rorγ modulator

# Free text.
The molecule has both a Bitter and unpleasant taste and a Pleasant odor.
= taste_evaluation|odor_evaluation
The molecule has Odorless.
= odor_evaluation
The molecule is a nutrient with a Sweet, pungent odor.
= nutrient|odor_evaluation
When heated to decomposition it emits toxic fumes of nitrogen oxides. The molecule is odorless.
= decomposition_evaluation|odorless

# Repeats, glue, cuts, lost subjects.
It impacts aging, impacting both obesity and obesity.
= aging|obesity
The molecule is a nutrient.the molecule is a emulsifier.It impacts aging
= nutrient|emulsifier|aging
The molecule is a nutrient, fat storage, energy storage that impactsyes
= nutrient|fat storage|energy storage
The molecule is a nutrient that impacts aging and brea
= nutrient|aging
Nutrient, fat storage that impacts aging and obesity.
= nutrient|fat storage|aging|obesity
"""


def test_captions_by_hand() -> None:
    captions = re.findall(r"([^=]+?)\n= (.+)\n", re.sub(r"(?m)^#.*\n", "", BY_HAND))
    assert len(captions) == 18
    for caption, names in captions:
        assert DECOMPOSE.properties(caption) == set(names.split("|")), caption
    for nothing in ("The molecule is a", ""):
        assert DECOMPOSE.properties(nothing) == set()


def test_atoms_keep_text_name_and_verb() -> None:
    atoms = DECOMPOSE("The molecule is a Emulsifier and belongs to the anti viral class of molecules, affecting aging.")
    assert atoms == [
        Atom("The molecule is a Emulsifier.", "emulsifier", "is"),
        Atom("The molecule belongs to the anti viral class of molecules.", "anti viral", "belongs to"),
        Atom("The molecule affects aging.", "aging", "affects"),
    ]
    assert [DECOMPOSE.canonical(atom) for atom in atoms] == [
        "The molecule is a emulsifier.",
        "The molecule is a anti viral.",
        "The molecule impacts aging.",
    ]


def test_one_hazard_may_span_sentences_and_two_are_two() -> None:
    one = "When heated to decomposition it emits fumes of bromine. Keep away from acids. bromides/"
    atoms = DECOMPOSE(f"{one} The molecule is a nutrient.")
    assert [(atom.text, atom.property) for atom in atoms] == [
        (one, "decomposition_evaluation"),
        ("The molecule is a nutrient.", "nutrient"),
    ]
    two = DECOMPOSE("Will polymerize when hot. When heated to decomposition it emits acrid smoke.")
    assert [atom.property for atom in two] == ["polymerization_evaluation", "decomposition_evaluation"]


def test_of_two_quotes_one_is_the_odour_and_one_the_taste() -> None:
    odour, taste = "odor_evaluation", "taste_evaluation"
    for text, senses in (
        ("both a Oily ham and a Sweet clover odor", [taste, odour]),
        ("both a Powerful, citrus odor and a Grapefruit and bitter", [odour, taste]),
        ("both a Odorless and a Tasteless", [odour, taste]),
    ):
        assert [atom.property for atom in DECOMPOSE(f"The molecule has {text}.")] == senses
        none = Decomposer(Vocabulary.from_names(["nutrient"]))(f"The molecule has {text}.")
        assert {atom.property for atom in none} == {None}, "the vocabulary has no quotes"


def test_unknown_names_need_the_open_vocabulary() -> None:
    caption = "The molecule is a widget polisher and impacts dry eye syndrome, aging."
    assert DECOMPOSE.properties(caption) == {"aging"}
    told = {"widget polisher", "dry eye syndrome", "aging"}
    assert Decomposer(NAMES, open_vocabulary=True).properties(caption) == told
    assert DECOMPOSE(caption)[0] == Atom("The molecule is a widget polisher.", None, "is")


def test_what_is_no_caption_has_facts_but_no_properties() -> None:
    start = time.perf_counter()
    for text in (
        "CC(=O)Oc1ccccc1C(=O)O",
        "<html><body><p>The molecule is <b>smooth</b> and has a low odor.</p></body></html>",
        "Das Molekül ist ein Nährstoff, wirkt auf Krebs und riecht nach cat, pea und low.",
        "The low cat ate a pea. It is low. It has a role as a cat and belongs here. " * 600,
        "It was heated in a fire, and toxic gases that emit fumes polymerize. " * 200,
        *("( " * 5_000, "that impacts " * 2_000, ", and a " * 2_000, "\x00\ud800 \n\t"),
    ):
        for decompose in (DECOMPOSE, Decomposer(NAMES, open_vocabulary=True)):
            atoms = decompose(text)
            assert {atom.property for atom in atoms} == {None}, text[:40]  # and never silently nothing
    assert time.perf_counter() - start < 30, "no pattern is quadratic"


# ---- real captions ----


@needs_lpm24
@pytest.mark.parametrize("known", [True, False], ids=["property tree", "no vocabulary"])
def test_gold_captions_give_the_exact_property_sets(known: bool) -> None:
    decompose = Decomposer(lpm24_vocabulary()) if known else Decomposer(open_vocabulary=True)
    wrong = [caption for caption, properties in gold() if decompose.properties(caption) != properties]
    assert len(gold()) == 199
    assert wrong == []
    found = defaultdict(set)
    for caption, _ in gold():
        sizes = [len(decompose.properties(sentence)) for sentence in sentences(caption)]
        found[sum(sizes)].add(tuple(sizes))
    for count in (6, 7, 8, 10, 13, 18):
        assert found[count] == {tuple(len(part) for part in parts(["x"] * count))}


@needs_lpm24
def test_sentences_of_the_submissions_are_explained() -> None:
    decompose = Decomposer(lpm24_vocabulary())
    for system in ("dimitris", "langmolecules_Meditron", "langmolecules_MolT5-Large"):
        packed = (SHARED / f"submission_captioning_{system}.txt.gz").read_bytes()
        captions = gzip.decompress(packed).decode("utf-8").splitlines()
        counts = Counter(sentence for caption in captions for sentence in sentences(caption))
        assert len(captions) == 21_942
        known = sum(count for sentence, count in counts.items() if explained(decompose, sentence))
        assert known / counts.total() > 0.99


# ---- vocabulary, command ----


def test_vocabularies_from_tree_counts_and_list(tmp_path: Path) -> None:
    tree = {"Biomedical": ["drug", {"antis": ["Anti Viral"], "disease": ["Gout"]}], "x": {"cancer": {"Lung": 3}}}
    path = tmp_path / "tree.json"
    path.write_text(json.dumps(tree), "utf-8")
    found = {"drug": "role", "anti viral": "class", "gout": "effect", "lung": "effect"}
    assert Vocabulary.read(path).kinds == found
    path.write_text("\ufeffNutrient\r\n\r\nBarth  syndrome\n", "utf-8")
    assert Vocabulary.read(path).kinds == {"nutrient": "role", "barth syndrome": "effect"}
    assert Vocabulary.embedded().kind("aging") == "effect"
    assert Vocabulary.embedded().kind("smooth") == "quality"
    for content, told in {"": "no names", '{"a": [1.5]}': "holds 1.5"}.items():
        path.write_text(content)
        with pytest.raises(DataError, match=rf"{path} cannot be read .*{told}"):
            Vocabulary.read(path)


def test_molecules_are_no_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("CCO\nc1ccccc1\n\n")
    assert main(["atoms", str(path)]) == 2
    assert "2 of 3 captions are SMILES, the first in row 1: give captions" in capsys.readouterr().err
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"golden": "It is sweet.", "generated": "CCO"}\n')
    assert main(["nli", str(pairs)]) == 2
    assert "1 of 1 captions are SMILES" in capsys.readouterr().err
    path.write_text("Sweet\nCCO\n")
    assert main(["atoms", str(path)]) == 0, "one wrong row stops no file"
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "note: 1 of 2 captions are SMILES, the first in row 2" in err


def test_abbreviations_end_no_sentence() -> None:
    whole = ["It is used against St. Louis fever.", "Dr. Smith and sp. Nova agree, e.g. Ann vs. Bob."]
    assert sentences(" ".join(whole)) == whole
    assert sentences("It has vitamin C. Isolated from oil. Used as St. Johns wort.") == [
        *("It has vitamin C.", "Isolated from oil.", "Used as St. Johns wort.")
    ]
