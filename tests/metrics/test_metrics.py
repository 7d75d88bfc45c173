"""The metrics against values computed by hand, and against what the official scripts print."""

import csv
import gzip
import json
import math
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nltk
import numpy as np
import pytest
import torch
from lmolt_utils.metrics.bleu import bleu_statistics
from lmolt_utils.metrics.meteor import MeteorMatcher
from nltk.translate.bleu_score import corpus_bleu
from nltk.translate.meteor_score import meteor_score
from rdkit import Chem, rdBase
from rouge_score.rouge_scorer import RougeScorer

from lmolt_utils.errors import CompanionError
from lmolt_utils.metrics import captions, meteor, molecules
from lmolt_utils.metrics.captions import CUT, SCIBERT, caption_scores, caption_tokenizer, meteor_matcher
from lmolt_utils.metrics.distributions import (
    chr_f,
    length_deviation,
    modality,
    right_modality,
    word_count,
    wrong_modality_rate,
)
from lmolt_utils.metrics.featurise import Featuriser
from lmolt_utils.metrics.molecules import ChemNet, frechet_chemnet_distance, molecule_scores, parse_smiles

REGEX = caption_tokenizer("regex")
STEM = meteor_matcher("exact+stem")
SHARED = Path(os.environ.get("LMOLT_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def caption_metrics(references: list[str], outputs: list[str]) -> dict[str, float]:
    return caption_scores(references, outputs, REGEX, STEM).metrics


# ---------------------------------------------------------------------------------------- captions by hand


def test_caption_bleu_by_hand() -> None:
    # Two rows of four words, the last one wrong: 7 of 8 words, 5 of 6 pairs, 3 of 4 triples, 1 of 2 fours.
    scores = caption_metrics(["a b c d", "e f g h"], ["a b c d", "e f g x"])
    assert scores["BLEU-2"] == pytest.approx(math.sqrt(7 / 8 * 5 / 6))
    assert scores["BLEU-4"] == pytest.approx((7 / 8 * 5 / 6 * 3 / 4 * 1 / 2) ** (1 / 4))


def test_caption_bleu_punishes_short_output() -> None:
    assert caption_metrics(["a b c d"], ["a b c"])["BLEU-2"] == pytest.approx(math.exp(1 - 4 / 3))


def test_rouge_by_hand() -> None:
    rows = captions.rouge(["the cat sat down", "the cat sat"], ["the sat", "the cat ran"])
    assert rows["ROUGE-1"] == pytest.approx([2 / 3, 2 / 3])  # P 1, R 1/2; P = R = 2/3
    assert rows["ROUGE-2"] == pytest.approx([0, 1 / 2])
    assert rows["ROUGE-L"] == pytest.approx([2 / 3, 2 / 3])


def test_rouge_has_no_stemmer_and_its_own_tokenizer() -> None:
    row = captions.rouge(["Inhibits p38-kinase!"], ["inhibiting P38 kinase"])
    assert row["ROUGE-1"] == pytest.approx([2 / 3])


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
    assert meteor.meteor([reference.split()], [output.split()], STEM) == pytest.approx([value])


def test_empty_captions_score_zero() -> None:
    scores = caption_metrics(["the molecule is a lipid", "a b c d"], ["", ""])
    assert scores == dict.fromkeys(captions.CAPTION_METRICS, 0.0)


def test_identical_captions_score_one() -> None:
    scores = caption_metrics(["the molecule is a fatty acid"], ["the molecule is a fatty acid"])
    assert scores.pop("METEOR") == pytest.approx(1 - 0.5 / 6**3)
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0))


def test_leading_cls_is_stripped_once() -> None:
    scores = caption_scores(["a b c d"] * 2, ["[CLS] a b c d", "[CLS] [CLS] a b c d"], REGEX, STEM)
    assert scores.samples["ROUGE-L"][0] == 1
    assert scores.samples["ROUGE-L"][1] < 1
    assert scores.prediction_lengths.tolist() == [4, 7]


def test_caption_lists_must_match() -> None:
    with pytest.raises(ValueError, match="2 references and 1 predictions"):
        caption_scores(["a", "b"], ["a"], REGEX, STEM)
    with pytest.raises(ValueError, match="0 references"):
        caption_scores([], [], REGEX, STEM)


WORDS = ("the", "The", "a", "acid", "acids", "inhibits", "inhibited", "car", "auto", "of", "7,8-d", "run", "runs")


