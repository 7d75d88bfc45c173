"""The tables: nothing vanishes, deltas by hand, three writers that agree."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from lmolt_utils.config.params import load
from lmolt_utils.config.published import METRICS, load_published, pairs_to_test
from lmolt_utils.figures import claims
from lmolt_utils.figures.report import TABLES
from lmolt_utils.figures.results_page import page
from lmolt_utils.figures.table_files import (
    DOES_NOT_FOLLOW,
    WITHIN_ROUNDING,
    TableResult,
    escape_latex,
    to_frame,
    to_latex,
    to_markdown,
    write_table,
)
from lmolt_utils.figures.tables import build_table, caption_context, check_printed
from lmolt_utils.files import write_json
from lmolt_utils.metrics.results import NOT_RUN
from lmolt_utils.run.notebook import Run
from lmolt_utils.run.steps import record_path
from tests.figures.conftest import SYSTEMS, Row, scores_of

SCORES = scores_of(
    ("meditron", "mol2cap", "BLEU-2", 0.4),
    ("cpo", "mol2cap", "BLEU-2", 0.5),
    ("init", "mol2cap", "BLEU-2", 0.0),
    ("slerp+cpo", "mol2cap", "BLEU-2", 0.7),
    ("meditron", "cap2mol", "Levenshtein", 80.0),
    ("cpo", "cap2mol", "Levenshtein", 60.0),
    ("cpo", "cap2mol", "FCD", None),
)


NO_TESTS = pd.DataFrame(columns=["task", "metric", "a", "b", "low", "high", "p_holm"])


def result(
    table: str = "T2",
    scores: pd.DataFrame = SCORES,
    systems: list[Row] = SYSTEMS,
    tests: pd.DataFrame = NO_TESTS,
    **context: str,
) -> TableResult:
    return build_table(table, systems, scores, significance=tests, context=context)


def line(table: TableResult, row: str, kind: str, metric: str) -> dict[str, str]:
    """The one CSV line for a row, kind and metric."""
    (found,) = to_frame(table).query("row == @row and kind == @kind and metric == @metric").to_dict("records")
    return found


def markdown(table: TableResult) -> str:
    """The Markdown without the blanks that pad its cells."""
    return re.sub(" +", " ", to_markdown(table))


# ---- rows and cells ----


def test_rows_are_the_papers_then_the_controls() -> None:
    values = result().values.drop_duplicates("row")
    assert list(values["row"]) == ["TxtChem-T5", "Chem-LLM", "Meditron", "SFT", "DPO", "CPO", "KTO", "init only"]
    assert list(values["title"])[-2:] == ["KTO", "init only (control)"]


@pytest.mark.parametrize("table_id", TABLES)
def test_not_run_never_vanishes(table_id: str) -> None:
    table = result(table_id, SCORES[:0])
    cells, deltas = len(table.values), len(load_published().table(table_id).deltas)
    assert cells == table.values["row"].nunique() * len(table.metrics)
    assert set(to_frame(table).query("kind == 'value'")["reproduced"]) == {NOT_RUN}
    assert to_markdown(table).count(f"{NOT_RUN} (") == cells + 2 * deltas * len(table.metrics)
    rows = to_latex(table).split(r"\midrule")[1]
    assert rows.count(NOT_RUN) == cells + table.values["row"].nunique()  # one more per row: the number of predictions
    named = next(text for text in table.caption if text.startswith("Not run"))
    assert all(row in named for row in table.values["row"])


@pytest.mark.parametrize(
    ("table_id", "shown", "latex"),
    [
        ("T2", "| CPO | 50 | **0.50** (0.62; -0.12) |", r"CPO & 50 & \textbf{0.50} & 0.62 ($-$0.12) &"),
        ("T2", "| TxtChem-T5 | not run | not run (0.08) |", "TxtChem-T5 & not run & not run & 0.08 &"),
        ("T2", "| init only (control) | 50 | 0.00 (–) |", "init only (control) & 50 & 0.00 & -- &"),
        ("AT1", "| SFT-Meditron | not run | not run (–) |", "SFT-Meditron & not run & not run & -- &"),
        ("T3", "undefined (4.19)", "undefined & 4.19"),
        ("T3", "**60.00** (42.65; +17.35)", r"\textbf{60.00} & 42.65 (+17.35)"),  # the lower is the better
        ("T3", "| 80.00 (66.16; +13.84)", "80.00 & 66.16 (+13.84)"),
        ("T5", "-4%‡", r"$-$4\%\textsuperscript{\textdaggerdbl}"),
        ("T5", "+58%†", r"+58\%\textsuperscript{\textdagger}"),
    ],
)
def test_cells_in_markdown_and_latex(table_id: str, shown: str, latex: str) -> None:
    assert shown in markdown(result(table_id))
    assert latex in to_latex(result(table_id))


def test_the_csv_says_what_was_not_run_undefined_or_not_printed() -> None:
    cpo = line(result(), "CPO", "value", "BLEU-2")
    assert cpo == cpo | {"paper": "0.62", "reproduced": "0.5", "to_paper": "-0.12", "n": "50", "system": "cpo"}
    assert line(result(), "init only", "value", "BLEU-2")["to_paper"] == "", "the paper prints nothing to compare with"
    assert line(result(), "CPOvsMED", "difference", "BLEU-2")["to_paper"] == ""
    assert line(result(), "CPO", "value", "METEOR")["reproduced"] == NOT_RUN
    assert line(result(), "init only", "value", "BLEU-2")["paper"] == ""
    assert line(result("T3"), "CPO", "value", "FCD")["reproduced"] == "undefined"
    assert line(result("T3"), "CPOvsMED", "difference", "FCD")["reproduced"] == NOT_RUN  # Meditron has none
    alike = scores_of(("meditron", "mol2cap", "METEOR", 0.6012), ("cpo", "mol2cap", "METEOR", 0.6034))
    assert to_markdown(result("T2", alike)).count("**0.60**") == 2, "values that look alike are both best"


# ---- deltas ----


@pytest.mark.parametrize(
    ("table_id", "delta", "kind", "metric", "paper", "reproduced"),
    [
        ("T2", "CPOvsMED", "difference", "BLEU-2", 0.2, 0.1),
        ("T2", "CPOvsMED", "relative, %", "BLEU-2", 100 * 20 / 42, 25.0),
        ("T3", "CPOvsMED", "difference", "Levenshtein", -23.51, -20.0),
        ("T3", "CPOvsMED", "relative, %", "Levenshtein", 100 * -23.51 / 66.16, -25.0),
        ("T4", "MEDvsSLERP+CPO", "difference", "BLEU-2", 0.31, 0.3),  # against a row of Table 2
    ],
)
def test_deltas_by_hand(table_id: str, delta: str, kind: str, metric: str, paper: float, reproduced: float) -> None:
    found = line(result(table_id), delta, kind, metric)
    assert (float(found["paper"]), float(found["reproduced"])) == pytest.approx((paper, reproduced))
    assert " minus Meditron (T" in found["note"]


def test_a_relative_change_over_what_prints_as_zero_is_undefined() -> None:
    zero = line(result("T4"), "DPOvsTIES+DPO", "relative, %", "BLEU-2")
    assert (zero["paper"], zero["reproduced"]) == ("undefined", NOT_RUN)
    tiny = SCORES.assign(value=SCORES["value"].where(SCORES["system"] != "meditron", 1e-9))
    assert line(result(scores=tiny), "CPOvsMED", "relative, %", "BLEU-2")["reproduced"] == "undefined"


def test_printed_deltas_that_do_not_follow() -> None:
    """By hand, from the printed cells: computed, then printed, where the two differ."""
    lines = pd.concat(table.lines.assign(table=table.id) for table in map(result, TABLES))
    flagged = lines[lines["check"] != ""].set_index(["table", "row", "metric"])["check"]
    assert flagged.to_dict() == {
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
    assert DOES_NOT_FOLLOW in line(result("T5"), "DPOvsTIES+DPO", "as printed", "Validity")["note"]
    assert f"†: {DOES_NOT_FOLLOW}" in to_markdown(result("T5"))
    # A difference in the metric's own unit may be printed rounded.
    assert check_printed("+51%", 93.18 - 42.40, METRICS["Levenshtein"]) == ""
    assert check_printed("+52%", 93.18 - 42.40, METRICS["Levenshtein"]) == DOES_NOT_FOLLOW


# ---- caption ----


def test_the_caption_states_what_the_numbers_are_of() -> None:
    context = {"profile": "cpu", "tokenizer": "SciBERT pieces"}
    assert "n: 50; profile: cpu; tokenizer: SciBERT pieces." in result(**context).caption
    assert "tokenizer" not in " ".join(result("T3", **context).caption)


def test_a_caption_names_the_run_and_what_older_code_made(runs: Path) -> None:
    folder = runs / "smoke+beta=0.5"
    run, output = Run("08_figures", folder, load("smoke"), changed={"beta": 0.5}), folder / "models" / "cpo"
    run.step("train cpo", lambda _: output.write_text("x"), outputs=[output], params={}, say=lambda _: None)
    wanted = {"profile": "smoke, beta = 0.5", "test set": "test", "tokenizer": "none", "METEOR": "none"}
    wanted |= {"training seed": "one: spread not known", "models": "embedded, not the paper's"}
    assert caption_context(run, run.table) == wanted
    record = json.loads(record_path(output).read_text())
    write_json(record_path(output), record | {"code": record["code"] | {"hash": "other"}})
    context = caption_context(run, run.table)
    assert "made by older code, and kept: train cpo" in " ".join(result(**context).caption)
    ledger = claims.verdicts(run, run.table)
    assert "Made by older code, and kept: train cpo." in page({"cpu": ("a toy", ledger)})


# ---- writers ----


def test_labels_are_escaped() -> None:
    special = r"50% & a_b #1 {x} ~^\ $"
    escaped = r"50\% \& a\_b \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} \$"
    assert escape_latex(special) == escaped
    odd = [Row("odd", "odd", {"T2": special}), Row("html", "html", {"T2": "a|b <i>*x*"})]
    table = result("T2", scores_of(("odd", "mol2cap", "BLEU-2", 0.3)), odd)
    assert rf"{escaped} (control) & 50 & \textbf{{0.30}} &" in to_latex(table)
    assert r"a\|b \<i\>\*x\* (control)" in to_markdown(table)
    grid = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in grid} == {9}


@pytest.mark.parametrize("table_id", ["T2", "T5", "AT2"])
def test_latex_has_no_comment_and_no_symbol_that_it_does_not_know(table_id: str) -> None:
    latex = to_latex(result(table_id))
    assert not re.search(r"(?<!\\)%|[^\x00-\x7f]", latex)
    assert rf"\label{{tab:{table_id}}}" in latex


@pytest.mark.slow
def test_latex_compiles(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex on the PATH (Debian: apt-get install texlive-latex-recommended)")
    odd = Row("odd", "odd", {"T2": r"50% & a_b #1 {x} ~^\ $ <|> Δ–≈"})
    tables = [result("T2", scores_of(("odd", "mol2cap", "BLEU-2", 0.3)), [odd]), result("T5"), result("AT2")]
    body = "\n".join(to_latex(table) for table in tables)
    head = r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "tables.tex").write_text(f"{head}\n{body}\n\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-1500:]
    assert "Overfull" not in done.stdout, "wider than the page"


def test_the_files_of_a_table(tmp_path: Path) -> None:
    paths = write_table(result(), tmp_path)
    assert [path.name for path in paths] == ["table_T2.csv", "table_T2.md", "table_T2.tex"]
    assert len(pd.read_csv(paths[0])) == 8 * 6 + 3 * 6


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
    table = result("T2", SPREAD, tests=TESTS)
    shown = markdown(table)
    assert "| **0.50** ± 0.04≈ (0.62; -0.12) |" in shown
    assert "| 0.40 ± 0.04 (0.42; -0.02) |" in shown  # the reference system itself
    assert "| 0.00 ± 0.04 (–) |" in shown  # told from it
    assert "+0.10 ± 0.12≈ (+0.20)" in shown
    assert r"\textbf{0.50}$_{\pm 0.04}{\approx}$ & 0.62" in to_latex(table)
    assert "≈: not to be told from Meditron" in shown
    cpo = line(table, "CPO", "value", "BLEU-2")
    assert [float(cpo[name]) for name in ("low", "high", "p")] == pytest.approx([0.47, 0.55, 0.2])
    assert line(table, "CPOvsMED", "as printed", "BLEU-2")["low"] == ""
    assert float(line(table, "CPOvsMED", "difference", "BLEU-2")["high"]) == 0.22
    turned = result("T4", SPREAD, tests=TESTS)  # tested as Meditron minus SLERP+CPO
    difference = line(turned, "MEDvsSLERP+CPO", "difference", "BLEU-2")
    assert (float(difference["low"]), float(difference["high"])) == (0.2, 0.4)


def test_without_intervals_or_tests_nothing_is_claimed() -> None:
    _, *shown = to_markdown(result()).splitlines()
    assert not re.search("[≈±]", " ".join(shown))


def test_pairs_are_the_reference_and_the_deltas() -> None:
    assert pairs_to_test(SYSTEMS, "mol2cap") == [
        ("cpo", "meditron"),
        ("slerp+cpo", "meditron"),
        ("init", "meditron"),
        ("slerp+cpo", "cpo"),
    ]
    assert pairs_to_test(SYSTEMS[1:2], "mol2cap") == []  # no reference system ran
