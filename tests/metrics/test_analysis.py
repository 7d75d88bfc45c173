"""From score files to tests between systems, spread over seeds, and behaviour."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lmolt_utils.metrics.effects import look, wanted
from lmolt_utils.metrics.evaluation import score_system
from scipy import stats

from lmolt_utils.config.params import Params, load
from lmolt_utils.config.systems import System, replicas
from lmolt_utils.figures.seed_tables import seed_table, to_markdown, write_seed_table
from lmolt_utils.files import read_json, write_json, write_rows
from lmolt_utils.metrics.analysis import (
    all_significance,
    behaviour,
    behaviour_table,
    behaviours,
    canonical,
    significance,
    win_curves,
)
from lmolt_utils.metrics.captions import CaptionTokenizer, MeteorMatcher, caption_tokenizer, meteor_matcher
from lmolt_utils.metrics.results import MixedScoresError, all_scores, conventions, overview, replicates, seed_spread
from lmolt_utils.run.notebook import Run as NotebookRun
from lmolt_utils.run.notebook import resolve


@dataclass
class Run:
    """As much of a run as scoring and analysis ask for."""

    folder: Path
    params: Params = field(default_factory=lambda: load("smoke"))
    caption_tokenizer: str = "regex"
    invalid: str = "lpm24"
    postprocess: str = "clean"
    threads: int = 1
    corpus: str = "embedded"
    property_tree: str | None = None
    withheld_combinations: str | None = None

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def step(
        self, name: str, make: Callable[[], Any], *, outputs: Sequence[Path], inputs: Mapping[str, Any], **_: Any
    ) -> None:
        assert all(path.exists() for path in inputs.values() if isinstance(path, Path)), name
        make()
        assert all(path.exists() for path in outputs), name


MOLECULES = ["CCO", "CCCCCC(=O)O", "c1ccccc1O", "CC(C)CO", "CCN", "CCCCO"] * 4
CAPTIONS = ["The molecule is a nutrient.", "The molecule is a emulsifier, nutrient.", "It is sweet and waxy."] * 8


def system(name: str) -> System:
    return System(name=name, label=name.upper(), notebook="03_sft", init="cap2mol", method="cpo", rows={})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("run"))
    corpus = pd.DataFrame(
        {"split": "train", "molecule": MOLECULES, "caption": CAPTIONS, "properties": "nutrient|emulsifier"}
    )
    write_rows(run.path("data", "corpus.jsonl"), corpus)
    answers = {
        "meditron": (MOLECULES, CAPTIONS),
        "cpo": (["OCC", *MOLECULES[1:12], *["not a molecule"] * 12], [*CAPTIONS[:12], *["CCO"] * 12]),
    }
    for name, (molecules, captions) in answers.items():
        for task, outputs, references in (("cap2mol", molecules, MOLECULES), ("mol2cap", captions, CAPTIONS)):
            frame = pd.DataFrame(
                {"id": range(24), "task": task, "source": "x", "reference": references, "raw": outputs}
            )
            write_rows(run.path("predictions", f"{name}.{task}.jsonl"), frame.assign(prediction="not looked at"))
            score_system(run, system(name), task)  # type: ignore[arg-type]
    return run


SYSTEMS = [system("meditron"), system("cpo"), system("kto")]


def test_significance_of_what_ran(run: Run) -> None:
    for task in ("mol2cap", "cap2mol"):
        significance(run, SYSTEMS, task, permutations=199)  # type: ignore[arg-type]
    tests = all_significance(run).set_index(["task", "metric"])
    assert set(tests["a"]) == {"cpo"}  # kto did not run
    assert tests.loc[("mol2cap", "ROUGE-1"), "difference"] == pytest.approx(-0.5)
    assert tests.loc[("cap2mol", "Validity"), "p_holm"] <= 0.01
    assert np.isnan(tests["p"].get(("cap2mol", "Uniqueness"), np.nan))
    none = all_significance(Run(run.folder / "empty"))
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


def test_scores_come_back_with_intervals(run: Run) -> None:
    scores = all_scores(run, SYSTEMS).set_index(["system", "task", "metric"])
    line = scores.loc[("cpo", "mol2cap", "ROUGE-1")]
    assert line["value"] == pytest.approx(0.5)
    assert line["low"] < 0.5 < line["high"]
    text = overview(run, SYSTEMS, "mol2cap")
    assert text.loc["CPO", "ROUGE-1"].startswith("0.500 ± 0.")
    assert set(text.loc["KTO"]) == {"not run"}


BEATS = "CPO beats the per-task model in captions (BLEU-2)"


def verdict(
    cpo: Sequence[float], draws: Mapping[tuple[str, str], np.ndarray] | None = None, meditron: float = 0.5
) -> dict[str, str]:
    """The line of :data:`BEATS` for BLEU-2 values of CPO, one per seed, against the per-task model's."""
    untrained = system("meditron").model_copy(update={"method": "none"})
    rows = [system("cpo" if seed == 0 else f"cpo@seed{seed}") for seed in range(len(cpo))]
    values = [*cpo, meditron]
    names = [row.name for row in rows]
    scores = pd.DataFrame({"system": [*names, "meditron"], "task": "mol2cap", "metric": "BLEU-2", "value": values})
    return dict(look(scores, [*rows, untrained], draws).set_index("effect").loc[BEATS])