def random_pairs(seed: int, count: int, longest: int = 9) -> tuple[list[list[str]], list[list[str]]]:
    dice = random.Random(seed)
    sides = [[[dice.choice(WORDS) for _ in range(dice.randint(0, longest))] for _ in range(count)] for _ in range(2)]
    return sides[0], sides[1]


@pytest.mark.filterwarnings("ignore::UserWarning")  # nltk's advice to smooth
def test_bleu_equals_nltk_to_the_last_bit() -> None:
    for seed in range(60):
        references, outputs = random_pairs(seed, 1 + seed % 5)
        counts = bleu_statistics(references, outputs)
        characters = bleu_statistics([" ".join(r) for r in references], [" ".join(o) for o in outputs])
        for order in (1, 2, 3, 4):
            weights = (1 / order,) * order
            assert counts.score(order) == corpus_bleu([[r] for r in references], outputs, weights)
            lists = [[list(" ".join(r))] for r in references], [list(" ".join(o)) for o in outputs]
            assert characters.score(order) == corpus_bleu(*lists, weights)


def test_bleu_of_a_resample_is_that_of_its_rows() -> None:
    references, outputs = random_pairs(1, 20)
    counts = bleu_statistics(references, outputs)
    drawn = np.random.default_rng(0).integers(0, 20, (3, 20))
    weights = np.array([np.bincount(rows, minlength=20) for rows in drawn])
    again = [bleu_statistics([references[i] for i in r], [outputs[i] for i in r]).score(4) for r in drawn]
    assert counts.score(4, weights).tolist() == again


def test_rouge_equals_rouge_score_to_the_last_bit() -> None:
    references, outputs = ([" ".join(words) for words in side] for side in random_pairs(2, 300))
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    official = [scorer.score(r, o) for r, o in zip(references, outputs, strict=True)]
    ours = captions.rouge(references, outputs)
    for name, key in (("ROUGE-1", "rouge1"), ("ROUGE-2", "rouge2"), ("ROUGE-L", "rougeL")):
        assert ours[name].tolist() == [row[key].fmeasure for row in official]


class Synonyms:
    """Stands in for nltk's WordNet: car, auto and, by their stems, acid and run are synonyms."""

    groups = (("car", "auto", "motor_car"), ("acid", "run", "inhibit"))

    def synsets(self, word: str) -> list[Any]:
        return [Synset(group) for group in self.groups if word in group]


class Synset:
    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def lemmas(self) -> list[Any]:
        return [SimpleNamespace(name=lambda name=name: name) for name in self.names]


@pytest.mark.parametrize("synonyms", [True, False])
def test_meteor_equals_nltk_to_the_last_bit(synonyms: bool) -> None:
    wordnet = Synonyms() if synonyms else SimpleNamespace(synsets=lambda _: [])
    matcher = MeteorMatcher("wordnet", "3.0", wordnet) if synonyms else STEM
    references, outputs = random_pairs(3, 500)
    official = [meteor_score([r], o, wordnet=wordnet) for r, o in zip(references, outputs, strict=True)]
    assert meteor.meteor(references, outputs, matcher).tolist() == official
    assert len(set(official)) > 50


# --------------------------------------------------------------------------------------------- tokenizers


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "mol", "##ecule", ".", "cafe"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def test_word_pieces_are_lower_cased_and_without_special_tokens(vocabulary: Path) -> None:
    tokenizer = caption_tokenizer(str(vocabulary))
    assert tokenizer.pieces(["The [SEP] Molecule. Café", ""]) == [["the", "mol", "##ecule", ".", "cafe"], []]


def test_words_are_split_as_whole_texts_are(vocabulary: Path) -> None:
    tokenizer = caption_tokenizer(str(vocabulary))
    odd = [
        "the  mol\tthe\nmol",
        "the\u00a0mol",
        "th\x1ce",
        "caf\u0065\u0301 \u0301the",
        "\u4e2d\u6587the",
        "[SEP]x [ SEP ]",
    ]
    odd += ["[CLS] the", "x" * 300 + " the", "", "  ", "\ufeffthe", "\ud800 the"]
    assert tokenizer.split(odd * 2) == tokenizer.whole(odd * 2)


def test_vocabulary_is_named_by_content(vocabulary: Path) -> None:
    by_folder, by_file = caption_tokenizer(str(vocabulary)), caption_tokenizer(str(vocabulary / "vocab.txt"))
    assert by_folder.name == by_file.name
    assert by_folder.name.startswith("tiny@")
    with (vocabulary / "vocab.txt").open("a") as file:
        file.write("acid\n")
    assert caption_tokenizer(str(vocabulary)).name != by_folder.name


