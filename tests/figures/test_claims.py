"""The claims ledger: what its rules say of made-up numbers, and that every rule asks for something that exists."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lmolt_utils.config.published import METRICS
from lmolt_utils.config.systems import load_systems
from lmolt_utils.figures.claims import (
    AUTHORS,
    DELTAS,
    DRAWS,
    NLI,
    Claim,
    Condition,
    Evidence,
    Number,
    flipped,
    judge,
    load_claims,
    read_verdicts,
    verdicts,
)
from lmolt_utils.figures.results_page import page
from lmolt_utils.files import BadFileError, write_text
from lmolt_utils.paths import root
from lmolt_utils.run.notebook import Run

EVEN = np.linspace(-1, 1, DRAWS)


def evidence(run: Run, numbers: dict[tuple[str, str], tuple[float, float | None]]) -> Evidence:
    """Of numbers that are given: mean, and half the width that their draws span evenly."""
    kept: dict[tuple[object, ...], Number | None] = {
        (*key, None, "atomic", 0): Number(mean, 1, None if half is None else mean + half * EVEN)
        for key, (mean, half) in numbers.items()
    }
    return Evidence(run, load_systems(), kept=kept)


def claim(**condition: object) -> Claim:
    return Claim(id="X", claim="x", source="x", all=[Condition.model_validate(condition)])


@pytest.mark.parametrize(
    ("mean", "half", "verdict", "draws"),
    [
        (0.20, 0.04, "holds", "100%"),  # all draws between .16 and .24
        (0.20, 0.10, "within noise", "75%"),  # a quarter of .10 to .30 is below .15
        (0.10, 0.04, "does not hold", "0%"),
        (0.20, None, "holds", ""),  # no spread is known: the number alone decides
    ],
)
def test_a_number_against_its_bound(run: Run, mean: float, half: float | None, verdict: str, draws: str) -> None:
    line = judge(claim(of="cpo", metric="BLEU-2", at_least=0.15), evidence(run, {("cpo", "BLEU-2"): (mean, half)}))
    assert (line["verdict"], line["draws"], line["seeds"]) == (verdict, draws, "CPO 1")


def test_a_difference_takes_both_under_the_same_draws(run: Run) -> None:
    """Both move together, so their difference does not move at all."""
    told = evidence(run, {("cpo", "MACCS"): (0.5, 0.3), ("dpo", "MACCS"): (0.49, 0.3)})
    assert judge(claim(of="cpo", minus="dpo", metric="MACCS", above=0), told)["verdict"] == "holds"
    assert judge(claim(of="cpo", minus="dpo", metric="MACCS", within=0.005), told)["verdict"] == "does not hold"
    # 0.5 - 1.1 x 0.49 = -0.039
    assert judge(claim(of="cpo", minus="dpo", times=1.1, metric="MACCS", below=0), told)["draws"] == "100%"


def test_conditions_hold_together_or_not_at_all(run: Run) -> None:
    told = evidence(run, {("cpo", "BLEU-2"): (0.5, 0.1), ("kto", "Validity"): (0.5, 0.1)})
    both = Claim(
        id="X", claim="x", source="x",
        all=[Condition(of="cpo", metric="BLEU-2", above=0.5), Condition(of="kto", metric="Validity", below=0.5)],
    )  # fmt: skip
    assert judge(both, told)["draws"] == "0%", "each holds in half of the draws, never in the same"


def test_a_claim_of_too_little_is_not_decidable(run: Run) -> None:
    """The FCD of a system whose molecules are not valid decides nothing; with more of them it does."""
    fcd = {"of": "cpo", "minus": "dpo", "metric": "FCD", "below": -3}
    given = [Condition(of="dpo", metric="Validity", at_least=0.1)]
    asked = claim(**fcd).model_copy(update={"given": given})
    for validity, verdict in ((0.006, "not decidable"), (0.2, "holds")):
        numbers = {("cpo", "FCD"): (5.0, 0.1), ("dpo", "FCD"): (66.0, 0.1), ("dpo", "Validity"): (validity, 0.001)}
        assert judge(asked, evidence(run, numbers))["verdict"] == verdict


def test_what_is_missing_or_no_number_decides_nothing(run: Run) -> None:
    told = evidence(run, {("cpo", "FCD"): (1.0, 0.1), ("cpo", "coverage"): (math.nan, 0.1)})
    line = judge(claim(of="cpo", minus="dpo", metric="FCD", above=0), told)
    assert (line["verdict"], line["evidence"]) == ("not run", "no FCD of DPO")
    line = judge(claim(of="cpo", metric="coverage", above=0), told)
    assert (line["verdict"], line["evidence"]) == ("not decidable", "coverage of CPO is not a number")
    found = verdicts(run, load_systems()).set_index("id")["verdict"]
    # The shared task's scores, the authors' released file and the papers' own arithmetic need no run.
    without = {**dict.fromkeys(("C1c", "C3b", "C27b", "C32", "C32b"), "does not hold"), "C26": "holds", "C27": "holds"}
    assert found[list(without)].to_dict() == without
    assert set(found.drop(list(without))) == {"not run", "not decidable"}


@pytest.mark.parametrize("text", ["", "id,verdict\nC1,holds\n", "\xff\xfe", "whole, but a verdict", "twice"])
def test_a_damaged_table_of_verdicts_is_named(run: Run, text: str) -> None:
    table = verdicts(run, load_systems())
    whole = table.to_csv(index=False)
    texts = {"whole, but a verdict": whole.replace("not run", "nan", 1), "twice": pd.concat([table, table]).to_csv()}
    path = run.figures / "claims.csv"
    write_text(path, whole)
    assert len(read_verdicts(path)) == len(table)
    path.write_bytes(texts.get(text, text).encode("latin-1", "replace"))
    with pytest.raises(BadFileError, match=r"claims\.csv is no table of verdicts"):
        read_verdicts(path)


def test_the_ledger_asks_for_what_exists() -> None:
    claims, names = load_claims(), {system.name for system in load_systems()}
    assert len({one.id for one in claims}) == len(claims)
    assert {int(found[1]) for one in claims if (found := re.fullmatch(r"C(\d+)", one.id))} == set(range(1, 33))
    for one in claims:
        assert bool(one.all) != bool(one.not_decidable), one.id
        for condition in one.all:
            # Official and authors' numbers, KL and the deltas are read, or said not to be there, without a run.
            if condition.metric in {*METRICS, *NLI, "length_deviation"}:
                assert {condition.of, condition.minus} - {None} <= names, one.id
            else:
                assert re.match(f"KL|official |{AUTHORS}|{DELTAS}", condition.metric), one.id
            bounds = (condition.below, condition.at_most, condition.at_least, condition.above, condition.within)
            assert any(bound is not None for bound in bounds), one.id


def test_seeds_widen_a_verdict(run: Run) -> None:
    """Student's t of the mean with two degrees of freedom: P(t > -(0.52 - 0.5) / (0.06 / sqrt(3))) = 0.69."""
    number = Evidence(run, load_systems())._over_seeds([(value, np.full(DRAWS, value)) for value in (0.52, 0.58, 0.46)])
    assert number is not None
    assert (number.mean, number.seeds) == (pytest.approx(0.52), 3)
    assert re.fullmatch(r"0\.52 ± 0\.06 \[0\.3\d*, 0\.6\d*\]", str(number)), "t: 0.52 ± 4.3 x 0.035"
    assert number.draws is not None
    expected = stats.t.sf(-0.02 * 3**0.5 / 0.06, 2)
    assert float((number.draws > 0.5).mean()) == pytest.approx(expected, abs=0.04)


def test_a_verdict_that_changed_is_told() -> None:
    before = pd.DataFrame({"id": ["C1", "C2", "C3"], "verdict": ["holds", "holds", "not run"]})
    now = pd.DataFrame({"id": ["C1", "C2", "C3", "C4"], "verdict": ["holds", "within noise", "holds", "holds"]})
    assert flipped(before, now) == ["C2: holds -> within noise"]


def test_the_page_shows_every_claim_and_profile(run: Run) -> None:
    table = verdicts(run, load_systems())
    text = page({"study": ("real molecules", table), "cpu": ("a toy", table)})
    for one in load_claims():
        assert f"### {one.id}\n" in text
        assert f"(#{one.id.lower()})" in text
        assert f"\n> {one.says}\n" in text or not one.says
    for name in re.findall(r"\[[^]]*\]\((?!#)([^)]+)\)", text):
        assert (root() / name).exists(), name
    assert "| study" in text
    assert "| cpu" in text
    assert text.count("- study: **not run**") == int((table["verdict"] == "not run").sum()) > 30