def test_effects_say_in_how_many_draws_they_are_seen(run: Run) -> None:
    pairs = wanted(SYSTEMS)
    assert ("kto", "mol2cap", "BLEU-2") in pairs
    drawn = replicates(run, pairs)  # type: ignore[arg-type]
    assert {("cpo", "BLEU-2"), ("meditron", "BLEU-2")} < set(drawn)
    assert not [pair for pair in drawn if pair[0] == "kto"], "it did not run"
    seen = look(all_scores(run, SYSTEMS), SYSTEMS, drawn).set_index("effect")
    assert (seen.loc[BEATS, "seen"], seen.loc[BEATS, "draws"]) == ("no (one seed)", "0%")
    kto = seen.loc["KTO from cap2mol cannot caption (BLEU-2 below 0.05)"]
    assert (kto["seen"], kto["here"], kto["draws"]) == ("not run", "kto not run", "–")
    # Seen or not in the point values, it is undecided where the draws of the test rows do not agree.
    for above, told in ((0, "no"), (20, "no"), (500, "undecided"), (980, "yes")):
        of_cpo = np.where(np.arange(1000) < above, 0.9, 0.1)
        line = verdict([0.6 if told == "yes" else 0.4], {("cpo", "BLEU-2"): of_cpo, ("meditron", "BLEU-2"): HALF})
        assert line["seen"] == f"{told} (one seed)"


HALF = np.full(1000, 0.5)


def test_a_verdict_takes_the_spread_over_seeds_into_account() -> None:
    # All test rows agree with every seed's own value: with one seed that is "yes, 100 %".
    sure: dict[tuple[str, str], np.ndarray] = {("meditron", "BLEU-2"): HALF, ("cpo", "BLEU-2"): np.full(1000, 0.52)}
    line = verdict([0.52], sure)
    assert (line["seen"], line["draws"], line["seeds"]) == ("yes (one seed)", "100%", "cpo 1")
    spread = [0.52, 0.58, 0.46]
    of_seeds = {("cpo" if k == 0 else f"cpo@seed{k}", "BLEU-2"): np.full(1000, v) for k, v in enumerate(spread)}
    line = verdict(spread, {**sure, **of_seeds})
    assert (line["seen"], line["seeds"], line["here"]) == ("undecided", "cpo 3", "cpo 0.52 ± 0.06, meditron 0.50")
    # Student's t of the mean with two degrees of freedom: P(t > -(0.52 - 0.5) / (0.06 / sqrt(3))) = 0.69.
    assert float(line["draws"].rstrip("%")) / 100 == pytest.approx(stats.t.sf(-0.02 * 3**0.5 / 0.06, 2), abs=0.04)
    assert verdict([0.72, 0.71, 0.73])["seen"] == "yes", "far beyond the seeds' spread; no draws of rows are needed"
    assert verdict([0.30, 0.29, 0.31])["seen"] == "no"
    assert verdict([0.52])["draws"] == "–", "one seed and no draws of the rows: no spread is known"
    # Rows that disagree are not hidden by seeds that agree.
    rows = {**sure, **{name: np.where(np.arange(1000) < 500, 0.3, 0.9) for name in of_seeds}}
    assert verdict([0.6, 0.6001, 0.5999], rows)["seen"] == "undecided"
    nothing = verdict([])
    assert (nothing["seen"], nothing["seeds"]) == ("not run", "none trained")