def test_word_pieces_are_cut_before_special_tokens_go(vocabulary: Path) -> None:
    tokenizer = caption_tokenizer(str(vocabulary))
    reference = "[SEP] " + "the " * (CUT - 1)  # the special token takes one of the 512 places
    output = reference + "mol " * 88
    scores = caption_scores([reference], [output], tokenizer, STEM)
    assert scores.metrics["BLEU-4"] == pytest.approx(1)
    assert scores.metrics["ROUGE-1"] < 1
    assert scores.prediction_lengths.tolist() == [CUT - 1 + 88]
    assert caption_scores([reference], ["mol " + output], tokenizer, STEM).metrics["BLEU-4"] < 1


def test_regex_tokenizer() -> None:
    assert REGEX.pieces(["The 3beta-sterol, (R)."]) == [["the", "3beta", "-", "sterol", ",", "(", "r", ")", "."]]


def test_auto_takes_the_local_hub_cache_and_no_network(
    vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", no_network)
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert caption_tokenizer("auto").name == "regex"
    with pytest.raises(FileNotFoundError, match=r"local hub cache.*hf download"):
        caption_tokenizer(SCIBERT)

    repository = cache / f"models--{SCIBERT.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    vocabulary.rename(repository / "snapshots" / "abc")
    assert caption_tokenizer("auto").name.startswith(SCIBERT)
    assert caption_tokenizer("auto").pieces(["molecule"]) == [["mol", "##ecule"]]


def test_tokenizer_errors_name_the_thing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown caption tokenizer 'scibret'"):
        caption_tokenizer("scibret")
    with pytest.raises(FileNotFoundError, match=r"no vocab\.txt"):
        caption_tokenizer(str(tmp_path))
    (tmp_path / "vocab.txt").write_text("only\nwords\n")
    with pytest.raises(ValueError, match=r"vocab\.txt.*lacks \[UNK\]"):
        caption_tokenizer(str(tmp_path))


# ------------------------------------------------------------------------------------------------- WordNet


def write_wordnet(folder: Path) -> None:
    """A WordNet 3.0 database of one synset, {car, auto}, laid out as in Debian's package (wndb(5WN))."""
    header = "  1 WordNet 3.0 Copyright 2006 by Princeton University.\n"
    synset = f"{len(header):08d} 06 n 02 car 0 auto 0 000 | a motor vehicle\n"
    entries = "".join(f"{word} n 1 0 1 0 {len(header):08d}\n" for word in ("auto", "car"))
    for pos in ("adj", "adv", "noun", "verb"):
        noun = pos == "noun"
        (folder / f"data.{pos}").write_text(header + (synset if noun else ""))
        (folder / f"index.{pos}").write_text(header + (entries if noun else ""))
        (folder / f"{pos}.exc").write_text("")


def test_meteor_finds_synonyms_in_debian_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    debian = tmp_path / "debian"
    debian.mkdir()
    write_wordnet(debian)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(nltk.data, "path", list(nltk.data.path))
    reader = meteor.open_wordnet(debian)
    monkeypatch.setattr(meteor, "load_wordnet", lambda: reader)
    matcher = meteor_matcher()
    assert (matcher.name, matcher.version) == ("wordnet", "3.0")
    assert meteor.meteor([["car"], ["car"]], [["auto"], ["boat"]], matcher) == pytest.approx([0.5, 0])
    assert reader.synsets("car")[0].lexname() == "noun.artifact"
    (copy,) = (tmp_path / "cache" / "lmolt").iterdir()  # nothing half-made beside it
    lexnames = (copy / "corpora" / "wordnet" / "lexnames").read_text().splitlines()
    assert len(lexnames) == 45
    assert [lexnames[i] for i in (0, 3, 29, 43, 44)] == [
        "00\tadj.all\t3",
        "03\tnoun.Tops\t1",
        "29\tverb.body\t2",
        "43\tverb.weather\t2",
        "44\tadj.ppl\t3",
    ]


def test_meteor_without_wordnet_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor, "load_wordnet", lambda: None)
    assert meteor_matcher().name == "exact+stem"
    with pytest.raises(FileNotFoundError, match="wordnet-base"):
        meteor_matcher("wordnet")
    with pytest.raises(ValueError, match="unknown METEOR matcher"):
        meteor_matcher("stem")


