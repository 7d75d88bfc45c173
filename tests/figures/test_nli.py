"""Figures of the NLI evaluation: what they plot is what the files hold, and what is missing is said."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from lmolt_utils.figures.author_scores import GROUPS, read_author_scores
from lmolt_utils.figures.distributions import word_counts
from lmolt_utils.figures.nli import METHODS, author_distributions, contrasts, coverage_contrast, nli_distributions
from lmolt_utils.figures.style import save_figure
from lmolt_utils.files import BadFileError
from lmolt_utils.nli.divergence import relative_entropy
from lmolt_utils.nli.evaluation import divergences
from lmolt_utils.run.notebook import Run

SHARED = Path(os.environ.get("LMOLT_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
AUTHORS = SHARED / "author" / "figure1_mol2cap_scores.csv"
PAIR = {"slerp+cpo": "SLERP+CPO", "meditron": "Meditron"}


def made_up(methods: list[str], n: int = 60) -> pd.DataFrame:
    """Rows of two systems; the first 40 references have 40 words, the others 10."""
    rng = np.random.default_rng(0)
    frames = [
        pd.DataFrame(
            {
                "system": system,
                "id": [f"e{i}" for i in range(n)],
                "method": method,
                "hallucination": rng.random(n) * 0.1,
                "coverage": rng.beta(a, 2, n),
                "unsupported": rng.random(n),
                "words": [40] * 40 + [10] * (n - 40),
            }
        )
        for system, a in (("slerp+cpo", 5), ("meditron", 2))
        for method in methods
    ]
    return pd.concat(frames, ignore_index=True)


def words(figure: Figure) -> str:
    found = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible()]
    return " ".join(found).replace("\n", " ")


def test_contrast_draws_the_rows_of_its_cut_and_the_files_numbers(run: Run) -> None:
    rows = made_up(["atomic", "full text", "sentence", "SummaC-ZS"])
    table = divergences(rows, *PAIR, cuts=(30, 50))
    everyone, long, extreme = contrasts((30, 50))
    figure, data = coverage_contrast(rows, table, long, PAIR)
    bars = data.dropna(subset=["share"])
    assert set(bars["n"]) == {40}
    assert np.allclose(bars.groupby(["panel", "system"])["share"].sum(), 1)
    at_least = rows[(rows["method"] == "atomic") & (rows["words"] >= 30)]
    sides = [at_least.loc[at_least["system"] == name, "coverage"].to_numpy() for name in PAIR]
    drawn = data[data["panel"] == "relative entropy"].dropna(subset=["kl"]).set_index("system")
    assert drawn.loc["atomic", "kl"] == pytest.approx(relative_entropy(*sides))
    assert drawn.loc["atomic", "random_low"] <= drawn.loc["atomic", "random"] <= drawn.loc["atomic", "random_high"]
    assert list(data.dropna(subset=["paper"])["paper"]) == [2.53, 2.53]
    assert data.loc[data["panel"] == "SummaC-Conv", "note"].tolist() == ["not run"]
    assert "at least 30 words (the paper: 50), n = 40" in words(figure)
    assert "as many random captions" in words(figure)
    save_figure(run, "contrast", (figure, data), "Test.")

    figure, data = coverage_contrast(rows, table, everyone, PAIR)
    assert set(data.dropna(subset=["share"])["n"]) == {60}
    assert set(data.dropna(subset=["paper"])["paper"]) == {0.54, 0.12, 0.17}
    assert "all captions, n = 60" in words(figure)

    figure, data = coverage_contrast(rows, table, extreme, PAIR)  # no reference has 50 words
    assert data.dropna(subset=["share"]).empty
    assert words(figure).count("n = 0: too few (30 needed)") == 4
    assert "undefined" in words(figure)
    assert "needs 30" in data["note"].iloc[0]


def test_contrast_says_which_system_did_not_run() -> None:
    figure, data = coverage_contrast(
        made_up(["atomic"]), pd.DataFrame(), contrasts((50, 70))[0], PAIR, "slerp+cpo not run"
    )
    assert "Slerp+cpo not run." in words(figure)
    assert list(data["note"]) == ["not run"] * len(METHODS)


def test_scores_of_the_atomic_method_alone_with_the_papers_coverage() -> None:
    rows = made_up(["atomic", "sentence"])
    rows.loc[(rows["method"] == "sentence"), "coverage"] = 0.0
    rows.loc[0, "hallucination"] = np.nan  # an empty output: undefined, left out
    figure, data = nli_distributions(rows, {"meditron": "Meditron", "cpo": "CPO", "slerp+cpo": "SLERP+CPO"})
    bars = (
        data.dropna(subset=["share"]).groupby(["panel", "system"]).agg({"share": "sum", "mean": "first", "n": "first"})
    )
    assert np.allclose(bars["share"], 1)
    assert bars.loc[("hallucination", "slerp+cpo"), "n"] == 59
    expected = rows[(rows["method"] == "atomic") & (rows["system"] == "meditron")]["coverage"].mean()
    assert bars.loc[("coverage", "meditron"), "mean"] == pytest.approx(expected)
    printed = data[data["system"].astype(str).str.startswith("paper")].set_index("system")["mean"]
    assert printed.to_dict() == {"paper, Meditron": 0.51, "paper, SLERP+CPO": 0.69}
    assert "Not run: CPO." in words(figure)


def test_word_cuts_are_counted() -> None:
    figure, _ = word_counts(pd.Series([10, 20, 30, 30, 50]), (30, 50))
    assert "3 of at least 30 words, 1 of at least 50 words" in words(figure)


SAMPLES = pd.DataFrame(
    [
        (system, task, f"e{i}", quantity, value)
        for system in ("meditron", "cpo")
        for task in ("mol2cap", "cap2mol")
        for i in range(4)
        for quantity, value in (("length_deviation", i - 2.0), ("entailment", i / 4))
    ],
    columns=["system", "task", "id", "quantity", "value"],
)
LABELS = {"meditron": "Meditron", "cpo": "Lan", "cpo-mol2cap": "Mol"}


def test_without_the_authors_file_the_figure_says_so() -> None:
    figure, data = author_distributions(SAMPLES, None, LABELS)
    assert words(figure).count("file not there") == 2
    assert "Not run: Mol." in words(figure)
    drawn = data.dropna(subset=["share"])
    assert set(drawn["panel"]) == {"This run, length_deviation", "This run, entailment"}
    assert set(drawn["n"]) == {4}  # captions only


@pytest.mark.skipif(not AUTHORS.is_file(), reason=f"the authors' scores are not in {AUTHORS.parent}")
def test_the_authors_scores_are_drawn_as_they_are() -> None:
    """3 x 3,000 captions; means of 0.171, 0.246 and 0.125, counted apart from this code."""
    figure, data = author_distributions(SAMPLES, read_author_scores(AUTHORS), LABELS)
    bars = data[data["panel"] == "The authors' file, entailment"].groupby("system").agg({"n": "first", "mean": "first"})
    assert set(bars["n"]) == {3000}
    for system, mean in {"meditron": 0.171, "cpo": 0.246, "cpo-mol2cap": 0.125}.items():
        assert bars.loc[system, "mean"] == pytest.approx(mean, abs=0.001)
    lengths = data[data["panel"] == "The authors' file, length_deviation"].groupby("system")["mean"].first()
    assert lengths.round(1).to_dict() == {"meditron": -15.3, "cpo": -5.7, "cpo-mol2cap": -1.9}
    assert "not there" not in words(figure)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing or no file.*alignment_tuning_LLMS"),
        ("", "not the CSV"),
        (",score,length\n0,0.5,1\n", "no column 'group'"),
        (",score,length,group\n0,0.5,1,GPT\n", "group 'GPT'; known are Meditron"),
        (",score,length,group\n0,0.5,1,Meditron\n1,,1,Meditron\n", "line 3: score is no number"),
        (",score,length,group\n0,0.5,long,Meditron\n", "line 2: length is no number"),
        (",score,length,group\n0,50,1,Meditron\n", "outside 0..1"),
    ],
)
def test_a_bad_authors_file_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "scores.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadFileError, match=message):
        read_author_scores(path)
    assert len(GROUPS) == 3