def test_scores_are_keyed_by_what_auto_meant_and_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WordNet, then SciBERT appear on a machine that has scores: they are made again, both systems alike."""
    params, _ = resolve("07_nli_evaluation", {"profile": "smoke", "caption_tokenizer": "auto"})
    run = NotebookRun("07_nli_evaluation", tmp_path / "smoke", params)
    for name in ("meditron", "cpo"):
        frame = pd.DataFrame(
            {"id": range(24), "task": "mol2cap", "source": "x", "reference": CAPTIONS, "raw": CAPTIONS}
        )
        write_rows(run.path("predictions", f"{name}.mol2cap.jsonl"), frame.assign(prediction=CAPTIONS))
    both = [system("meditron"), system("cpo")]

    def appears(matcher: MeteorMatcher, tokenizer: CaptionTokenizer) -> None:
        monkeypatch.setattr("lmolt_utils.metrics.scoring.meteor_matcher", lambda _: matcher)
        monkeypatch.setattr("lmolt_utils.metrics.scoring.caption_tokenizer", lambda _: tokenizer)

    plain, words = meteor_matcher("exact+stem"), caption_tokenizer("regex")
    wordnet = MeteorMatcher("wordnet", "3.0", SimpleNamespace(synsets=lambda _: []))
    scibert = CaptionTokenizer("scibert", words.split, words.whole)
    appears(plain, words)
    for one in both:
        score_system(run, one, "mol2cap")
    for matcher, tokenizer, name in ((wordnet, words, "meteor_matcher"), (wordnet, scibert, "tokenizer")):
        appears(matcher, tokenizer)
        score_system(run, both[0], "mol2cap")
        with pytest.raises(MixedScoresError, match=f"meditron was scored with {name} .* Run 07_nli_evaluation again"):
            conventions(run, both, "mol2cap")
        score_system(run, both[1], "mol2cap")
        assert conventions(run, both, "mol2cap")["tokenizer"] == tokenizer.name
        made = run.path("scores", "cpo.mol2cap.json").stat().st_mtime_ns
        score_system(run, both[1], "mol2cap")
        assert run.path("scores", "cpo.mol2cap.json").stat().st_mtime_ns == made, "up to date"
    assert conventions(run, [], "mol2cap") == {}


def with_seeds(seeds: list[int]) -> list[System]:
    """The systems as rows of the papers' tables, with their copies for further seeds."""
    named = [s.model_copy(update={"rows": {"T2": s.label, "T3": s.label}}) for s in SYSTEMS]
    plain = [s.model_copy(update={"method": "none"}) if s.name == "meditron" else s for s in named]
    return replicas(plain, load("smoke", {"seeds": seeds}))


def test_spread_over_the_seeds_that_are_asked_for(run: Run) -> None:
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
    assert set(zip(captions["seeds"], captions["wanted"], strict=True)) == {(2, 3)}
    molecules = frame[frame["task"] == "cap2mol"]
    assert set(molecules["seeds"]) <= {0, 1}
    assert molecules["spread"].isna().all(), "one seed has no spread, not 0"


def test_the_seed_table_says_how_many_seeds_and_which_spread(run: Run, tmp_path: Path) -> None:
    first = read_json(run.path("scores", "cpo.mol2cap.json"))
    for seed, value in ((0, 0.5), (1, 0.6), (2, 0.7)):
        name = f"cpo@seed{seed}" if seed else "cpo"
        scores = {**first, "metrics": {**first["metrics"], "ROUGE-1": value, "METEOR": None if seed == 2 else value}}
        write_json(run.path("scores", f"{name}.mol2cap.json"), scores)
    table = seed_table(run, with_seeds([0, 1, 2]), [0, 1, 2])
    shown = to_markdown(table).splitlines()
    captions, molecules = (line for line in shown if line.startswith("| CPO "))
    assert "0.600 ± 0.100 |" in captions  # sample standard deviation of 0.5, 0.6, 0.7
    assert "0.550 ± 0.071 (2)" in captions, "METEOR has two values"
    assert "±" not in molecules
    assert molecules.count("(1)") == 7
    assert [line.count("not run") for line in shown if line.startswith("| KTO ")] == [6, 7]
    assert not [line for line in shown if line.startswith("| MEDITRON ") or "seed1" in line]
    assert "half a 95 % interval over test rows at seed 0" in shown[0]
    assert "training seeds 0, 1, 2" in shown[0]
    paths = write_seed_table(table, tmp_path / "figures")
    assert [path.name for path in paths] == ["seed_spread.csv", "seed_spread.md", "seed_spread.tex"]
    written = pd.read_csv(paths[0]).set_index(["system", "metric"])
    assert tuple(written.loc[("cpo", "ROUGE-1"), ["mean", "spread", "seeds", "wanted"]]) == ("0.6", 0.1, 3, 3)
    assert written.loc[("kto", "BLEU-2"), "mean"] == "not run"
    assert r"0.600 $\pm$ 0.100" in paths[2].read_text()


def test_one_seed_leaves_the_spread_unknown(run: Run, tmp_path: Path) -> None:
    table = seed_table(run, with_seeds([0]), [0])
    csv, markdown, latex = write_seed_table(table, tmp_path)
    for path in (markdown, latex):
        assert "One seed (0): the spread over training seeds is not known" in path.read_text()
        assert "±" not in path.read_text()
    assert len(csv.read_text().splitlines()) == 1


def test_copies_for_further_seeds_are_told_apart() -> None:
    names = {s.name: s.replica for s in with_seeds([0, 12])}
    assert names == {"meditron": False, "cpo": False, "cpo@seed12": True, "kto": False, "kto@seed12": True}


def test_canonical_keeps_what_cannot_be_read() -> None:
    assert canonical(["OCC", "no molecule", "OCC"]) == ["CCO", "no molecule", "CCO"]
