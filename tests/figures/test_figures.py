"""The figures: every system is seen, the data is what is drawn, and the same bytes come out twice."""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from nbclient import NotebookClient
from PIL import Image

from lmolt_utils.config.params import load
from lmolt_utils.config.published import METRICS
from lmolt_utils.figures.distributions import distributions, word_counts
from lmolt_utils.figures.scores import merge_comparison, overview, ratio_sweep
from lmolt_utils.figures.style import TWO_COLUMNS, Drawn, save_figure
from lmolt_utils.figures.table_files import TableResult
from lmolt_utils.figures.tables import build_table
from lmolt_utils.figures.views import doubts, training_curves
from lmolt_utils.metrics.results import NOT_RUN
from lmolt_utils.paths import root
from lmolt_utils.run.notebook import Run
from tests.figures.conftest import SYSTEMS, scores_of, words

RAN = SYSTEMS[1:]  # all but the reference
SCORES = scores_of(*[(s.name, m.task, m.name, 0.1 * (i + 3)) for i, s in enumerate(RAN) for m in METRICS.values()])
RATIOS = {"slerp+cpo": 1 / 19, "slerp@0.5+cpo": 0.5, "cpo": 0.95}
SAMPLES = pd.DataFrame(
    [
        ("cpo", task, number, quantity, value)
        for task in ("mol2cap", "cap2mol")
        for number, (deviation, chr_f) in enumerate([(-4, 0.2), (0, 0.6), (2, 0.7), (900, 1.0)])
        for quantity, value in (("length_deviation", deviation), ("chr_f", chr_f))
    ],
    columns=["system", "task", "id", "quantity", "value"],
)
SHOWN = {"cpo": "CPO", "kto": "KTO"}
MERGES = {"slerp+cpo": "SLERP", "ties+cpo": "TIES"}
LOGS = pd.DataFrame(
    {"system": "CPO", "step": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "seconds": [2.0, 4, 6], "tokens": [100.0, 200, 300]}
)


def tables(scores: pd.DataFrame = SCORES) -> list[TableResult]:
    names = ("T2", "T3", "T4", "T5")
    return [build_table(name, RAN, scores, significance=pd.DataFrame(), context={}) for name in names]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """The overview, with intervals."""
    return overview(tables(SCORES.assign(low=SCORES["value"] - 0.03, high=SCORES["value"] + 0.05)))


@pytest.mark.parametrize("rows", [None, 0], ids=["partial run", "nothing ran"])
def test_what_did_not_run_is_seen_and_everything_can_be_drawn(rows: int | None) -> None:
    scores = SCORES[:rows]
    every = [distributions(SAMPLES[:rows], SHOWN), ratio_sweep(scores, RATIOS), merge_comparison(scores, MERGES)]
    every += [overview(tables(scores)), *([training_curves(LOGS[:0])] if rows == 0 else [])]
    for figure, _ in every:
        assert NOT_RUN in words(figure).lower(), figure.get_label()
        figure.draw_without_rendering()
    assert plt.get_fignums() == [], "a notebook shows each once"


def test_distributions_hold_each_samples_share() -> None:
    _, data = distributions(SAMPLES, SHOWN)
    shares = data.dropna(subset=["share"]).groupby(["task", "quantity"])["share"].sum()
    assert len(shares) == 4
    assert np.allclose(shares, 1)  # the 900 lies in the last bin, not nowhere
    chr_f = data.query("task == 'mol2cap' and quantity == 'chr_f' and system == 'cpo'")
    assert chr_f["mean"].iloc[0] == pytest.approx(0.625)
    assert list(chr_f.query("share > 0")["left"].round(2)) == [0.2, 0.6, 0.68, 0.96]
    assert set(data.query("n == 0")["system"]) == {"cpo", "kto"}  # cpo: no entailment
    _, data = distributions(SAMPLES.query("value < 900"), {"cpo": "CPO"})
    lengths = data.query("task == 'cap2mol' and quantity == 'length_deviation'")
    assert list(lengths.query("share > 0")["left"]) == [-4.5, -0.5, 1.5], "bins hold whole lengths, one of them 0"


def test_ratio_sweep_marks_both_ratios_and_the_papers_values() -> None:
    figure, data = ratio_sweep(SCORES, RATIOS)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1:18", "1:1", "19:1"]
    assert "Not run: 1:1." in words(figure)
    paper = data.dropna(subset=["paper"]).set_index("metric")["paper"]
    assert paper.to_dict() == {"BLEU-2": 0.73, "MACCS": 0.73}  # Tables 4 and 5, SLERP+CPO
    reproduced = data.set_index(["system", "metric"])["reproduced"]
    assert reproduced["slerp@0.5+cpo", "MACCS"] == NOT_RUN
    assert reproduced["slerp+cpo", "MACCS"] == pytest.approx(0.4)


