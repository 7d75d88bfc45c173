"""The published values: rows and facts typed from the papers anew; each cell against their text where it is at hand.

That the printed deltas follow from the cells, or which do not, is tested with the tables (tests/figures).
"""

import re

import pytest

from lmolt_utils.config.published import METRICS, load_published
from lmolt_utils.paths import root


@pytest.mark.parametrize(
    ("table_id", "row", "printed"),
    [
        ("T2", "CPO", "0.62 0.45 0.68 0.50 0.48 0.62"),
        ("T3", "KTO", "0.23 294.63 0.03 0.03 0.02 32.64 0.06"),
        ("T4", "SLERP+DPO", "0.00 0.00 0.02 0.01 0.00 0.00"),
        ("T5", "TIES+DPO", "0.32 93.18 0.31 0.22 0.19 19.80 0.42"),
        ("AT1", "CTO-Lan", "0.62 0.45 0.67 0.50 0.48 0.62"),
        ("AT2", "CTO-Mol", "0.52 0.00 76.95 0.52 0.49 0.37 27.39 0.58"),
    ],
)
def test_a_row_of_each_table_as_the_paper_prints_it(table_id: str, row: str, printed: str) -> None:
    table = load_published().table(table_id)
    cells = dict(zip(table.metrics, map(float, printed.split()), strict=True))
    assert {name: table.value(row, name) for name in table.metrics} == cells


#: Words of Less for More, and what they state; the last two are of the preprint "Feedback-aligned Mixed LLMs".
STATED = {
    "a 1:18 ratio (Mol2Cap:Cap2Mol)": {"fig4-best-ratio": 1 / 19},
    "increasing to 69%": {"fig5-coverage-ours": 0.69},
    "*Meditron*'s 51%": {"fig5-coverage-meditron": 0.51},
    "a divergence score of 0.54": {"fig6-divergence-atomic": 0.54},
    "0.12–0.17": {"fig6-divergence-others-low": 0.12, "fig6-divergence-others-high": 0.17},
    "a KL divergence of 2.53": {"fig7-divergence-long": 2.53},
    "an average of 31 words (STD = 50)": {"fig9-words-mean": 31, "fig9-words-sd": 50},
    "in a 19:1 ratio": {"fmix-ratio": 19 / 20},
    "shorter by an average of 27 characters": {"fmix-fig1-meditron-length": -27},
}


def test_facts_by_the_papers_words_and_directions_by_their_arrows() -> None:
    for words, facts in STATED.items():
        for fact, value in facts.items():
            assert load_published().facts[fact].value == pytest.approx(value), words
    assert [name for name, known in METRICS.items() if known.better == "lower"] == ["Levenshtein", "FCD"]


def test_every_cell_is_printed_in_the_paper() -> None:
    folder = root().parent / "shared" / "seeds"
    if not folder.is_dir():
        pytest.skip(f"the papers' texts are not in {folder}")
    texts = {path.name[:3]: re.sub(r"\s+", " ", path.read_text(encoding="utf-8")) for path in folder.glob("*.txt")}
    for table in load_published().tables:
        text = texts["003" if table.id.startswith("T") else "002"]
        bare = re.sub(r" ?\([^()]*\)", "", text)  # ALMol prints the deltas in brackets within the rows
        for label, values in table.rows.items():
            cells = " ".join(f"{value:.2f}" for value in values if value is not None)
            assert cells in bare, f"{table.id} {label}"
        for delta in table.deltas:
            in_brackets = [f"({cell})" for cell in delta.printed if cell]
            printed = [" ".join(map(str, delta.printed))] if table.id.startswith("T") else in_brackets
            assert all(cells in text for cells in printed), f"{table.id} {delta.label}"
    for words, facts in STATED.items():
        assert words in texts["000" if any(fact.startswith("fmix") for fact in facts) else "003"]
    assert r"Levenshtein \downarrow" in texts["003"]
    assert r"FCD \downarrow" in texts["003"]


def test_every_row_and_delta_fits_its_table() -> None:
    published = load_published()
    assert len({table.id for table in published.tables}) == len(published.tables)
    for table in published.tables:
        assert {METRICS[name].task for name in table.metrics} == {table.task}
        lines = [*table.rows.values(), *(delta.printed for delta in table.deltas)]
        assert {len(line) for line in lines} == {len(table.metrics)}
        for ref in (ref for delta in table.deltas for ref in (delta.of, delta.over)):
            assert ref.row in published.table(ref.table).rows
