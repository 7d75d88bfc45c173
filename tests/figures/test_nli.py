"""Figures of the NLI evaluation: what they plot is what the files hold, and what is missing is said."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lmolt_utils.figures.nli import (
    author_distributions,
    coverage_contrast,
    fact_matrices,
    nli_distributions,
    read_author_scores,
)
from lmolt_utils.figures.views import clipped, folded
from lmolt_utils.files import BadFileError
from lmolt_utils.nli.divergence import divergences, relative_entropy
from tests.figures.conftest import words

PAIR = {"slerp+cpo": "SLERP+CPO", "meditron": "Meditron"}


def made_up(methods: list[str]) -> pd.DataFrame:
    """60 rows of two systems; the first 40 references have 40 words, the others 10."""
    rng = np.random.default_rng(0)
    lines = [
        (system, f"e{i}", method, rng.random() * 0.1, rng.beta(a, 2), rng.random(), 40 if i < 40 else 10)
        for system, a in (("slerp+cpo", 5), ("meditron", 2))
        for method in methods
        for i in range(60)
    ]
    columns = ["system", "id", "method", "hallucination", "coverage", "unsupported", "words"]
    return pd.DataFrame(lines, columns=columns)


def test_contrast_draws_the_rows_of_its_cut_and_the_files_numbers() -> None:
    rows = made_up(["atomic", "full text", "sentence", "SummaC-ZS"])
    given = (rows, divergences(rows, *PAIR, cuts=(30, 50)), PAIR, (30, 50), "")
    figure, data = coverage_contrast("Fig. 7", *given)
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

    figure, data = coverage_contrast("Fig. 6", *given)
    assert set(data.dropna(subset=["share"])["n"]) == {60}
    assert set(data.dropna(subset=["paper"])["paper"]) == {0.54, 0.12, 0.17}
    assert "all captions, n = 60" in words(figure)

    figure, data = coverage_contrast("Fig. 10", *given)  # no reference has 50 words
    assert data.dropna(subset=["share"]).empty
    assert words(figure).count("n = 0: too few (30 needed)") == 4
    assert "undefined" in words(figure)
    assert "needs 30" in data["note"].iloc[0]


def test_contrast_says_which_system_did_not_run() -> None:
    rows = made_up(["atomic"])
    figure, data = coverage_contrast("Fig. 6", rows, pd.DataFrame(), PAIR, (50, 70), "slerp+cpo not run")
    assert "Slerp+cpo not run." in words(figure)
    assert list(data["note"]) == ["not run"] * 5


def test_scores_of_the_atomic_method_alone_with_the_papers_coverage() -> None:
    rows = made_up(["atomic", "sentence"])
    rows.loc[(rows["method"] == "sentence"), "coverage"] = 0.0
    rows.loc[0, "hallucination"] = np.nan  # an empty output: undefined, left out
    figure, data = nli_distributions(rows, {"meditron": "Meditron", "cpo": "CPO", "slerp+cpo": "SLERP+CPO"})
    bars = data.dropna(subset=["share"]).set_index(["panel", "system"]).sort_index()
    assert np.allclose(bars.groupby(level=[0, 1])["share"].sum(), 1)
    assert set(bars.loc[("hallucination", "slerp+cpo"), "n"]) == {59}
    expected = rows[(rows["method"] == "atomic") & (rows["system"] == "meditron")]["coverage"].mean()
    assert bars.loc[("coverage", "meditron"), "mean"].iloc[0] == pytest.approx(expected)
    printed = data[data["system"].astype(str).str.startswith("paper")].set_index("system")["mean"]
    assert printed.to_dict() == {"paper, Meditron": 0.51, "paper, SLERP+CPO": 0.69}
    assert "Not run: CPO." in words(figure)
    assert "more than 99 %" not in words(figure)
    figure, _ = nli_distributions(rows.assign(hallucination=0.01), PAIR)
    assert words(figure).count("more than 99 % of each system lie between 0 and 0.04") == 1


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


def test_without_the_authors_file_only_this_run_is_drawn() -> None:
    figure, data = author_distributions(SAMPLES, None, LABELS)
    assert len(figure.axes) == 2
    assert "not given (parameter author_scores). Not run: Mol." in words(figure)
    drawn = data.dropna(subset=["share"])
    assert set(drawn["panel"]) == {"This run, length_deviation", "This run, entailment"}
    assert set(drawn["n"]) == {4}  # captions only


def test_the_authors_scores_are_drawn_as_they_are(tmp_path: Path) -> None:
    lines = ["0,0.5,-15,Meditron", "1,0.1,-5,Meditron", "0,0.9,3,CPO-Meditron_Lan", "0,0,-1,CPO-Meditron_Mol"]
    path = tmp_path / "scores.csv"
    path.write_text("\n".join([",score,length,group", *lines]) + "\n")
    figure, data = author_distributions(SAMPLES, read_author_scores(path), LABELS)
    theirs = data[data["panel"].str.startswith("The authors")].groupby(["panel", "system"])[["n", "mean"]].first()
    entailment, length = (theirs.loc[f"The authors' file, {name}"] for name in ("entailment", "length_deviation"))
    assert entailment.T.to_dict("list") == {"meditron": [2, 0.3], "cpo": [1, 0.9], "cpo-mol2cap": [1, 0]}
    assert length.T.to_dict("list") == {"meditron": [2, -10], "cpo": [1, 3], "cpo-mol2cap": [1, -1]}
    assert len(figure.axes) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read.*alignment_tuning_LLMS"),
        (",score,length,group\n0,0.5,1,GPT\n", "unknown group"),
        (",score,length,group\n0,50,1,Meditron\n", "outside 0..1"),
    ],
)
def test_a_bad_authors_file_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "scores.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadFileError, match=message):
        read_author_scores(path)


def test_a_pairs_matrices_box_what_the_equations_pool() -> None:
    contradiction, entailment = np.array([[0.9, 0.2, 0.4]]), np.array([[0.1], [0.8], [0.3]])
    figure, data = fact_matrices(contradiction, entailment, ["one", "two", "a fact of many words " * 5], ["other"])
    boxes = [[patch.get_xy() for patch in axes.patches] for axes in figure.axes]
    assert boxes == [[(1, 0)], [(0, 0), (0, 1), (0, 2)]]
    assert "O1" in words(figure)
    assert "…" in words(figure)
    assert list(data[0]) == [0.9, 0.2, 0.4, 0.1, 0.8, 0.3]


def test_what_is_folded_is_text_not_markup() -> None:
    assert "<pre>a &lt; b</pre>" in str(folded("a < b", "all").data)
    assert "<td>1</td>" in str(folded(pd.DataFrame({"n": [1]}), "<all>").data)
    assert "&lt;all&gt;" in str(folded("", "<all>").data)
    assert "image/png;base64," in str(folded(Figure(), "a figure").data)
    assert clipped("<a long text>", 6) == '<span title="&lt;a long text&gt;">&lt;a lo…</span>'
    assert clipped("<b>", 6) == "&lt;b&gt;"
