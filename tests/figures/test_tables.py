"""The tables: nothing vanishes, deltas by hand, three writers that agree."""

import csv
import io
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from lmolt_utils.config.published import METRICS, load_published, pairs_to_test
from lmolt_utils.figures.tables import (
    DOES_NOT_FOLLOW,
    NOT_RUN,
    WITHIN_ROUNDING,
    TableResult,
    best_reproduced,
    build_table,
    check_printed,
    escape_latex,
    to_frame,
    to_latex,
    to_markdown,
    write_table,
)


@dataclass(frozen=True)
class Row:
    """A system, as far as tables know it."""

    name: str
    label: str
    rows: dict[str, str] = field(default_factory=dict)


SYSTEMS = [
    Row("meditron", "Meditron", {"T2": "Meditron", "T3": "Meditron"}),
    Row("cpo", "CPO", {"T2": "CPO", "T3": "CPO"}),
    Row("slerp+cpo", "SLERP+CPO", {"T4": "SLERP+CPO", "T5": "SLERP+CPO"}),
    Row("init", "init only", {"T2": "init only", "T3": "init only"}),
]


def frame(*rows: tuple[str, str, str, float | None]) -> pd.DataFrame:
    return pd.DataFrame([(*row, 50) for row in rows], columns=["system", "task", "metric", "value", "n"])


SCORES = frame(
    ("meditron", "mol2cap", "BLEU-2", 0.4),
    ("cpo", "mol2cap", "BLEU-2", 0.5),
    ("init", "mol2cap", "BLEU-2", 0.0),
    ("slerp+cpo", "mol2cap", "BLEU-2", 0.7),
    ("meditron", "cap2mol", "Levenshtein", 80.0),
    ("cpo", "cap2mol", "Levenshtein", 60.0),
    ("cpo", "cap2mol", "FCD", None),
)
NO_SCORES = SCORES.iloc[:0]


def result(table: str = "T2", scores: pd.DataFrame = SCORES, **context: str) -> TableResult:
    return build_table(table, SYSTEMS, scores, context=context)


def lines(table: TableResult, row: str, kind: str, metric: str) -> dict[str, str]:
    """The one CSV line for a row, kind and metric."""
    text = to_frame(table).to_csv(index=False)
    found = [
        line
        for line in csv.DictReader(io.StringIO(text))
        if (line["row"], line["kind"], line["metric"]) == (row, kind, metric)
    ]
    assert len(found) == 1
    return found[0]


# ---- rows and cells ----


def test_rows_are_the_papers_then_the_controls() -> None:
    labels = [row.label for row in result().rows]
    assert labels == ["TxtChem-T5", "Chem-LLM", "Meditron", "SFT", "DPO", "CPO", "KTO", "init only"]
    assert [row.label for row in result().rows if row.control] == ["init only"]


def test_reproduced_stands_beside_the_papers_value() -> None:
    line = lines(result(), "CPO", "value", "BLEU-2")
    assert line == line | {"paper": "0.62", "reproduced": "0.5", "n": "50", "system": "cpo"}
    assert "| **0.50** (0.62) |" in to_markdown(result())
    assert r"CPO & 50 & \textbf{0.50} & 0.62 &" in to_latex(result())


@pytest.mark.parametrize("scores", [NO_SCORES, pd.DataFrame()])
@pytest.mark.parametrize("table_id", ["T2", "T3", "T4", "T5", "AT1", "AT2"])
def test_not_run_never_vanishes(table_id: str, scores: pd.DataFrame) -> None:
    table = result(table_id, scores)
    cells = len(table.rows) * len(table.metrics)
    values = to_frame(table).query("kind == 'value'")
    assert len(values) == cells
    assert set(values["reproduced"]) == {NOT_RUN}
    assert to_markdown(table).count(f"{NOT_RUN} (") == cells + 2 * len(table.deltas) * len(table.metrics)
    # One more per row: the number of predictions.
    rows = to_latex(table).split(r"\midrule")[1]
    assert rows.count(NOT_RUN) == cells + len(table.rows)
    for row in table.rows:
        assert row.label in next(line for line in table.caption if line.startswith("Not run"))


def test_baselines_without_a_system_and_partial_systems_say_not_run() -> None:
    assert lines(result(), "Chem-LLM", "value", "METEOR")["reproduced"] == NOT_RUN
    assert lines(result(), "CPO", "value", "METEOR")["reproduced"] == NOT_RUN
    assert "| TxtChem-T5 | not run | not run (0.08) |" in to_markdown(result())


def test_a_control_has_a_dash_for_the_paper() -> None:
    assert "| init only (control) | 50 | 0.00 (–) |" in to_markdown(result())
    assert "init only (control) & 50 & 0.00 & -- &" in to_latex(result())
    assert lines(result(), "init only", "value", "BLEU-2")["paper"] == ""


