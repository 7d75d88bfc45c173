"""From score files to tests between systems, spread over seeds, behaviour and ablation."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from lmolt_utils.config.params import load
from lmolt_utils.config.systems import System, replicas
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import read_json, write_json, write_rows
from lmolt_utils.metrics.analysis import (
    ablation,
    all_significance,
    behaviour,
    behaviour_table,
    behaviours,
    canonical,
    significance,
    win_curves,
)
from lmolt_utils.metrics.captions import CaptionTokenizer, caption_tokenizer
from lmolt_utils.metrics.results import all_scores, conventions, overview, seed_spread
from lmolt_utils.metrics.scoring import Scorer, score_system, score_systems
from lmolt_utils.models.predictions import prediction_path
from lmolt_utils.run.notebook import Run

MOLECULES = ["CCO", "CCCCCC(=O)O", "c1ccccc1O", "CC(C)CO", "CCN", "CCCCO"] * 4
CAPTIONS = ["The molecule is a nutrient.", "The molecule is a emulsifier, nutrient.", "It is sweet and waxy."] * 8
ANSWERS = {
    "meditron": (MOLECULES, CAPTIONS),
    "cpo": (["OCC", *MOLECULES[1:12], *["not a molecule"] * 12], [*CAPTIONS[:12], *["CCO"] * 12]),
}


def system(name: str) -> System:
    return System(name=name, label=name.upper(), notebook="03_sft", init="cap2mol", method="cpo", rows={})


SYSTEMS = [system("meditron"), system("cpo"), system("kto")]


def a_run(folder: Path, tokenizer: str = "regex") -> Run:
    return Run("07_nli_evaluation", folder / "smoke", load("smoke", {"caption_tokenizer": tokenizer}))


def write_answers(
    run: Run, name: str, task: str, references: list[str], outputs: list[str], sources: Sequence[str] | str = "x"
) -> None:
    frame = pd.DataFrame({"id": range(len(outputs)), "task": task, "source": sources, "reference": references})
    write_rows(prediction_path(run, name, task), frame.assign(raw=outputs, prediction="not looked at"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = a_run(tmp_path_factory.mktemp("run"))
    corpus = pd.DataFrame(
        {"split": "train", "molecule": MOLECULES, "caption": CAPTIONS, "properties": "nutrient|emulsifier"}
    )
    write_rows(run.path("data", "corpus.jsonl"), corpus)
    for name, (molecules, captions) in ANSWERS.items():
        write_answers(run, name, "cap2mol", MOLECULES, molecules)
        write_answers(run, name, "mol2cap", CAPTIONS, captions)
    score_systems(run, SYSTEMS[:2])
    return run


def test_significance_of_what_ran(run: Run, tmp_path: Path) -> None:
    for task in ("mol2cap", "cap2mol"):
        significance(run, SYSTEMS, task)  # type: ignore[arg-type]
    tests = all_significance(run).set_index(["task", "metric"])
    assert set(tests["a"]) == {"cpo"}  # kto did not run
    assert tests.loc[("mol2cap", "ROUGE-1"), "difference"] == pytest.approx(-0.5)
    assert tests.loc[("cap2mol", "Validity"), "p_holm"] <= 0.01
    none = all_significance(a_run(tmp_path))
    assert (len(none), set(none)) == (0, set(tests.reset_index())), "what a notebook shows has its columns"


def test_behaviour_by_hand(run: Run) -> None:
    behaviour(run, SYSTEMS[:2])
    found = behaviours(run, SYSTEMS)
    assert found["meditron"]["mol2cap"]["copied"] == found["meditron"]["cap2mol"]["copied"] == 1
    cpo = found["cpo"]
    assert cpo["mol2cap"]["wrong_modality"] == cpo["cap2mol"]["wrong_modality"] == 0.5
    assert cpo["mol2cap"]["omitted"] == 0.5
    assert cpo["mol2cap"]["hallucinated"] == 0
    assert cpo["cap2mol"]["copied"] == 0.5  # "OCC" is the training molecule "CCO"
    assert 11 / 24 <= cpo["cap2mol"]["win_rate"]["value"] <= 0.5
    table = behaviour_table(run, SYSTEMS)
    assert set(table.loc["KTO"]) == {"not run"}
    assert table.loc["CPO", "caption wins"] == "undefined"  # no entailment was asked for
    curves = win_curves(run, SYSTEMS)
    assert set(curves["system"]) == {"meditron", "cpo"}
    assert set(curves["length"]) > {5.0, "any"}
    assert canonical(["OCC", "no molecule", "OCC"]) == ["CCO", "no molecule", "CCO"]


def test_scores_come_back_with_intervals(run: Run) -> None:
    scores = all_scores(run, SYSTEMS).set_index(["system", "task", "metric"])
    line = scores.loc[("cpo", "mol2cap", "ROUGE-1")]
    assert line["value"] == pytest.approx(0.5)
    assert line["low"] < 0.5 < line["high"]
    text = overview(run, SYSTEMS, "mol2cap")
    assert text.loc["CPO", "ROUGE-1"].startswith("0.500 ± 0.")
    assert set(text.loc["KTO"]) == {"not run"}


def test_ablation_by_hand(tmp_path: Path) -> None:
    """Two rows, one of them changed: mean difference 1/2, an interval from 0 to 1."""
    run = a_run(tmp_path)
    changed = system("changed").model_copy(update={"against": "base"})
    for name, second in (("base", "zz"), ("changed", "C1")):
        write_answers(run, name, "cap2mol", ["CCO"] * 2, ["CCO", second])
        write_answers(run, name, "mol2cap", ["CCO"] * 2, ["The molecule is a toxin.", second])
    found = ablation(run, [system("base"), changed]).set_index(["task", "measure"])
    row = found.loc[("cap2mol", "right modality")]
    assert (row["before"], row["after"], row["difference"]) == (0.5, 1.0, 0.5)
    assert (row["low"], row["high"], row["n"]) == (0.0, 1.0, 2)
    for unchanged in (("mol2cap", "right modality"), ("cap2mol", "characters")):
        assert found.loc[unchanged, ["difference", "low", "high"]].tolist() == [0.0, 0.0, 0.0]


# ---- conventions, seeds ----


def test_scores_are_keyed_by_what_auto_meant_and_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SciBERT appears on a machine that has scores: they are made again, both systems alike."""
    run, both = a_run(tmp_path, "auto"), SYSTEMS[:2]
    for one in both:
        write_answers(run, one.name, "mol2cap", CAPTIONS, CAPTIONS)

    def score(one: System, tokenizer: str) -> int:
        found = CaptionTokenizer(tokenizer, caption_tokenizer("regex").split)
        monkeypatch.setattr("lmolt_utils.metrics.scoring.caption_tokenizer", lambda _: found)
        score_system(run, one, "mol2cap", Scorer(meteor="exact+stem"))
        return run.path("scores", f"{one.name}.mol2cap.json").stat().st_mtime_ns

    for one in both:
        score(one, "regex")
    score(both[0], "scibert")
    with pytest.raises(CompanionError, match=r"meditron was scored with tokenizer .* Run 07_nli_evaluation again"):
        conventions(run, both, "mol2cap")
    made = score(both[1], "scibert")
    assert conventions(run, both, "mol2cap")["tokenizer"] == "scibert"
    assert score(both[1], "scibert") == made, "up to date"
    assert conventions(run, [], "mol2cap") == {}


