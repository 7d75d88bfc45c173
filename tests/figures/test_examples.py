"""The example figures: which rows, which facts, which atoms; what did not run is said."""

import pandas as pd
import pytest
from matplotlib.text import Text

from lmolt_utils.figures.style import save_figure
from lmolt_utils.figures.views import KINDS, example_captions, example_ids, example_molecules, examples, facts_by_kind
from lmolt_utils.files import write_rows
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.models.predictions import prediction_path
from lmolt_utils.run.notebook import Run
from tests.figures.conftest import words

RULES = Decomposer()
CAPTIONS = [
    "The molecule is a nutrient and a toxin.",
    "The molecule is a nutrient.",
    "The molecule is a toxin.",
    "The molecule is a nutrient, a toxin, and a surfactant that impacts aging.",
]


@pytest.fixture
def tested(run: Run) -> Run:
    rows = pd.DataFrame({"id": list("abcd"), "molecule": ["CCO", "Cc1ccccc1", "CC", "CCCN"], "caption": CAPTIONS})
    write_rows(run.path("data", "test.jsonl"), rows.assign(split="test", properties="", families=""))
    return run


def test_rows_are_chosen_by_their_facts(tested: Run) -> None:
    assert example_ids(tested, RULES) == ["b", "a", "d"], "1, 2 and 4 facts, of two rows with 1 the first"


def test_facts_are_supported_invented_or_missing() -> None:
    found = facts_by_kind(CAPTIONS[0], "The molecule is a nutrient and impacts aging. It is a nutrient.", RULES)
    kinds = [("is a nutrient.", "supported"), ("impacts aging.", "invented"), ("is a toxin.", "missing")]
    assert found == [(f"The molecule {fact}", kind) for fact, kind in kinds]
    assert facts_by_kind(CAPTIONS[1], "CCO", RULES) == [
        ("no caption: CCO", "no caption"),
        ("The molecule is a nutrient.", "missing"),
    ]


def test_captions_show_every_fact_with_its_colour(tested: Run) -> None:
    answers = pd.DataFrame({"id": list("abcd"), "task": "mol2cap", "source": "C", "reference": "", "raw": CAPTIONS[0]})
    write_rows(prediction_path(tested, "cpo", "mol2cap"), answers.assign(prediction=""))
    rows = examples(tested, {"cpo": "CPO", "kto": "KTO"}, "mol2cap", ["b", "d"])
    figure, data = example_captions(rows, RULES)
    colours = {text.get_text(): text.get_color() for text in figure.findobj(Text) if isinstance(text, Text)}
    assert colours["✗ is a toxin"] == KINDS["invented"][1]
    assert colours["– impacts aging"] == KINDS["missing"][1]
    assert data[data["system"] == "KTO"]["kind"].tolist() == ["not run"] * 2
    counts = data[data["system"] == "CPO"].groupby(["id", "kind"]).size().to_dict()
    wanted = {("b", "supported"): 1, ("b", "invented"): 1}
    assert counts == wanted | {("d", "supported"): 2, ("d", "missing"): 2}
    save_figure(tested, "example_captions", (figure, data))


def test_what_molecules_share_is_marked(tested: Run) -> None:
    outputs = {"one": "Oc1ccccc1", "two": "<b>C1CC", "three": None}
    rows = pd.DataFrame([{"id": "b", "source": CAPTIONS[1], "reference": "Cc1ccccc1", **outputs}])
    figure, data = example_molecules(rows)
    shown = data.set_index("system")
    assert shown.loc["one", ["atoms", "shared_atoms"]].tolist() == [7, 6], "toluene and phenol share benzene"
    assert shown["valid"].tolist() == [True, True, False, False]
    for told in ("one 6 of 7 atoms shared", "two no molecule", "three not run", "<b>C1CC"):
        assert told in words(figure)


def test_a_search_without_end_is_cut_after_the_same_steps() -> None:
    core = "P(=O)(O)OCC(O)COP(=O)(O)OCC(COC(=O){})OC(=O){}"
    one, other = (
        f"{'C' * n}C(=O)OCC(OC(=O){'C' * n})CO" + core.format("C" * m, "C" * n) for n, m in ((13, 9), (11, 14))
    )
    rows = pd.DataFrame([{"id": "a", "source": "", "reference": one, "x": other}])
    first, again = (example_molecules(rows)[1] for _ in range(2))
    assert first["complete_search"].tolist()[1] is False
    assert first["shared_atoms"][1] > 50
    pd.testing.assert_frame_equal(first, again)