def test_an_undefined_value_ran() -> None:
    assert "undefined (4.19)" in to_markdown(result("T3"))
    assert lines(result("T3"), "CPO", "value", "FCD")["reproduced"] == "undefined"
    assert lines(result("T3"), "CPOvsMED", "difference", "FCD")["reproduced"] == NOT_RUN  # Meditron has none


def test_a_blank_row_of_the_paper_is_no_zero() -> None:
    assert "| SFT-Meditron | not run | not run (–) |" in to_markdown(result("AT1"))


def test_best_follows_the_direction_and_ignores_what_is_undefined() -> None:
    table = result("T3")
    assert best_reproduced(table, METRICS["Levenshtein"]) == 60.0
    assert best_reproduced(table, METRICS["FCD"]) is None
    assert "**60.00** (42.65)" in to_markdown(table)
    assert "**80.00**" not in to_markdown(table)
    assert best_reproduced(result(), METRICS["BLEU-2"]) == 0.5


def test_values_that_look_alike_are_both_best() -> None:
    scores = frame(("meditron", "mol2cap", "METEOR", 0.6012), ("cpo", "mol2cap", "METEOR", 0.6034))
    assert to_markdown(result("T2", scores)).count("**0.60**") == 2


# ---- deltas ----


def test_deltas_by_hand() -> None:
    difference = lines(result(), "CPOvsMED", "difference", "BLEU-2")
    relative = lines(result(), "CPOvsMED", "relative, %", "BLEU-2")
    assert float(difference["reproduced"]) == pytest.approx(0.1)
    assert float(difference["paper"]) == pytest.approx(0.2)
    assert float(relative["reproduced"]) == pytest.approx(25.0)
    assert float(relative["paper"]) == pytest.approx(47.619047, abs=1e-5)  # 20 of 42
    lev = result("T3")
    assert float(lines(lev, "CPOvsMED", "difference", "Levenshtein")["paper"]) == pytest.approx(-23.51)
    assert float(lines(lev, "CPOvsMED", "relative, %", "Levenshtein")["reproduced"]) == -25.0


def test_deltas_reach_across_tables_and_say_what_they_compare() -> None:
    line = lines(result("T4"), "MEDvsSLERP+CPO", "difference", "BLEU-2")
    assert float(line["reproduced"]) == pytest.approx(0.3)
    assert line["note"] == "SLERP+CPO (T4) minus Meditron (T2)"


def test_a_relative_change_over_zero_is_undefined() -> None:
    line = lines(result("T4"), "DPOvsTIES+DPO", "relative, %", "BLEU-2")
    assert (line["paper"], line["reproduced"]) == ("undefined", NOT_RUN)


def test_a_relative_change_over_what_prints_as_zero_is_undefined() -> None:
    tiny = SCORES.assign(value=SCORES["value"].where(SCORES["system"] != "meditron", 1e-9))
    assert lines(result(scores=tiny), "CPOvsMED", "relative, %", "BLEU-2")["reproduced"] == "undefined"


def test_printed_deltas_that_do_not_follow() -> None:
    """By hand, from the printed cells: computed, then printed, where the two differ."""
    flagged = {
        (table.id, delta.label, name): cell.check
        for table in (result(table_id) for table_id in ("T2", "T3", "T4", "T5", "AT1", "AT2"))
        for delta in table.deltas
        for name, cell in delta.cells.items()
        if cell.check
    }
    assert flagged == {
        ("T2", "CPOvsMED", "BLEU-4"): DOES_NOT_FOLLOW,  # +15 +19
        ("T3", "CPOvsMED", "BLEU"): WITHIN_ROUNDING,  # +28 +29
        ("T3", "CPOvsMED", "Levenshtein"): DOES_NOT_FOLLOW,  # -23.51 -23.76
        ("T3", "CPOvsMED", "Morgan"): WITHIN_ROUNDING,  # +29 +30
        ("T3", "CPOvsMED", "Validity"): DOES_NOT_FOLLOW,  # +43 +41
        ("T4", "MEDvsSLERP+CPO", "BLEU-4"): DOES_NOT_FOLLOW,  # +23 +28
        ("T5", "DPOvsTIES+DPO", "FCD"): DOES_NOT_FOLLOW,  # +9.33 +7.33
        ("T5", "DPOvsTIES+DPO", "Validity"): DOES_NOT_FOLLOW,  # -57 +58
        ("T5", "CPOvsSLERP+CPO", "FCD"): DOES_NOT_FOLLOW,  # +7.03 +5
        ("T5", "CPOvsSLERP+CPO", "Validity"): WITHIN_ROUNDING,  # -5 -4
        ("T5", "MEDvsSLERP+CPO", "BLEU"): WITHIN_ROUNDING,  # +28 +29
        ("T5", "MEDvsSLERP+CPO", "Levenshtein"): DOES_NOT_FOLLOW,  # -22.15 -22.40
        ("T5", "MEDvsSLERP+CPO", "Morgan"): WITHIN_ROUNDING,  # +26 +27
        ("T5", "MEDvsSLERP+CPO", "FCD"): DOES_NOT_FOLLOW,  # -2.42 -4.45
        ("T5", "MEDvsSLERP+CPO", "Validity"): WITHIN_ROUNDING,  # +38 +37
        ("AT1", "CTO-Lan", "ROUGE-1"): WITHIN_ROUNDING,  # +0.04 +0.03
        ("AT1", "CTO-Mol", "ROUGE-1"): DOES_NOT_FOLLOW,  # +0.13 +0.10
        ("AT2", "CTO-Mol", "Levenshtein"): DOES_NOT_FOLLOW,  # +10.79 +10.43
    }