def test_spread_over_the_seeds_that_are_asked_for(run: Run) -> None:
    def with_seeds(seeds: list[int]) -> list[System]:
        named = [s.model_copy(update={"rows": {"T2": s.label, "T3": s.label}}) for s in SYSTEMS]
        plain = [s.model_copy(update={"method": "none"}) if s.name == "meditron" else s for s in named]
        return replicas(plain, load("smoke", {"seeds": seeds}))

    assert [s.name for s in with_seeds([0, 12]) if s.replica] == ["cpo@seed12", "kto@seed12"]
    first = read_json(run.path("scores", "cpo.mol2cap.json"))
    for name, more in (("cpo@seed1", 0.2), ("cpo@seed7", 0.9), ("cpo@seed1x", 0.9)):  # the last two are not asked for
        other = {**first, "metrics": {**first["metrics"], "ROUGE-1": first["metrics"]["ROUGE-1"] + more}}
        write_json(run.path("scores", f"{name}.mol2cap.json"), other)
    assert seed_spread(run, with_seeds([0])).empty
    frame = seed_spread(run, with_seeds([0, 1, 2]))
    assert set(frame["system"]) == {"cpo"}, "meditron is not trained, kto has no scores"
    captions = frame[frame["task"] == "mol2cap"].set_index("metric")
    assert captions.loc["ROUGE-1", "mean"] == pytest.approx(0.6)
    assert captions.loc["ROUGE-1", "spread"] == pytest.approx(0.2 / 2**0.5)
    # Student's t with one degree of freedom: 12.706 standard errors, each 0.1.
    assert captions.loc["ROUGE-1", "high"] - 0.6 == pytest.approx(1.2706, abs=1e-4)
    assert set(zip(captions["seeds"], captions["wanted"], strict=True)) == {(2, 3)}
    molecules = frame[frame["task"] == "cap2mol"]
    assert set(molecules["seeds"]) <= {0, 1}
    assert molecules["spread"].isna().all(), "one seed has no spread, not 0"
