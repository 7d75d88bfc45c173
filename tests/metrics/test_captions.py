"""Caption metrics against values computed by hand, nltk, and what the official script prints of made-up captions."""

import math
import random
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nltk.corpus.reader import CorpusReader, WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader
from nltk.translate.bleu_score import corpus_bleu

from lmolt_utils.errors import DataError
from lmolt_utils.metrics.captions import CUT, SCIBERT, caption_scores, caption_tokenizer, meteor, meteor_matcher, rouge
from lmolt_utils.metrics.ngrams import bleu_statistics

REGEX = caption_tokenizer("regex")
STEM = meteor_matcher("exact+stem")


def caption_metrics(references: list[str], outputs: list[str]) -> dict[str, float]:
    return caption_scores(references, outputs, REGEX, STEM).metrics


# ---- by hand ----


def test_bleu_by_hand() -> None:
    # Two rows of four words, the last one wrong: 7 of 8 words, 5 of 6 pairs, 3 of 4 triples, 1 of 2 fours.
    scores = caption_metrics(["a b c d", "e f g h"], ["a b c d", "e f g x"])
    assert scores["BLEU-2"] == pytest.approx(math.sqrt(7 / 8 * 5 / 6))
    assert scores["BLEU-4"] == pytest.approx((7 / 8 * 5 / 6 * 3 / 4 * 1 / 2) ** (1 / 4))
    assert caption_metrics(["a b c d"], ["a b c"])["BLEU-2"] == pytest.approx(math.exp(1 - 4 / 3)), "it is short"


def test_rouge_by_hand() -> None:
    rows = rouge(["the cat sat down", "the cat sat"], ["the sat", "the cat ran"])
    assert rows["ROUGE-1"] == pytest.approx([2 / 3, 2 / 3])  # P 1, R 1/2; P = R = 2/3
    assert rows["ROUGE-2"] == pytest.approx([0, 1 / 2])
    assert rows["ROUGE-L"] == pytest.approx([2 / 3, 2 / 3])
    assert rouge(["Inhibits p38-kinase!"], ["inhibiting P38 kinase"])["ROUGE-1"] == pytest.approx([2 / 3]), "no stemmer"


@pytest.mark.parametrize(
    ("reference", "output", "value"),
    [
        ("a b c d", "a b c d", 1 - 0.5 / 4**3),  # all match, one chunk of four
        ("a b c d", "c d a b", 1 - 0.5 * (2 / 4) ** 3),  # two chunks
        ("a b c d", "a b", (1 - 0.5 / 2**3) * 0.5 / (0.9 + 0.1 * 0.5)),  # P 1, R 1/2
        ("inhibits", "inhibited", 0.5),  # by stem
        ("car", "auto", 0.0),  # a synonym, which this matcher does not know
        ("a b", "", 0.0),
        ("", "", 0.0),
    ],
)
def test_meteor_by_hand(reference: str, output: str, value: float) -> None:
    assert meteor([reference.split()], [output.split()], STEM) == pytest.approx([value])


def test_leading_cls_is_stripped_once() -> None:
    scores = caption_scores(["a b c d"] * 2, ["[CLS] a b c d", "[CLS] [CLS] a b c d"], REGEX, STEM)
    assert scores.samples["ROUGE-L"][0] == 1
    assert scores.samples["ROUGE-L"][1] < 1
    assert scores.samples["length_deviation"].tolist() == [0, 3]


# ---- against nltk and rouge_score ----

WORDS = ("the", "The", "a", "acid", "acids", "inhibits", "inhibited", "car", "auto", "of", "7,8-d", "run", "runs")


def random_pairs(seed: int, count: int, longest: int = 9) -> tuple[list[list[str]], list[list[str]]]:
    dice = random.Random(seed)
    sides = [[[dice.choice(WORDS) for _ in range(dice.randint(0, longest))] for _ in range(count)] for _ in range(2)]
    return sides[0], sides[1]


@pytest.mark.filterwarnings("ignore::UserWarning")  # nltk's advice to smooth
def test_bleu_equals_nltk_to_the_last_bit() -> None:
    """Of words, and of characters as for molecules."""
    for seed in range(60):
        words = random_pairs(seed, 1 + seed % 5)
        for references, outputs in (words, [[list(" ".join(text)) for text in side] for side in words]):
            counts = bleu_statistics(references, outputs)
            for order in (1, 2, 3, 4):
                assert counts.score(order) == corpus_bleu([[r] for r in references], outputs, (1 / order,) * order)


# ---- tokenizers ----


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    words = "[PAD] [UNK] [CLS] [SEP] the mol ##ecule is a fatty acid impact ##s it aging and cafe . , nutrient sweet"
    (folder / "vocab.txt").write_text(words.replace(" ", "\n") + "\n", encoding="utf-8")
    return folder


def test_pieces_are_lower_cased_and_the_vocabulary_named_by_content(vocabulary: Path) -> None:
    by_folder, by_file = caption_tokenizer(str(vocabulary)), caption_tokenizer(str(vocabulary / "vocab.txt"))
    assert by_folder.split(["The Molecule. Café", ""]) == [["the", "mol", "##ecule", ".", "cafe"], []]
    assert REGEX.split(["The 3beta-sterol, (R)."]) == [["the", "3beta", "-", "sterol", ",", "(", "r", ")", "."]]
    assert by_folder.name == by_file.name
    assert by_folder.name.startswith("tiny@")
    with (vocabulary / "vocab.txt").open("a") as file:
        file.write("sour\n")
    assert caption_tokenizer(str(vocabulary)).name != by_folder.name