def test_merge_comparison_draws_the_scores() -> None:
    figure, data = merge_comparison(SCORES, MERGES)
    heights = [patch.get_height() for axes in figure.axes for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [height for height in heights if not np.isnan(height)] == pytest.approx([0.4] * 11)
    assert set(data.query("system == 'ties+cpo'")["reproduced"]) == {NOT_RUN}
    assert "Not run: TIES." in words(figure)


def test_intervals_are_drawn_wherever_scores_are(drawn: Drawn) -> None:
    scores = SCORES.assign(low=SCORES["value"] - 0.03, high=SCORES["value"] + 0.05)
    every = (drawn, ratio_sweep(scores, RATIOS), merge_comparison(scores, MERGES))
    for (figure, data), bars in zip(every, (6, 4, 11), strict=True):
        collections = [each for axes in figure.axes for each in axes.collections if isinstance(each, LineCollection)]
        segments = [segment for lines in collections for segment in lines.get_segments()]
        lengths = [np.ptp(segment, axis=0).max() for segment in segments if len(segment) and np.isfinite(segment).all()]
        assert lengths == pytest.approx([0.08] * bars)
        assert data["low"].notna().sum() == bars


def test_word_counts_by_hand_beside_the_papers() -> None:
    figure, data = word_counts(pd.Series([3, 5, 5, 7]), (5, 7))
    text = words(figure)
    assert "mean 5.0, SD 1.6, n = 4" in text  # sqrt(8 / 3)
    assert "mean of 31 and an SD of 50 words" in text
    assert "3 of at least 5 words, 1 of at least 7 words" in text
    assert data.set_index("left")["captions"].to_dict() == {2.5: 1, 3.5: 0, 4.5: 2, 5.5: 0, 6.5: 1}


def test_a_model_that_does_not_know_the_corpus_says_so() -> None:
    logs = pd.DataFrame({"system": "A", "loss": [1.0] * 10 + [2.0] * 10})
    scores = pd.DataFrame({"system": "A", "task": "cap2mol", "Chr-F": [0.1, 0.3], "Chr-F, next row": [0.3, 0.1]})
    assert [line[:20] for line in doubts(logs, scores)] == ["A: the loss rose, fr", "A: its molecules are"]
    assert doubts(logs[::-1], scores.assign(**{"Chr-F": [0.8, 0.7]})) == []


def test_a_label_is_text_and_no_formula() -> None:
    label = "CPO, ${x_1$ at 5"
    figure, _ = training_curves(LOGS.assign(system=label))
    assert label in words(figure)
    assert "6 s, 50 tokens/s" in words(figure)
    figure.draw_without_rendering()


def test_overview_has_a_line_per_row_and_says_not_run(drawn: Drawn) -> None:
    figure, data = drawn
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == 7 + 1 + 4
    assert "init only (control)" in labels
    assert words(figure).count(NOT_RUN) == 2 * (12 - 3)
    cpo = data.query("row == 'CPO' and metric == 'MACCS'")
    assert (cpo["paper"].item(), cpo["reproduced"].item()) == (0.77, pytest.approx(0.3))


def test_an_undefined_score_is_not_drawn_as_a_number() -> None:
    scores = SCORES.assign(value=SCORES["value"].where(SCORES["metric"] != "MACCS", np.nan))
    every = (overview(tables(scores)), merge_comparison(scores, {"cpo": "CPO"}), ratio_sweep(scores, RATIOS))
    for figure, data in every:
        assert "undefined" in words(figure)
        assert "undefined" in set(data["reproduced"])


def save_two(folder: Path) -> Run:
    """A figure of histograms and one of dots: between them every kind of mark and note."""
    run = Run("08_figures", folder, load("smoke"), changed={"seed": 0})  # it writes nowhere else
    save_figure(run, "distributions", distributions(SAMPLES, SHOWN))
    save_figure(run, "overview", overview(tables()))
    return run


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return save_two(tmp_path_factory.mktemp("saved"))


def test_files_carry_alt_text_fonts_and_no_dates(saved: Run) -> None:
    assert sorted(saved.written) == sorted(saved.figures.iterdir())
    assert len(saved.written) == 6
    with Image.open(saved.figures / "overview.png") as image:
        assert image.info["Description"].startswith("One dot plot of every system")
        assert image.size[0] == round(TWO_COLUMNS * 200)
        assert not [key for key in map(str, image.info) if "time" in key.lower() or "date" in key.lower()]
    content = (saved.figures / "overview.pdf").read_bytes()
    assert b"/FontFile2" in content  # TrueType, embedded: type 42
    assert b"/Type3" not in content
    assert b"CreationDate" not in content


def test_a_notebook_shows_a_plot_after_a_companion_figure_and_saves_the_same_bytes(saved: Run, tmp_path: Path) -> None:
    """Another process, hash seed and time zone must not show."""
    cells = (
        f"import pathlib, tests.figures.test_figures as t; _ = t.save_two(pathlib.Path({str(tmp_path)!r}))",
        "figure, _ = t.training_curves(t.LOGS); figure",
        "import matplotlib.pyplot as plt; _ = plt.plot([1, 2])",
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    client = NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": str(root())}})
    client.execute(env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"})
    images = ["image/png" in output.get("data", {}) for cell in book.cells[1:] for output in cell.outputs]
    assert images == [True, True]
    folders = (saved.figures, tmp_path / "figures")
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]