# --------------------------------------------------------------------------------------- molecules by hand


def molecule_metrics(references: list[str], outputs: list[str], invalid: Any = "lpm24") -> dict[str, float]:
    return molecule_scores(references, outputs, invalid).metrics


def test_character_bleu_by_hand() -> None:
    scores = molecule_metrics(["CNOS", "CNOS"], ["CNOS", "CNOF"])
    assert scores["BLEU"] == pytest.approx((7 / 8 * 5 / 6 * 3 / 4 * 1 / 2) ** (1 / 4))


def test_levenshtein_is_a_mean_over_all_rows() -> None:
    # One substitution; unreadable: four letters for three, all different; all of three gone.
    scores = molecule_scores(["CCO", "CCO", "CCO"], ["CCN", "junk", ""])
    assert scores.samples["Levenshtein"].tolist() == [1, 4, 3]
    assert scores.metrics["Levenshtein"] == pytest.approx(8 / 3)


def test_tanimoto_by_hand() -> None:
    # Morgan, radius 2, counts. Ethane: CH3 twice, its neighbourhood once (both ends cover the one bond).
    # Propane: CH3 twice, CH2 once, an end's neighbourhood twice, the middle's once. In common: CH3, twice.
    # RDK sets two bits for each distinct path. Ethane has C-C; propane has C-C and C-C-C.
    scores = molecule_metrics(["CC"], ["CCC"])
    assert scores["Morgan"] == pytest.approx(2 / (3 + 6 - 2))
    assert scores["RDK"] == pytest.approx(2 / 4)
    # Keys: water has O only, ethane CH3 and two CH3 and so on, never O.
    assert molecule_metrics(["O"], ["CC"])["MACCS"] == 0


def test_morgan_is_counts_up_to_radius_2() -> None:
    # Decane and undecane have the same kinds of environment (as bits they would score 1), in other numbers.
    # Decane: 10 atoms, 10 environments of radius 1, 8 of radius 2 (the ends' repeat ones of radius 1).
    # Undecane: 11, 11 and 9, with all of decane's among them.
    assert molecule_metrics(["C" * 10], ["C" * 11])["Morgan"] == pytest.approx(28 / 31)


def test_identical_molecules_without_rdk_path_score_as_rdkit_says() -> None:
    scores = molecule_metrics(["C"], ["C"])
    assert (scores["MACCS"], scores["RDK"], scores["Morgan"], scores["Exact"]) == (1, 0, 1, 1)


def test_exact_is_inchi_equality() -> None:
    pairs = [
        ("OCC", "CCO", 1),
        ("Oc1ccccn1", "O=c1cccc[nH]1", 1),  # tautomers that share a standard InChI
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", 0),
        ("CCO", "COC", 0),  # same composition
        ("*CCO", "OCC*", 1),  # InChI has no name for an open valence: by canonical SMILES
        ("*CCO", "*C(C)O", 0),
        ("CCO", "CCO(", 0),
    ]
    references, outputs, expected = zip(*pairs, strict=True)
    assert molecule_scores(references, outputs).samples["Exact"].tolist() == list(expected)


def test_conventions_for_invalid_outputs() -> None:
    references, outputs = ["CC", "CCO", "CCN", "CCC"], ["CCC", "C1CC", "CCN", "not a molecule"]
    zero, left_out = (
        molecule_scores(references, outputs, "lpm24"),
        molecule_scores(references, outputs, "molt5"),
    )
    assert zero.metrics["Validity"] == left_out.metrics["Validity"] == 0.5
    assert zero.samples["RDK"].tolist() == [0.5, 0, 1, 0]
    assert zero.metrics["RDK"] == pytest.approx(1.5 / 4)
    assert left_out.metrics["RDK"] == pytest.approx(1.5 / 2)
    for name in ("BLEU", "Exact", "Levenshtein", "FCD"):
        assert zero.metrics[name] == left_out.metrics[name]
    with pytest.raises(ValueError, match="unknown convention"):
        molecule_scores(references, outputs, "zero")  # type: ignore[arg-type]


def test_both_validities_and_uniqueness() -> None:
    # The string script counts a row whose reference does not parse as bad; the fingerprint script does not.
    scores = molecule_metrics(["junk", "CC", "CC", "CC"], ["CC", "CC", "C1CC", "C-C"])
    assert (scores["Validity"], scores["Validity-pairs"]) == (3 / 4, 2 / 4)
    assert scores["Uniqueness"] == pytest.approx(2 / 3)  # of strings: "C-C" is not "CC"
    assert math.isnan(molecule_metrics(["CC"], ["C1CC"])["Uniqueness"])


