"""Relative entropy with its definition: against SciPy, by hand, and in situations whose answer is known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy as scipy_entropy

from lmolt_utils.errors import CompanionError
from lmolt_utils.nli.divergence import (
    bin_of,
    by_length,
    divergence,
    divergences,
    entropy,
    relative_entropy,
    sensitivity,
)

RNG = np.random.default_rng(0)
HIGH, LOW = RNG.beta(5, 2, 400), RNG.beta(2, 5, 400)


def test_bins_are_equal_the_last_one_closed() -> None:
    assert bin_of([0, 0.049, 0.05, 0.1, 0.15, 0.3, 0.95, 0.999, 1.0]).tolist() == [0, 0, 1, 2, 3, 6, 19, 19, 19]


def test_by_hand_with_jeffreys_smoothing() -> None:
    # 2 bins: P = (3, 1), Q = (1, 3); half a count each: .7, .3 against .3, .7.
    scores = [0.1, 0.2, 0.3, 0.9], [0.1, 0.7, 0.8, 0.9]
    expected = 0.7 * math.log(0.7 / 0.3) + 0.3 * math.log(0.3 / 0.7)
    assert relative_entropy(*scores, bins=2) == pytest.approx(expected)


def test_direction_and_empty_bins() -> None:
    p, q = np.array([8.0, 1, 1]), np.array([2.0, 3, 5])
    assert entropy(np.array([p, q]), np.array([q, p])).tolist() == [entropy(p, q), entropy(q, p)]
    assert entropy(p, q) != pytest.approx(entropy(q, p))
    assert entropy(np.array([1, 0]), np.array([0, 1]), 0.0) == math.inf
    assert entropy(np.array([1, 0]), np.array([1, 1]), 0.0) == pytest.approx(math.log(2))


def test_everything_beside_the_value() -> None:
    found = divergence(HIGH, LOW, resamples=200)
    assert (found["n"], found["reason"]) == (400, "")
    assert found["null"] < found["low"] < found["kl"] < found["high"]
    p, q = (np.histogram(side, 20, (0, 1))[0] + 0.5 for side in (HIGH, LOW))
    assert found["kl"] == pytest.approx(scipy_entropy(p, q))
    assert found["difference"] == pytest.approx(HIGH.mean() - LOW.mean())
    # Normal theory: the spread of a mean of 400 paired differences.
    half = 1.96 * np.std(HIGH - LOW) / 20
    ends = found["difference"] - half, found["difference"] + half
    assert (found["difference_low"], found["difference_high"]) == pytest.approx(ends, abs=0.01)
    assert found["p"] == pytest.approx(1 / 201)
    assert found == divergence(HIGH, LOW, resamples=200), "the same seed, the same numbers"


def test_equal_systems_are_not_told_apart() -> None:
    same = divergence(HIGH, HIGH, resamples=100)
    assert (same["kl"], same["difference"], same["p"]) == (0, 0, 1)
    rng = np.random.default_rng(1)
    p_values = [divergence(rng.random(60), rng.random(60), resamples=99, seed=i)["p"] for i in range(60)]
    assert 0.3 < np.mean(p_values) < 0.7
    assert np.mean(np.array(p_values) <= 0.1) < 0.25
    few, many = (divergence(rng.random(n), rng.random(n), resamples=100) for n in (40, 4000))
    assert few["null"] > 5 * many["null"]  # what few rows alone give


def test_undefined_rows_are_dropped_in_pairs_and_few_rows_refused() -> None:
    p, q = HIGH.copy(), LOW.copy()
    p[:10], q[5:20] = np.nan, np.nan
    found = divergence(p, q, resamples=100)
    assert found["n"] == 380
    assert found["kl"] == pytest.approx(relative_entropy(HIGH[20:], LOW[20:]))
    short = divergence(HIGH[:29], LOW[:29])
    assert "kl" not in short
    assert "29 rows" in short["reason"]


def test_two_systems_need_the_same_rows() -> None:
    rows = pd.DataFrame({"id": range(800), "method": "atomic", "coverage": [*HIGH, *LOW], "words": 60})
    rows["system"] = np.repeat(["a", "b"], 400)
    for shown in (rows, rows.head(400)):  # other ids; none at all
        with pytest.raises(CompanionError, match="a and b have no NLI scores of the same rows"):
            divergences(shown, "a", "b")


def test_a_cut_is_held_against_random_rows_of_the_same_number() -> None:
    words = RNG.integers(10, 90, 400)
    random_cut = by_length(HIGH, LOW, words, resamples=200).set_index("words")
    assert list(random_cut.index) == [0, 50, 70]
    assert random_cut["n"].tolist() == [400, (words >= 50).sum(), (words >= 70).sum()]
    assert math.isnan(random_cut["random"][0])
    # The cut has nothing to do with the scores: it must not look special.
    assert (random_cut["kl"] < 2 * random_cut["random_high"])[[50, 70]].all()
    telling = (np.where(words >= 70, side, 0.5) for side in (HIGH, LOW * 0.2))  # the systems differ there only
    special = by_length(*telling, words, resamples=200)
    assert special["kl"].iloc[2] > special["random_high"].iloc[2]
    assert special["kl"].iloc[2] > special["kl"].iloc[0]
    none = by_length(HIGH, LOW, np.full(400, 20), resamples=50)
    assert none["n"].tolist() == [400, 0, 0]
    assert "0 rows" in none["reason"].iloc[1]


def test_how_much_bins_and_smoothing_move_the_answer() -> None:
    table = sensitivity(np.append(HIGH, np.nan), np.append(LOW, 0.5)).set_index(["bins", "smoothing"])["kl"]
    assert len(table) == 20
    assert table[20, 0.5] == pytest.approx(relative_entropy(HIGH, LOW))
    assert table[100, 1e-10] > 2 * table[20, 0.5] > 0  # empty bins against a tiny constant
