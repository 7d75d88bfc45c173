"""The published values: each cell against the papers' own text."""

import re

import pytest

from lmolt_utils.config.published import METRICS, load_published
from lmolt_utils.paths import root

SEEDS = root().parent / "shared" / "seeds"
#: Which text prints which table.
PRINTED_IN = {"T2": "003", "T3": "003", "T4": "003", "T5": "003", "AT1": "002", "AT2": "002"}


def seed_text(number: str) -> str:
    """One paper's text, white space evened out."""
    for path in SEEDS.glob(f"{number}_*.txt"):
        return re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
    pytest.skip(f"the papers' texts are not in {SEEDS}")


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


@pytest.mark.parametrize("table_id", PRINTED_IN)
def test_every_cell_is_printed_in_the_paper(table_id: str) -> None:
    table = load_published().table(table_id)
    text = seed_text(PRINTED_IN[table_id])
    bare = re.sub(r" ?\([^()]*\)", "", text)  # ALMol prints the deltas in brackets within the rows
    for label, values in table.rows.items():
        if None in values:
            assert set(values) == {None}
            continue
        cells = " ".join(f"{value:.2f}" for value in values)
        assert cells in bare, f"{table_id} {label}"
    for delta in table.deltas:
        if table_id.startswith("T"):
            assert " ".join(str(text) for text in delta.printed) in text, f"{table_id} {delta.label}"
        else:
            assert all(printed is None or f"({printed})" in text for printed in delta.printed)


def test_directions_are_the_arrows_of_the_paper() -> None:
    """L4M, Tables 2 to 5: Levenshtein and FCD point down."""
    assert [name for name, known in METRICS.items() if known.better == "lower"] == ["Levenshtein", "FCD"]


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ("a 1:18 ratio (Mol2Cap:Cap2Mol)", {"fig4-best-ratio": 1 / 19}),
        ("in a 19:1 ratio", {"fmix-ratio": 19 / 20}),
        ("increasing to 69%", {"fig5-coverage-ours": 0.69}),
        ("*Meditron*'s 51%", {"fig5-coverage-meditron": 0.51}),
        ("a divergence score of 0.54", {"fig6-divergence-atomic": 0.54}),
        ("0.12–0.17", {"fig6-divergence-others-low": 0.12, "fig6-divergence-others-high": 0.17}),
        ("a KL divergence of 2.53", {"fig7-divergence-long": 2.53}),
        ("shorter by an average of 27 characters", {"fmix-fig1-meditron-length": -27}),
        ("an average of 31 words (STD = 50)", {"fig9-words-mean": 31, "fig9-words-sd": 50}),
    ],
)
def test_facts_are_stated_in_the_text(words: str, facts: dict[str, float]) -> None:
    for fact, value in facts.items():
        assert load_published().facts[fact].value == pytest.approx(value)
        assert words in seed_text("000" if fact.startswith("fmix") else "003")


def test_every_row_and_delta_fits_its_table() -> None:
    published = load_published()
    assert len({table.id for table in published.tables}) == len(published.tables)
    for table in published.tables:
        assert {METRICS[name].task for name in table.metrics} == {table.task}
        lines = [*table.rows.values(), *(delta.printed for delta in table.deltas)]
        assert {len(line) for line in lines} == {len(table.metrics)}
        for ref in (ref for delta in table.deltas for ref in (delta.of, delta.over)):
            assert ref.row in published.table(ref.table).rows