def test_an_unreadable_reference_is_not_the_outputs_fault() -> None:
    scores = molecule_scores(["junk", "CC"], ["CC", "CC"])
    assert scores.unparsable_references == 1
    assert scores.metrics["Validity"] == 1
    assert scores.samples["RDK"].tolist() == [0, 1]
    assert molecule_metrics(["junk", "CC"], ["CC", "CC"], "molt5")["RDK"] == 1


def test_all_invalid() -> None:
    references, outputs = ["CCO", "CC"], ["C1CC", "\ud800"]
    zero, left_out = molecule_metrics(references, outputs), molecule_metrics(references, outputs, "molt5")
    assert [zero[name] for name in ("MACCS", "RDK", "Morgan", "Validity", "Exact")] == [0] * 5
    assert all(math.isnan(left_out[name]) for name in ("MACCS", "RDK", "Morgan"))
    fcd = molecule_scores(references, outputs).fcd
    assert math.isnan(fcd.value)
    assert "2 references and 0 predictions" in fcd.note


def test_empty_output_is_a_valid_empty_molecule_outside_fcd() -> None:
    scores = molecule_scores(["CCO", "CCO", "CCN"], ["", "CCO", "CCN"])
    assert scores.samples["Validity"].tolist() == [1, 1, 1]
    assert [scores.samples[name][0] for name in ("Exact", "MACCS", "RDK", "Morgan")] == [0, 0, 0, 0]
    assert (scores.fcd.references, scores.fcd.predictions, scores.fcd.dropped_empty) == (3, 2, 1)


def test_text_after_whitespace_is_not_parsed_but_counts_as_text() -> None:
    scores = molecule_metrics(["CCO"], ["CCO is ethanol"])
    assert (scores["Validity"], scores["Exact"], scores["Levenshtein"]) == (1, 1, 11)


def test_no_garbage_raises() -> None:
    garbage = ["(" * 3000, "\0", "C\0C", "é", "   ", "['CCO']", "CCO\\n", "\ud800", "CCO |bad", "C" * 2000]
    scores = molecule_scores(["CCO"] * len(garbage), garbage)
    assert scores.samples["Validity"].tolist() == [0] * 9 + [1]
    assert 0 < scores.metrics["Levenshtein"] < math.inf


def test_one_row() -> None:
    scores = molecule_scores(["CCO"], ["CCO"])
    assert scores.metrics["Exact"] == scores.metrics["Morgan"] == 1
    assert "two molecules on each side" in scores.fcd.note


def test_each_distinct_string_is_computed_once_for_all_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = Featuriser._ask

    def counting(self: Featuriser, chunk: Any, features: Any) -> None:
        asked.extend(chunk)
        ask(self, chunk, features)

    monkeypatch.setattr(Featuriser, "_ask", counting)
    featuriser = Featuriser(workers=1)
    molecule_scores(["CC", "CC", "CCO"], ["CCO", "junk", "junk"], featuriser=featuriser, fcd=False)
    assert sorted(asked) == ["CC", "CCO", "junk"]
    asked.clear()
    molecule_scores(["CC", "CC", "CCO"], ["CN", "CC", "junk"], featuriser=featuriser, fcd=False)
    assert asked == ["CN"]


def complete(atoms: int) -> str:
    """SMILES of atoms that are all bonded to each other: it parses, and has more paths than RDKit can list."""
    labels: list[str] = [""] * atoms
    pairs = [(i, j) for i in range(atoms) for j in range(i + 2, atoms)]
    for number, pair in enumerate(pairs, start=1):
        for atom in pair:
            labels[atom] += f"%({number})"
    return "".join(f"*{label}" for label in labels)


def test_a_molecule_that_rdkit_hangs_on_is_left_after_its_time() -> None:
    hangs = complete(12)
    outputs = ["CCN", hangs, "CCO", hangs]
    featuriser = Featuriser(workers=1, seconds=0.5)
    scores = molecule_scores(["CCO"] * 4, outputs, featuriser=featuriser)
    assert scores.gave_up == {"RDK": 2}
    assert scores.samples["Validity"].tolist() == [1, 1, 1, 1]
    assert scores.samples["RDK"].tolist()[1:] == [0, 1, 0]
    assert featuriser.table[hangs].MACCS is not None  # what came before is kept
    assert (scores.fcd.predictions, scores.fcd.dropped_invalid) == (4, 0)
    left_out = molecule_scores(["CCO"] * 4, outputs, "molt5", featuriser=featuriser)
    assert np.isnan(left_out.samples["RDK"]).tolist() == [False, True, False, True]
    assert left_out.metrics["RDK"] == pytest.approx(np.mean(left_out.samples["RDK"][[0, 2]]))


