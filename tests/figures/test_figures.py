"""The figures: every system is seen, the data is what is drawn, and the same bytes come out twice."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from nbclient import NotebookClient
from PIL import Image

from lmolt_utils.config.published import METRICS
from lmolt_utils.figures import plots as figures
from lmolt_utils.figures.tables import NOT_RUN, TableResult, build_table


@dataclass(frozen=True)
class Row:
    """A system, as far as tables know it."""

    name: str
    label: str
    rows: dict[str, str] = field(default_factory=dict)


SYSTEMS = [
    Row("cpo", "CPO", {"T2": "CPO", "T3": "CPO"}),
    Row("slerp+cpo", "SLERP+CPO", {"T4": "SLERP+CPO", "T5": "SLERP+CPO"}),
    Row("init", "init only", {"T2": "init only", "T3": "init only"}),
]
SCORES = pd.DataFrame(
    [
        (system.name, metric.task, metric.name, 0.1 * (place + 3), 20)
        for place, system in enumerate(SYSTEMS)
        for metric in METRICS.values()
    ],
    columns=["system", "task", "metric", "value", "n"],
)
NO_SCORES = SCORES.iloc[:0]
SAMPLES = pd.DataFrame(
    [
        ("cpo", task, number, quantity, value)
        for task in ("mol2cap", "cap2mol")
        for number, (deviation, chr_f) in enumerate([(-4, 0.2), (0, 0.6), (2, 0.7), (900, 1.0)])
        for quantity, value in (("length_deviation", deviation), ("chr_f", chr_f))
    ],
    columns=["system", "task", "id", "quantity", "value"],
)
LOGS = pd.DataFrame(
    {
        "system": ["cpo"] * 3,
        "step": [1, 2, 3],
        "loss": [3.0, 2.0, 1.0],
        "seconds": [2.0, 4.0, 6.0],
        "tokens": [100.0, 200.0, 300.0],
    }
)


def tables(scores: pd.DataFrame = SCORES) -> list[TableResult]:
    return [build_table(table_id, SYSTEMS, scores) for table_id in ("T2", "T3", "T4", "T5")]


def words(figure: Figure) -> list[str]:
    """Every visible text in the figure, line breaks undone."""
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible()]
    return [text.get_text().replace("\n", " ") for text in texts]


def every_figure(scores: pd.DataFrame, samples: pd.DataFrame, logs: pd.DataFrame) -> dict[str, figures.Drawn]:
    systems = ["slerp+cpo", "ties+cpo"]
    return {
        "distributions": figures.distributions(samples, {"cpo": "CPO", "kto": "KTO"}),
        "ratio_sweep": figures.ratio_sweep(scores, {"slerp+cpo": 1 / 19, "slerp@0.5+cpo": 0.5, "cpo": 0.95}),
        "merge_comparison": figures.merge_comparison(scores, systems, {"ties+cpo": "TIES"}),
        "word_counts": figures.word_counts(pd.Series([3, 5, 8] if len(scores) else [], dtype=int)),
        "training_curves": figures.training_curves(logs, {"cpo": "CPO", "kto": "KTO"}),
        "paper_against_reproduced": figures.paper_against_reproduced(tables(scores)),
        "overview": figures.overview(tables(scores)),
    }


@pytest.mark.parametrize("empty", [False, True], ids=["partial run", "nothing ran"])
def test_what_did_not_run_is_seen_and_everything_can_be_saved(tmp_path: Path, empty: bool) -> None:
    parts = (NO_SCORES, SAMPLES.iloc[:0], LOGS.iloc[:0]) if empty else (SCORES, SAMPLES, LOGS)
    for name, (figure, data) in every_figure(*parts).items():
        text = " ".join(words(figure)).lower()
        if name != "word_counts" or empty:
            assert NOT_RUN in text, name
        assert len(data) or name == "word_counts"
        figures.save(figure, data, name, tmp_path, alt=f"Test of {name}.")
        assert len(pd.read_csv(tmp_path / f"{name}.csv")) == len(data)


def test_frames_without_columns_count_as_empty() -> None:
    nothing = pd.DataFrame()
    assert all(isinstance(figure, Figure) for figure, _ in every_figure(nothing, nothing, nothing).values())


def test_distributions_hold_each_samples_share() -> None:
    _, data = figures.distributions(SAMPLES, {"cpo": "CPO", "kto": "KTO"})
    shares = data.dropna(subset=["share"]).groupby(["task", "quantity"])["share"].sum()
    assert set(shares.index) == {
        (task, quantity) for task in ("mol2cap", "cap2mol") for quantity in ("length_deviation", "chr_f")
    }
    assert np.allclose(shares, 1)  # the 900 lies in the last bin, not nowhere
    chr_f = data.query("task == 'mol2cap' and quantity == 'chr_f' and system == 'cpo'")
    assert chr_f["mean"].iloc[0] == pytest.approx(0.625)
    assert list(chr_f.query("share > 0")["left"].round(2)) == [0.2, 0.6, 0.68, 0.96]
    assert set(data.query("n == 0")["system"]) == {"cpo", "kto"}  # cpo: no entailment


def test_length_bins_are_whole_and_show_zero() -> None:
    _, data = figures.distributions(SAMPLES.query("value < 900"), {"cpo": "CPO"})
    bins = data.query("task == 'cap2mol' and quantity == 'length_deviation'")
    assert list(bins.query("share > 0")["left"]) == [-4.5, -0.5, 1.5]
    assert set(bins["right"] - bins["left"]) == {1.0}


def test_ratio_sweep_marks_both_ratios_and_the_papers_values() -> None:
    figure, data = figures.ratio_sweep(SCORES, {"slerp+cpo": 1 / 19, "slerp@0.5+cpo": 0.5, "cpo": 0.95})
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1:18", "1:1", "19:1"]
    assert axes.get_xscale() == "logit"
    assert any("slerp@0.5+cpo" in text for text in words(figure))
    paper = data.dropna(subset=["paper"]).set_index("metric")["paper"]
    assert paper.to_dict() == {"BLEU-2": 0.73, "MACCS": 0.73}  # Tables 4 and 5, SLERP+CPO
    assert set(data.query("system == 'slerp@0.5+cpo'")["reproduced"]) == {NOT_RUN}
    for share in (0, 1, 1.2):
        with pytest.raises(ValueError, match="not between 0 and 1"):
            figures.ratio_sweep(SCORES, {"cpo": share})


def test_neighbouring_ratio_labels_do_not_touch() -> None:
    ratios = {f"s{share}": share for share in (0.05, 1 / 19, 0.06, 0.5, 0.94, 0.95)}
    figure, _ = figures.ratio_sweep(SCORES, ratios)
    figure.canvas.draw()
    boxes = sorted((label.get_window_extent() for label in figure.axes[0].get_xticklabels()), key=lambda box: box.x0)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_bars_need_metrics_within_0_and_1() -> None:
    with pytest.raises(ValueError, match="FCD does not lie between 0 and 1"):
        figures.merge_comparison(SCORES, ["cpo"], metrics={"cap2mol": ["FCD"]})
    with pytest.raises(ValueError, match="Levenshtein"):
        figures.overview(tables(), {"cap2mol": "Levenshtein"})


def test_merge_comparison_draws_the_scores() -> None:
    figure, data = figures.merge_comparison(SCORES, ["slerp+cpo", "ties+cpo"], {"ties+cpo": "TIES"})
    heights = [patch.get_height() for axes in figure.axes for patch in axes.patches if isinstance(patch, Rectangle)]
    assert heights == pytest.approx([0.4] * 11)
    assert set(data.query("system == 'ties+cpo'")["reproduced"]) == {NOT_RUN}
    assert any("Not run: TIES." in text for text in words(figure))


def test_word_counts_by_hand_beside_the_papers() -> None:
    figure, data = figures.word_counts(pd.Series([3, 5, 5, 7]))
    text = " ".join(words(figure))
    assert "mean 5.0, SD 1.6, n = 4" in text  # sqrt(8 / 3)
    assert "mean of 31 and an SD of 50 words" in text
    assert data["captions"].sum() == 4
    assert data.set_index("left")["captions"][4.5] == 2


def test_training_curves_state_time_and_throughput() -> None:
    figure, data = figures.training_curves(LOGS, {"cpo": "CPO", "kto": "KTO"})
    assert "6 s, 50 tokens/s" in words(figure)
    assert list(data.query("system == 'kto'")["note"]) == [NOT_RUN]
    bare, _ = figures.training_curves(LOGS.drop(columns="tokens"))
    assert "6 s" in words(bare)
    shown, _ = figures.training_curves(LOGS, {"kto": "KTO"})
    assert any("Logged but not drawn: cpo" in text for text in words(shown))


def test_a_label_is_text_and_no_formula(tmp_path: Path) -> None:
    label = "CPO, ${x_1$ at 5"
    figure, data = figures.training_curves(LOGS, {"cpo": label, "kto": "KTO"})
    assert label in words(figure)
    figures.save(figure, data, "curves", tmp_path, "alt")


def test_paper_against_reproduced_leaves_out_other_scales_only() -> None:
    _, data = figures.paper_against_reproduced(tables())
    assert not {"Levenshtein", "FCD"} & set(data["metric"])
    # T2: 7 rows of 6; T3: 7 of 5; T4: 4 of 6; T5: 4 of 5. The control has no paper value.
    assert len(data) == 42 + 35 + 24 + 20
    assert (data["reproduced"] != NOT_RUN).sum() == 2 * 6 + 2 * 5


def test_overview_has_a_line_per_row_and_says_not_run() -> None:
    figure, data = figures.overview(tables())
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == 7 + 1 + 4
    assert "init only (control)" in labels
    assert words(figure).count(NOT_RUN) == 2 * (12 - 3)
    assert data.query("row == 'CPO' and metric == 'MACCS'")["paper"].item() == 0.77


def test_an_undefined_score_is_not_drawn_as_a_number() -> None:
    scores = SCORES.assign(value=SCORES["value"].where(SCORES["metric"] != "MACCS", np.nan))
    for figure, _ in (figures.overview(tables(scores)), figures.merge_comparison(scores, ["cpo"])):
        assert "undefined" in words(figure)


def test_missing_columns_are_named() -> None:
    with pytest.raises(ValueError, match="samples lack the columns quantity"):
        figures.distributions(SAMPLES.drop(columns="quantity"), {"cpo": "CPO"})
    with pytest.raises(ValueError, match="training logs lack the columns loss"):
        figures.training_curves(LOGS.drop(columns="loss"))


def test_drawing_leaves_no_figure_open_and_no_style_behind() -> None:
    before = dict(matplotlib.rcParams)
    figures.overview(tables())
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_files_carry_alt_text_fonts_and_no_dates(tmp_path: Path) -> None:
    figure, data = figures.overview(tables())
    pdf, png, table = figures.save(figure, data, "overview", tmp_path, alt="Größe: a dot plot.")
    assert [path.name for path in (pdf, png, table)] == ["overview.pdf", "overview.png", "overview.csv"]
    with Image.open(png) as image:
        assert image.info["Description"] == "Größe: a dot plot."
        assert image.size[0] == round(figures.TWO_COLUMNS * 200)
        assert not [key for key in map(str, image.info) if "time" in key.lower() or "date" in key.lower()]
    content = pdf.read_bytes()
    assert b"/FontFile2" in content  # TrueType, embedded: type 42
    assert b"/Type3" not in content
    assert b"CreationDate" not in content
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "overview.csv",
        "overview.pdf",
        "overview.png",
    ]
    with pytest.raises(ValueError, match="no alt text"):
        figures.save(figure, data, "overview", tmp_path, alt=" ")


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_figures
test_figures.save_two(Path(sys.argv[2]))
"""


