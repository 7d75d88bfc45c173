"""The caption grammar in both directions: against real captions, real property sets, and text that is no caption."""

import gzip
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest

from lmolt_utils.embedded.corpus import generate
from lmolt_utils.grammar.compose import Composer, compose
from lmolt_utils.grammar.decompose import Atom, Decomposer, sentences
from lmolt_utils.grammar.forms import FREE_TEXT, STYLES
from lmolt_utils.grammar.vocabulary import Vocabulary, VocabularyError, canonical

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


@pytest.fixture(scope="module")
def decompose() -> Decomposer:
    return Decomposer(NAMES)


@cache
def lpm24_vocabulary() -> Vocabulary:
    return Vocabulary.read(SHARED / "nested_props.json")


def lpm24_sets() -> Iterator[tuple[str, frozenset[str]]]:
    with gzip.open(SHARED / "molecule_properties.tsv.gz", "rt", encoding="utf-8") as handle:
        next(handle)
        for line in handle:
            molecule, names = line.rstrip("\n").split("\t")
            yield molecule, frozenset(map(canonical, names.split("|")))


# ---- one grammar ----


def test_the_embedded_corpus_is_what_the_embedded_models_were_trained_on() -> None:
    # The digest of the corpus as it was before the grammar replaced its composer.
    text = generate(1000, 0).to_csv()
    assert sha256(text.encode()).hexdigest() == "b3c1e99a181ca411196cdeba4691f7bbbbbb36b00a08feb62bc50cc66738bc3e"


@pytest.mark.parametrize("style", STYLES)
def test_composed_captions_are_decomposed_to_the_same_set(style: str) -> None:
    """A seeded sample of sets from the shipped vocabulary and of awkward names, several captions each."""
    rng = random.Random(24)
    for vocabulary, count in ((Vocabulary.embedded(), 2_000), (NAMES, 500)):
        names, decompose = sorted(vocabulary.kinds), Decomposer(vocabulary)
        composer = Composer(vocabulary, STYLES[style])
        for _ in range(count):
            properties = set(rng.sample(names, rng.choice((1, 2, 3, 5, 8, 13, 18))))
            for _ in range(2):
                caption = composer.compose(properties, rng)
                assert decompose.properties(caption) == properties, caption
                assert all(map(decompose.parsed, sentences(caption))), caption


@needs_lpm24
def test_every_property_set_of_lpm24_survives_the_round_trip() -> None:
    """Each distinct set, 50,000 of the 160,560 molecules, and each of the 3,427 names alone and in company."""
    vocabulary, rng = lpm24_vocabulary(), random.Random(0)
    composer, decompose, names = Composer(vocabulary), Decomposer(vocabulary), sorted(vocabulary.kinds)
    rows = [properties for _, properties in lpm24_sets()]
    assert (len(rows), len(names)) == (160_560, 3427)
    sets = [*dict.fromkeys(rows), *rng.sample(rows, 50_000)]
    sets += [frozenset({name, *company}) for name in names for company in ([], rng.sample(names, 3))]
    captions = [composer.compose(properties, rng) for properties in sets]
    assert [text for text, stated in zip(captions, sets, strict=True) if decompose.properties(text) != stated] == []


# ---- composing ----


def test_captions_depend_on_the_set_and_the_seed_only() -> None:
    names = ["aging", "Emulsifier", "obesity", "smooth", "nutrient"]
    first = compose(names, random.Random(3), vocabulary=NAMES)
    assert compose([*names[::-1], "AGING"], random.Random(3), vocabulary=NAMES) == first
    assert compose(names, random.Random(4), vocabulary=NAMES) != first


def test_kinds_decide_the_slot() -> None:
    both = compose(["odor_evaluation", "taste_evaluation"], random.Random(0), vocabulary=NAMES)
    assert both.startswith("The molecule has both a ")
    for seed in range(20):
        caption = compose(["obesity", "nutrient", "smooth"], random.Random(seed), vocabulary=NAMES)
        assert any(f"{head} obesity" in caption for head in ("impacts", "on", "impacting", "affect"))
        assert any(f"{head} smooth" in caption for head in ("is", "being", "as"))
        assert "a nutrient" in caption or "is nutrient" in caption