def test_a_dead_worker_is_replaced() -> None:
    from lmolt_utils.metrics import featurise

    featurise.stop_workers()
    molecule_scores(["CC"], ["CCO"], fcd=False)
    worker = featurise._take_worker()
    worker.kill()
    worker.wait()
    featurise._IDLE.put(worker)
    assert molecule_scores(["CC"], ["CC"], fcd=False).metrics["Exact"] == 1


def test_workers_that_die_are_an_error_and_no_invalid_molecules(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmolt_utils.metrics import featurise

    featurise.stop_workers()
    monkeypatch.setattr(featurise.sys, "executable", "/bin/false")
    with pytest.raises(CompanionError, match="worker processes die"):
        molecule_scores(["CC"], ["CCO"], fcd=False)


def test_workers_live_with_less_memory_than_they_would_take() -> None:
    # As on a cluster: a hard limit below the workers' own. The interpreter of this test itself stays as it is.
    program = (
        "from lmolt_utils.metrics.featurise import Featuriser as F; print(F(1).molecules(['CCO', 'C1CC'])['CCO'].valid)"
    )
    command = f'ulimit -v 2000000; exec {sys.executable} -c "{program}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_rdkit_is_not_asked_about_endless_strings() -> None:
    # Each would take RDKit seconds, or all of its time.
    outputs = ["C" * 30_000, "c1ccccc1" * 2_500, "(" * 20_000, "CCO"]
    scores = molecule_scores(["CCO"] * 4, outputs, fcd=False)
    assert scores.gave_up == {"length": 3}
    assert scores.samples["Validity"].tolist() == [0, 0, 0, 1]


def test_rdkit_is_silent_only_inside(capfd: pytest.CaptureFixture[str]) -> None:
    before = rdBase.LogStatus()
    molecule_scores(["CCO", "*CC"], ["C1CC", "CC*"])
    assert capfd.readouterr().err == ""
    assert rdBase.LogStatus() == before


def test_order_and_side_do_not_matter() -> None:
    references = ["CCO", "c1ccccc1", "CCN(CC)CC", "CC(=O)O", "CCCl"]
    outputs = ["CCN", "c1ccncc1", "CCN(C)C", "CC(=O)O", "C1CC"]
    scores = molecule_scores(references, outputs)
    turned = molecule_scores(references[::-1], outputs[::-1])
    swapped = molecule_scores(outputs, references)
    for name, value in scores.metrics.items():
        assert turned.metrics[name] == pytest.approx(value, abs=1e-6), name
    for name in ("MACCS", "RDK", "Morgan", "Levenshtein", "Exact"):
        assert swapped.samples[name].tolist() == scores.samples[name].tolist(), name
    assert swapped.metrics["FCD"] == pytest.approx(scores.metrics["FCD"], abs=1e-6)


# ----------------------------------------------------------------------------------------------------- FCD


def test_fcd_of_a_set_with_itself_is_zero() -> None:
    smiles = ["CCO", "c1ccccc1", "CC(=O)O", "CCO"]
    fcd = frechet_chemnet_distance(smiles, smiles[::-1])
    assert fcd.value == pytest.approx(0, abs=1e-9)
    assert "singular" in fcd.note


def test_chemnet_gives_the_same_bits_whatever_was_asked_before() -> None:
    smiles = [f"{'C' * n}{end}" for n in range(1, 12) for end in ("O", "N", "c1ccccc1", "C(=O)O")]
    whole = ChemNet().activations(smiles)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            resumed = ChemNet()
            for some in (smiles[40:], smiles[7:8], smiles[3:20]):
                resumed.activations(some)
            assert resumed.activations(smiles).tobytes() == whole.tobytes()
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)


def test_fcd_formula_on_known_gaussians() -> None:
    # Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2, here (3, 0), variances (2, 8) and (8, 2).
    x = np.array([[1, 0], [-1, 0], [0, 2], [0, -2]]) * math.sqrt(3)
    y = x[:, ::-1] + [3, 0]
    expected = 9 + 2 * (math.sqrt(2) - math.sqrt(8)) ** 2
    assert molecules._frechet_distance(x, y) == pytest.approx(expected)