def test_pieces_are_cut_before_special_tokens_go(vocabulary: Path) -> None:
    tokenizer = caption_tokenizer(str(vocabulary))
    reference = "[SEP] " + "the " * (CUT - 1)  # the special token takes one of the 512 places
    output = reference + "mol " * 88
    scores = caption_scores([reference], [output], tokenizer, STEM)
    assert scores.metrics["BLEU-4"] == pytest.approx(1)
    assert scores.metrics["ROUGE-1"] < 1
    assert scores.samples["length_deviation"].tolist() == [88]
    assert caption_scores([reference], ["mol " + output], tokenizer, STEM).metrics["BLEU-4"] < 1


def test_auto_takes_the_local_hub_cache_and_no_network(
    vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", no_network)
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert caption_tokenizer("auto").name == "regex"
    with pytest.raises(DataError, match=r"local hub cache.*hf download"):
        caption_tokenizer(SCIBERT)

    repository = cache / f"models--{SCIBERT.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    vocabulary.rename(repository / "snapshots" / "abc")
    assert caption_tokenizer("auto").name.startswith(SCIBERT)
    assert caption_tokenizer("auto").split(["molecule"]) == [["mol", "##ecule"]]


def test_tokenizer_errors_name_the_thing(tmp_path: Path) -> None:
    for name in ("scibret", str(tmp_path)):
        with pytest.raises(DataError, match=rf"'{name}': no vocab\.txt there"):
            caption_tokenizer(name)
    (tmp_path / "vocab.txt").write_text("only\nwords\n")
    with pytest.raises(ValueError, match=r"vocab\.txt.*lacks \[UNK\]"):
        caption_tokenizer(str(tmp_path))


# ---- WordNet ----


def test_meteor_takes_wordnet_from_nltks_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of one synset, {car, auto}, as README says to make it of Debian's files (wndb(5WN))."""
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    header = "  1 WordNet 3.0 Copyright 2006 by Princeton University.\n"
    synset = f"{len(header):08d} 06 n 02 car 0 auto 0 000 | a motor vehicle\n"
    entries = "".join(f"{word} n 1 0 1 0 {len(header):08d}\n" for word in ("auto", "car"))
    for pos in ("adj", "adv", "noun", "verb"):
        (folder / f"data.{pos}").write_text(header + (synset if pos == "noun" else ""))
        (folder / f"index.{pos}").write_text(header + (entries if pos == "noun" else ""))
        (folder / f"{pos}.exc").write_text("")
    (folder / "lexnames").write_text("".join(f"{number:02d} x 1\n" for number in range(45)))
    (folder / "index.sense").write_text("")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    omw = LazyCorpusLoader("omw-1.4", CorpusReader, "none")  # as nltk.corpus has both
    monkeypatch.setattr("nltk.corpus.wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, omw))
    assert meteor_matcher().name == "wordnet 3.0"
    assert meteor([["car"], ["car"]], [["auto"], ["boat"]], meteor_matcher()).tolist() == [0.5, 0.0]


def test_meteor_without_wordnet_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.corpus.wordnet", SimpleNamespace(ensure_loaded=lambda: {}["no database"]))
    assert meteor_matcher().name == "exact+stem"
    with pytest.raises(DataError, match="README says how"):
        meteor_matcher("wordnet")
    with pytest.raises(ValueError, match="unknown METEOR matcher"):
        meteor_matcher("stem")


# ---- the official script ----

#: References and outputs, and what L+M-24's text_translation_metrics.py (a10dbee) gives them with the tokenizer of the
#: fixture as transformers' BertTokenizerFast; METEOR without synonyms.
MADE_UP = (
    ("The molecule is a fatty acid.", "[CLS] The molecule is an acid."),
    ("It impacts aging, and it is sweet.", "It impacts the aging and is a nutrient."),
    ("The Café is [SEP] a nutrient, sweet.", "the cafe is a sweet nutrient"),
    ("the " * 600 + "acid", "the " * 500 + "acid"),
    ("The molecule impacts aging.", "The molecule impacted aging."),
    ("It is sweet.", ""),
)
OFFICIAL = {
    "BLEU-2": 0.9446412659307791,
    "BLEU-4": 0.9388794799987005,
    "ROUGE-1": 0.6370710102561281,
    "ROUGE-2": 0.3324268324268324,
    "ROUGE-L": 0.6114299846151026,
    "METEOR": 0.6043815047359632,
}


def test_captions_are_scored_as_by_the_official_script(vocabulary: Path) -> None:
    references, outputs = map(list, zip(*MADE_UP, strict=True))
    tiny = caption_tokenizer(str(vocabulary))
    assert caption_scores(references, outputs, tiny, STEM).metrics == pytest.approx(OFFICIAL, abs=1e-12)
    by_rule = caption_metrics(references, outputs)
    assert by_rule["ROUGE-L"] == OFFICIAL["ROUGE-L"]
    assert by_rule["BLEU-2"] != pytest.approx(OFFICIAL["BLEU-2"], abs=1e-3), "other pieces, another number"