def test_flags_are_shown_and_explained() -> None:
    markdown = to_markdown(result("T5"))
    assert "+58%†" in markdown
    assert "-4%‡" in markdown
    assert f"†: {DOES_NOT_FOLLOW}" in markdown
    assert "per cent sign is the absolute difference, times 100 (not for Levenshtein and FCD)" in markdown
    assert DOES_NOT_FOLLOW in lines(result("T5"), "DPOvsTIES+DPO", "as printed", "Validity")["note"]


def test_a_raw_difference_may_be_printed_rounded() -> None:
    assert check_printed("+51%", 93.18 - 42.40, METRICS["Levenshtein"]) == ""
    assert check_printed("+52%", 93.18 - 42.40, METRICS["Levenshtein"]) == DOES_NOT_FOLLOW


# ---- caption ----


def test_caption_states_profile_test_set_n_tokenizer_and_scale() -> None:
    context = {
        "profile": "cpu",
        "test set": "embedded test",
        "tokenizer": "SciBERT pieces",
        "scale": "embedded",
    }
    text = " ".join(result("T2", SCORES, **context).caption)
    assert "Profile: cpu; test set: embedded test; n: 50; tokenizer: SciBERT pieces." in text
    assert "Embedded scale: not the paper's models." in text
    bare = " ".join(result().caption)
    assert "Profile: not stated; test set: not stated; n: 50; tokenizer: not stated." in bare
    assert "Embedded" not in bare


def test_scores_without_a_system_are_named() -> None:
    scores = pd.concat([SCORES, frame(("ghost", "mol2cap", "BLEU-2", 0.9))])
    assert "Scored, but not in the systems table: ghost." in result("T2", scores).caption


# ---- wrong input ----


def test_two_scores_or_missing_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="two scores for system 'meditron', mol2cap, BLEU-2"):
        result("T2", pd.concat([SCORES, SCORES]))
    with pytest.raises(ValueError, match="scores lack the columns n"):
        result("T2", SCORES.drop(columns="n"))


def test_rows_that_collide_or_are_misspelt_are_refused() -> None:
    twice = [*SYSTEMS, Row("cpo2", "CPO again", {"T2": "CPO"})]
    with pytest.raises(ValueError, match="'cpo' and 'cpo2' both claim row 'CPO' of table T2"):
        build_table("T2", twice, SCORES)
    with pytest.raises(ValueError, match=r"no row 'Slerp \+ CPO'; did you mean 'SLERP\+CPO'"):
        build_table("T2", [Row("s", "S", {"T4": "Slerp + CPO"})], SCORES)
    with pytest.raises(ValueError, match="no published table 'T9'"):
        build_table("T2", [Row("s", "S", {"T9": "S"})], SCORES)


# ---- writers ----


def test_latex_escapes() -> None:
    assert escape_latex(r"50% & a_b #1 {x} ~^\ $") == (
        r"50\% \& a\_b \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} \$"
    )
    odd = Row("odd", "α_1 & 50% #", {"T2": "α_1 & 50% #"})
    latex = to_latex(build_table("T2", [odd], frame(("odd", "mol2cap", "BLEU-2", 0.3))))
    assert r"\_1 \& 50\% \# (control) & 50 & \textbf{0.30} &" in latex