def test_fcd_counts_what_it_cannot_read_in_full() -> None:
    fcd = frechet_chemnet_distance(["C" * 349, "C" * 350, "CC.O"], ["CC", "CCO", "", None])
    assert (fcd.references, fcd.predictions, fcd.dropped_empty, fcd.dropped_invalid) == (3, 2, 1, 1)
    assert fcd.statistics is not None
    assert fcd.statistics.references.tolist() == [0, 1, 2]
    assert fcd.statistics.predictions.tolist() == [3, 4, -1, -1]
    assert (fcd.over_length, fcd.fragments) == (1, 1)
    first_only = frechet_chemnet_distance(["CC.O", "CCO"], ["CC", "CCO"])
    assert first_only.value == pytest.approx(0, abs=1e-9)  # ChemNet reads the first fragment


# -------------------------------------------------------------------------------------------- distributions


def test_length_deviation_is_prediction_minus_reference() -> None:
    assert length_deviation([5, 3], [2, 4]).tolist() == [-3, 1]
    with pytest.raises(ValueError, match="2 reference and 1 prediction"):
        length_deviation([5, 3], [2])


def test_chr_f_by_hand() -> None:
    assert chr_f(["abcd"], ["abce"])[0] == pytest.approx((3 / 4 + 2 / 3 + 1 / 2) / 3)
    assert chr_f(["abcd"], ["abc"])[0] == pytest.approx((6 / 7 + 4 / 5 + 2 / 3) / 3)  # precision 1 each
    recall_twice = [5 * r / (4 + r) for r in (3 / 4, 2 / 3, 1 / 2)]
    assert chr_f(["abcd"], ["abc"], beta=2)[0] == pytest.approx(sum(recall_twice) / 3)


def test_chr_f_at_the_edges() -> None:
    references, outputs = ["a b c", "abc", "abc", "", "CC"], ["abc", "", "xyz", "", "CC"]
    assert chr_f(references, outputs) == pytest.approx([1, 0, 0, 0, 2 / 3])


def test_word_count() -> None:
    assert word_count(["a  b\nc", "", "CCO"]).tolist() == [3, 0, 1]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The molecule is a fatty acid.", "caption"),
        ("CCO is an alcohol", "caption"),
        ("CC(=O)Oc1ccccc1C(=O)O", "molecule"),
        ("C[C@@H](N)C(=O)[O-].[Na+]", "molecule"),
        ("C C ( = O", "molecule"),  # modality is not validity
        (")OC(=O)CCC[C@@H", "molecule"),  # a piece: a bracket without its end,
        ("nH]c1,CC", "molecule"),  # or without its beginning
        ("CO", "molecule"),
        ("Cl insulat=Cl1", "other"),
        ("impactscc(COC)c1", "other"),
        ("water", "other"),  # a word is no caption
        ("It is sweet.", "caption"),
        ("c1ccccc1 is aromatic", "caption"),
        ("Das Molekül schmeckt süß.", "caption"),
        ("[CC]" * 5000 + "z", "other"),  # in linear time
        ("", "empty"),
        (" \n", "empty"),
    ],
)
def test_modality(text: str, kind: str) -> None:
    assert modality(text) == kind


def test_wrong_modality_rate() -> None:
    outputs = ["CCO", "a fatty acid", "", "aspirin"]
    assert wrong_modality_rate(outputs, "mol2cap") == 0.5  # an empty output is not of the wrong modality, nor right
    assert wrong_modality_rate(outputs, "cap2mol") == 0.5
    assert right_modality(outputs, "mol2cap").tolist() == [False, True, False, False]
    assert right_modality(outputs, "cap2mol").tolist() == [True, False, False, False]


# ------------------------------------------------------------------------------------- the official scripts


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"real data not found: {path} (set LMOLT_SHARED_DATA)")
    return path


def read_pairs(name: str) -> tuple[list[str], list[str]]:
    path = shared(name)
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["ground truth"] for row in rows], [row["output"] for row in rows]


def oracle(name: str) -> Any:
    return json.loads(shared(name).read_text())


def assert_agree(ours: dict[str, float], official: dict[str, float], names: Any) -> None:
    for name in names:
        assert ours[name] == pytest.approx(official[name], abs=1e-6), name