# ---- decomposing ----

#: Captions, each followed by the names that it states.
BY_HAND = """
# Lists, articles, "both", comma splices, class phrases: sentences as in L+M-24.
The molecule is a nutrient, fat storage, emulsifier that impacts aging and obesity.
= nutrient|fat storage|emulsifier|aging|obesity
The molecule is a nutrient, a emulsifier, a fat storage, and smooth.
= nutrient|emulsifier|fat storage|smooth
The molecule is a nutrient, a emulsifier, and a fat storage, it impacts aging and is smooth.
= nutrient|emulsifier|fat storage|aging|smooth
The molecule is both a kinase inhibitor and a tyrosine kinase inhibitor.
= kinase inhibitor|tyrosine kinase inhibitor
The molecule is a anti inflammatory member of the anti viral class.
= anti inflammatory|anti viral
It belongs to both the anti viral and anti inflammatory classes of molecules.
= anti viral|anti inflammatory
The molecule is a nutrient and belongs to the anti viral class of molecules, with the characteristic of being anti
inflammatory.
= nutrient|anti viral|anti inflammatory
It influences both aging and cancer, as well as affecting obesity and breast cancer.
= aging|cancer|obesity|breast cancer
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


def test_captions_by_hand(decompose: Decomposer) -> None:
    captions = re.findall(r"([^=]+?)\n= (.+)\n", re.sub(r"(?m)^#.*\n", "", BY_HAND))
    assert len(captions) == 26
    unlisted = Decomposer(open_vocabulary=True)
    for number, (caption, names) in enumerate(captions):
        assert decompose.properties(caption) == set(names.split("|")), caption
        if number < 9:  # plain names need no vocabulary
            assert unlisted.properties(caption) == set(names.split("|")), caption
            assert all(map(decompose.parsed, sentences(caption))), caption
    for nothing in ("The molecule is a", ""):
        assert decompose.properties(nothing) == set()


def test_atoms_keep_text_name_and_verb(decompose: Decomposer) -> None:
    atoms = decompose("The molecule is a Emulsifier and belongs to the anti viral class of molecules, affecting aging.")
    assert atoms == [
        Atom("The molecule is a Emulsifier.", "emulsifier", "is"),
        Atom("The molecule belongs to the anti viral class of molecules.", "anti viral", "belongs to"),
        Atom("The molecule affects aging.", "aging", "affects"),
    ]
    assert [decompose.canonical(atom) for atom in atoms] == [
        "The molecule is a emulsifier.",
        "The molecule is a anti viral.",
        "The molecule impacts aging.",
    ]


def test_one_hazard_may_span_sentences_and_two_are_two(decompose: Decomposer) -> None:
    one = "When heated to decomposition it emits fumes of bromine. Keep away from acids. bromides/"
    atoms = decompose(f"{one} The molecule is a nutrient.")
    assert [(atom.text, atom.property) for atom in atoms] == [
        (one, "decomposition_evaluation"),
        ("The molecule is a nutrient.", "nutrient"),
    ]
    two = decompose("Will polymerize when hot. When heated to decomposition it emits acrid smoke.")
    assert [atom.property for atom in two] == ["polymerization_evaluation", "decomposition_evaluation"]
    assert decompose.parsed("Will polymerize when hot.")


@pytest.mark.parametrize(
    ("text", "senses"),
    [
        ("both a Oily ham and a Sweet clover odor", ["taste_evaluation", "odor_evaluation"]),
        ("both a Powerful, citrus odor and a Grapefruit and bitter", ["odor_evaluation", "taste_evaluation"]),
        ("both a Odorless and a Tasteless", ["odor_evaluation", "taste_evaluation"]),
    ],
)
def test_of_two_quotes_one_is_the_odour_and_one_the_taste(text: str, senses: list[str]) -> None:
    assert [atom.property for atom in Decomposer(NAMES)(f"The molecule has {text}.")] == senses
    none = Decomposer(Vocabulary.from_names(["nutrient"]))(f"The molecule has {text}.")
    assert {atom.property for atom in none} == {None}, "the vocabulary has no quotes"


def test_unknown_names_need_the_open_vocabulary() -> None:
    caption = "The molecule is a widget polisher and impacts dry eye syndrome, aging."
    assert Decomposer(NAMES).properties(caption) == {"aging"}
    assert Decomposer(NAMES, open_vocabulary=True).properties(caption) == {
        "widget polisher",
        "dry eye syndrome",
        "aging",
    }
    assert not Decomposer(NAMES).parsed(caption)
    assert Decomposer(NAMES)(caption)[0] == Atom("The molecule is a widget polisher.", None, "is")


@pytest.mark.parametrize("open_vocabulary", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "CC(=O)Oc1ccccc1C(=O)O",
        "<html><body><p>The molecule is <b>smooth</b> and has a low odor.</p></body></html>",
        "Das Molekül ist ein Nährstoff, wirkt auf Krebs und riecht nach cat, pea und low.",
        "该分子是一种营养物质，影响肥胖。",
        "The low cat ate a pea. It is low. It has a role as a cat and belongs here. " * 600,
        "It was heated in a fire, and toxic gases that emit fumes polymerize. " * 200,
        "( " * 5_000,
        "that impacts " * 2_000,
        ", and a " * 2_000,
        "\x00\ud800 \n\t",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_what_is_no_caption_has_facts_but_no_properties(text: str, open_vocabulary: bool) -> None:
    decompose = Decomposer(NAMES, open_vocabulary=open_vocabulary)
    start = time.perf_counter()
    atoms = decompose(text)
    assert atoms, "text is never silently nothing"
    assert {atom.property for atom in atoms} == {None}
    assert time.perf_counter() - start < 5


# ---- real captions ----


@needs_lpm24
def test_real_captions_give_their_property_sets_and_submissions_are_explained() -> None:
    """Each sentence pattern of these has its line in BY_HAND; here is how often anything else comes."""
    tree = Decomposer(lpm24_vocabulary())
    rows = [line.split("\t") for line in (SHARED / "smiles2caption_example.tsv").read_text("utf-8").splitlines()[1:]]
    sets = dict(lpm24_sets())
    wrong = [
        row[1]
        for decompose in (tree, Decomposer(open_vocabulary=True))
        for row in rows
        if decompose.properties(row[1]) != sets[row[0]]
    ]
    assert (len(rows), wrong) == (199, [])
    for system in ("dimitris", "langmolecules_Meditron", "langmolecules_MolT5-Large"):
        with gzip.open(SHARED / f"submission_captioning_{system}.txt.gz", "rt", encoding="utf-8") as handle:
            counts = Counter(sentence for caption in handle for sentence in sentences(caption))
        explained = sum(count for sentence, count in counts.items() if tree.parsed(sentence))
        assert explained / counts.total() > 0.99, system


#: Table 6 of Less for More: reference and generated caption, and how many facts the paper's language model found.
TABLE_6 = """
It impacts pancreatitis. The molecule is a fat storage and nutrient, belonging to the thyroxine treatment class of
molecules, and impacts metabolic syndrome, atherosclerosis, and cardiovascular disease.
/ The molecule is a nutrient.
= 7 1
The molecule is a energy storage and is floral. The molecule is a emulsifier, nutrient, surfactant, energy source,
membrane stabilizer, and rose.
/ The molecule is a energy storage, a membrane stabilizer, and a energy source. The molecule is a surfactant, a
emulsifier, and a nutrient.
= 7 6
The molecule is a orexin receptor antagonist.
/ The molecule is a anti viral.
= 1 1
The molecule is a stabilizing cytochrome oxidase, apoptosis, stabilizing mitochondrial structure that impacts
non-alcoholic fatty liver disease and tangier disease. The molecule is a cholesterol translocation and a proton trap for
oxidative phosphorylation that impacts aging, barth syndrome, and diabetic heart disease.
/ The molecule is a cholesterol translocation, a apoptosis, and a stabilizing cytochrome oxidase, and it impacts tangier
disease. The molecule is a stabilizing mitochondrial structure and a proton trap for oxidative phosphorylation that
impacts barth syndrome, aging, and non-alcoholic fatty liver disease. It impacts diabetic heart disease.
= 11 10
The molecule is a anti microbial member of the anti fungal class.
/ It belongs to the anti viral class of molecules. The molecule is both a hepatitis c treatment and a hev inhibitor.
= 2 3
"""


def test_the_five_cases_of_table_6() -> None:
    """The rules find each stated fact.

    The model lost one in case 2 (floral and energy storage became one), split and bent names in case 4 (an 11th atom
    out of ten facts) and mended a misspelt name in case 5.
    """
    cases = re.findall(r"([^/=]+)\n/ ([^/=]+)\n= (\d+) (\d+)\n", TABLE_6)
    decompose = Decomposer(open_vocabulary=True)
    ours = [(len(decompose(reference)), len(decompose(generated))) for reference, generated, *_ in cases]
    papers = [(int(premises), int(hypotheses)) for *_, premises, hypotheses in cases]
    assert ours == [(7, 1), (8, 6), (1, 1), (10, 10), (2, 3)]
    assert [index + 1 for index in range(5) if ours[index] != papers[index]] == [2, 4]
    reference, generated = (decompose.properties(text) for text in cases[1][:2])
    assert len(reference & generated) / len(reference) == 0.75, "the paper's coverage of case 2: 6 of 8"
    reference, generated = (decompose.properties(text) for text in cases[3][:2])
    assert reference == generated, "case 4 says the same twice; the paper's coverage of 0.91 is its decomposer's error"
    assert "hev inhibitor" in decompose.properties(cases[4][1])


# ---- vocabulary, command ----


def test_vocabularies_from_tree_counts_and_list(tmp_path: Path) -> None:
    tree = {
        "Biomedical": ["immunomodulator", {"antis": ["Anti Viral"], "disease": ["Gout"]}],
        "x": {"cancer": {"Lung": 3}},
    }
    path = tmp_path / "tree.json"
    path.write_text(json.dumps(tree), "utf-8")
    assert Vocabulary.read(path).kinds == {
        "immunomodulator": "role", "anti viral": "class", "gout": "effect", "lung": "effect",
    }  # fmt: skip
    path.write_text("\ufeffNutrient\r\n\r\nBarth  syndrome\n", "utf-8")
    assert Vocabulary.read(path).kinds == {"nutrient": "role", "barth syndrome": "effect"}
    assert "BARTH syndrome" in Vocabulary.read(path)
    assert Vocabulary.embedded().kind("aging") == "effect"
    assert Vocabulary.embedded().kind("smooth") == "quality"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no names"), (b"{bad", "Expecting property"), (b'{"a": [1.5]}', "holds 1.5"), (b"\xff\xfe", "decode")],
)
def test_bad_vocabularies_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(VocabularyError, match=rf"{path} cannot be read .*{message}"):
        Vocabulary.read(path)


def test_abbreviations_end_no_sentence() -> None:
    whole = ["It is used against St. Louis fever.", "Dr. Smith and sp. Nova agree, e.g. Ann vs. Bob."]
    assert sentences(" ".join(whole)) == whole
    assert sentences("It has vitamin C. Isolated from oil. Used as St. Johns wort.") == [
        *("It has vitamin C.", "Isolated from oil.", "Used as St. Johns wort.")
    ]