def save_two(folder: Path) -> None:
    """A figure of histograms and one of dots: between them every kind of mark and note."""
    for name, drawn in (
        ("distributions", figures.distributions(SAMPLES, {"cpo": "CPO", "kto": "KTO"})),
        ("overview", figures.overview(tables())),
    ):
        figures.save(*drawn, name, folder, alt=f"Test of {name}.")


def test_the_same_bytes_from_another_process(tmp_path: Path) -> None:
    """Another hash seed and time zone must not show."""
    save_two(tmp_path / "a")
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path / "b")]
    other = {"MPLBACKEND": "Agg", "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run(command, check=True, env={**os.environ, **other})
    first = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    second = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert len(first) == 6
    assert first == second


def test_a_plot_is_shown_in_the_cell_after_a_companion_figure() -> None:
    cells = (
        "import pandas as pd; from lmolt_utils.figures.plots import training_curves",
        "logs = pd.DataFrame({'system': 'a', 'step': [1, 2], 'loss': [2.0, 1.0], 'seconds': [1.0, 2.0]})",
        "figure, _ = training_curves(logs); figure",
        "import matplotlib.pyplot as plt; _ = plt.plot([1, 2])",
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(book, kernel_name="python3").execute()
    images = ["image/png" in output.get("data", {}) for cell in book.cells[2:] for output in cell.outputs]
    assert images == [True, True]