@pytest.fixture(scope="module")
def official_captions() -> dict[str, Any]:
    molt5 = oracle("molt5/oracle_molt5-large.json")["molt5-large-smiles2caption"]
    matcher = meteor_matcher()
    scibert = caption_tokenizer(str(shared("scibert/vocab.txt")))
    assert scibert.name == SCIBERT
    pairs = read_pairs("molt5/molt5-large-smiles2caption.tsv.gz")
    example = read_pairs("lpm24/smiles2caption_example.tsv")
    assert (len(pairs[0]), len(example[0])) == (3300, 199)
    return {
        "matcher": matcher.name,
        "scores": [
            (caption_scores(*pairs, scibert, matcher).metrics, molt5["metrics"]),
            (
                caption_scores(*example, scibert, matcher).metrics,
                oracle("lpm24/oracle_example.json")["smiles2caption"],
            ),
        ],
        "pairs": pairs,
        "regex": molt5["substitute_tokenizers"]["regex \\w+|[^\\w\\s] lower"],
    }


def test_captions_agree_with_the_official_scripts(official_captions: dict[str, Any]) -> None:
    for ours, official in official_captions["scores"]:
        assert_agree(ours, official, ("BLEU-2", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L"))


def test_meteor_agrees_with_the_official_scripts(official_captions: dict[str, Any]) -> None:
    if official_captions["matcher"] != "wordnet":
        for ours, official in official_captions["scores"]:
            assert official["METEOR"] - 0.002 < ours["METEOR"] < official["METEOR"]  # synonyms add little here
        pytest.skip("no WordNet on this machine: METEOR held only to within .002 below the official value")
    for ours, official in official_captions["scores"]:
        assert_agree(ours, official, ("METEOR",))


def test_regex_tokenizer_agrees_with_the_known_values(official_captions: dict[str, Any]) -> None:
    references, outputs = official_captions["pairs"]
    counts = bleu_statistics(REGEX.pieces(references), REGEX.pieces(outputs))
    values = [counts.score(2), counts.score(4)]
    known = official_captions["regex"]
    assert values == pytest.approx([known["BLEU-2"], known["BLEU-4"]], abs=1e-6)


def test_molecules_agree_with_the_official_script_of_lpm24() -> None:
    official = oracle("lpm24/oracle_example.json")["caption2smiles"]
    references, outputs = read_pairs("lpm24/caption2smiles_example.tsv")
    scores = molecule_scores(references, outputs)
    assert len(references) == 200
    assert_agree(
        scores.metrics, official, ("BLEU", "Exact", "Levenshtein", "MACCS", "RDK", "Morgan", "Validity", "Uniqueness")
    )

    from fcd_torch import FCD

    readable = [[Chem.MolToSmiles(m) for m in map(parse_smiles, s) if m] for s in (references, outputs)]
    assert (scores.fcd.references, scores.fcd.predictions) == (200, 174) == tuple(map(len, readable))
    # Relative: with 174 molecules fcd_torch's own matrix root is off by some 1e-5 of 24.4.
    assert scores.metrics["FCD"] == pytest.approx(FCD(canonize=False)(*readable), rel=1e-6)


@pytest.mark.slow
def test_molecules_agree_with_the_official_script_of_molt5_in_both_conventions() -> None:
    official = oracle("molt5/oracle_molt5-large.json")["molt5-large-caption2smiles"]
    pairs, featuriser = read_pairs("molt5/molt5-large-caption2smiles.tsv.gz"), Featuriser()
    scores = molecule_scores(*pairs, "molt5", featuriser=featuriser)
    assert_agree(scores.metrics, official["metrics"], official["metrics"])
    assert scores.metrics["Validity-pairs"] == scores.metrics["Validity"]  # every reference parses
    assert (scores.fcd.references, scores.fcd.predictions, scores.fcd.note) == (3300, 3163, "")
    zeros = molecule_scores(*pairs, "lpm24", featuriser=featuriser, fcd=False)
    assert_agree(zeros.metrics, official["lpm24_style"], (*molecules.SIMILARITIES, "Validity"))
    assert int(scores.samples["Exact"].sum()) == official["counts"]["inchi_equal"]


def test_modality_knows_real_data() -> None:
    references, _ = read_pairs("lpm24/caption2smiles_example.tsv")
    sentences, _ = read_pairs("lpm24/smiles2caption_example.tsv")
    assert {modality(text) for text in references} == {"molecule"}
    assert {modality(text) for text in sentences} == {"caption"}