@pytest.mark.parametrize("table_id", ["T2", "T5", "AT2"])
def test_latex_rows_fill_the_columns(table_id: str) -> None:
    latex = to_latex(result(table_id))
    columns = 2 + 2 * len(load_published().table(table_id).metrics)
    assert f"\\begin{{tabular}}{{l{'r' * (columns - 1)}}}" in latex
    for line in latex.splitlines():
        if not line.endswith(r"\\"):
            continue
        spans = [int(span) for span in re.findall(r"\\multicolumn{(\d+)}", line)]
        cells = len(re.findall(r"(?<!\\)&", line)) + 1
        assert cells - len(spans) + sum(spans) == columns, line
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    assert not re.search(r"(?<!\\)%", latex)
    assert "$-$" in latex


def test_markdown_escapes_and_is_a_grid() -> None:
    odd = Row("odd", "a|b <i>*x*", {"T2": "a|b <i>*x*"})
    markdown = to_markdown(build_table("T2", [odd], NO_SCORES))
    assert r"a\|b \<i\>\*x\*" in markdown
    grid = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in grid} == {9}


def test_writing_twice_gives_the_same_bytes_and_no_leftovers(tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in write_table(result(), tmp_path)}
    second = {path.name: path.read_bytes() for path in write_table(result(), tmp_path)}
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "table_T2.csv",
        "table_T2.md",
        "table_T2.tex",
    ]
    table = pd.read_csv(tmp_path / "table_T2.csv", keep_default_na=False)
    required = ["table", "row", "kind", "metric", "paper", "reproduced", "n", "system"]
    assert list(table.columns)[:8] == required
    assert len(table) == 8 * 6 + 3 * 6


def test_all_three_writers_show_the_same_numbers(tmp_path: Path) -> None:
    table = result("T3")
    values = to_frame(table).query("kind == 'value' and reproduced not in ('not run', 'undefined')")
    for value in values["reproduced"].astype(float):
        assert not math.isnan(value)
        assert f"{value:.2f}" in to_markdown(table)
        assert f"{value:.2f}" in to_latex(table)


# ---- intervals and noise ----

SPREAD = SCORES.assign(low=SCORES["value"] - 0.03, high=SCORES["value"] + 0.05)
TESTS = pd.DataFrame(
    [
        ("mol2cap", "BLEU-2", "cpo", "meditron", -0.02, 0.22, 0.2),
        ("mol2cap", "BLEU-2", "init", "meditron", -0.5, -0.3, 0.001),
        ("mol2cap", "BLEU-2", "meditron", "slerp+cpo", -0.4, -0.2, 0.002),
    ],
    columns=["task", "metric", "a", "b", "low", "high", "p_holm"],
)


def test_values_show_half_their_interval_and_noise_is_marked() -> None:
    table = build_table("T2", SYSTEMS, SPREAD, significance=TESTS)
    markdown, latex = to_markdown(table), to_latex(table)
    assert "| **0.50** ± 0.04≈ (0.62) |" in markdown
    assert "| 0.40 ± 0.04 (0.42) |" in markdown  # the reference system itself
    assert "| 0.00 ± 0.04 (–) |" in markdown  # told from it
    assert "+0.10 ± 0.12≈ (+0.20)" in markdown
    assert r"\textbf{0.50}$_{\pm 0.04}{\approx}$ & 0.62" in latex
    assert "≈: within noise, that is not to be told from Meditron" in markdown
    assert not re.search(r"[≈±≥]", latex)
    line = lines(table, "CPO", "value", "BLEU-2")
    assert [float(line[name]) for name in ("low", "high", "p")] == pytest.approx([0.47, 0.55, 0.2])
    assert lines(table, "CPOvsMED", "as printed", "BLEU-2")["low"] == ""
    assert float(lines(table, "CPOvsMED", "difference", "BLEU-2")["high"]) == 0.22


def test_a_pair_tested_the_other_way_round_is_turned() -> None:
    difference = lines(build_table("T4", SYSTEMS, SPREAD, significance=TESTS), "MEDvsSLERP+CPO", "difference", "BLEU-2")
    assert (float(difference["low"]), float(difference["high"])) == (0.2, 0.4)


def test_without_intervals_or_tests_nothing_is_claimed() -> None:
    markdown = to_markdown(build_table("T2", SYSTEMS, SCORES, significance=TESTS.iloc[:0]))
    assert "No intervals: these scores were made without them." in markdown
    assert "≈" not in markdown
    assert "±" not in markdown
    with pytest.raises(ValueError, match="significance lack the columns p_holm"):
        build_table("T2", SYSTEMS, SCORES, significance=TESTS.drop(columns="p_holm"))


def test_pairs_are_the_reference_and_the_deltas() -> None:
    assert pairs_to_test(SYSTEMS, "mol2cap") == [
        ("cpo", "meditron"),
        ("slerp+cpo", "meditron"),
        ("init", "meditron"),
        ("slerp+cpo", "cpo"),
    ]
    assert pairs_to_test(SYSTEMS[1:2], "mol2cap") == []  # no reference system ran
