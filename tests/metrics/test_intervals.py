"""Intervals and tests: against recomputation, against simulation, against hand-computed values."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nltk.translate.bleu_score import corpus_bleu
from scipy import stats

from lmolt_utils.errors import CompanionError
from lmolt_utils.files import BadFileError
from lmolt_utils.metrics.fcd import FCDStatistics, fcd_influence, frechet_distance
from lmolt_utils.metrics.intervals import (
    Additive,
    Scored,
    bootstrap,
    compare_all,
    holm,
    intervals,
    read_statistics,
    resample_weights,
    resampled,
    wilson,
    write_statistics,
)
from lmolt_utils.metrics.ngrams import bleu_statistics


def compare(a: Scored, b: Scored, **settings: int) -> pd.Series:
    """The first line of a comparison of two systems."""
    return compare_all({"a": a, "b": b}, [("a", "b")], **settings).iloc[0]


def of_rows(**columns: np.ndarray) -> Scored:
    """A system whose metrics are the means of these columns without NaN."""
    values = {name: float(np.nanmean(column)) for name, column in columns.items()}
    return Scored(values, pd.DataFrame({"id": range(len(next(iter(columns.values())))), **columns}))


def texts(rng: np.random.Generator, rows: int) -> list[list[str]]:
    return [list(rng.choice(list("abcde"), size=rng.integers(0, 12))) for _ in range(rows)]


def translated(rows: int, seed: int = 0) -> tuple[list[list[str]], list[list[str]], Scored]:
    rng = np.random.default_rng(seed)
    references, outputs = texts(rng, rows), texts(rng, rows)
    counts = bleu_statistics(references, outputs)
    values = {name: float(counts.score(order)) for name, order in (("BLEU-2", 2), ("BLEU-4", 4))}
    return references, outputs, Scored(values, pd.DataFrame({"id": range(rows)}), counts)


# ---- resampling ----


def test_all_intervals_are_of_the_same_draws() -> None:
    """negatives/shortcuts.py draws by scipy, nli/divergence.py and nli/truth.py by NumPy: the rows drawn here."""
    rng, n = np.random.default_rng(3), 37
    hits, sizes = rng.integers(0, 3, n).astype(float), rng.integers(1, 4, n).astype(float)
    part = Additive(np.stack([hits, sizes], axis=1), lambda sums: sums[..., 0] / sums[..., 1], n)
    ours = resampled([part], 500, 11)[0]
    drawn = np.random.default_rng(11).integers(0, n, (500, n))
    np.testing.assert_array_equal(ours, hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    share = {"statistic": lambda a, b, axis: a.sum(axis) / b.sum(axis), "paired": True, "method": "percentile"}
    theirs = stats.bootstrap((hits, sizes), n_resamples=500, rng=11, **share)
    np.testing.assert_array_equal(ours, theirs.bootstrap_distribution)


def test_an_interval_is_the_percentiles_of_recomputed_values() -> None:
    references, outputs, scored = translated(25)
    found = intervals(scored, resamples=100, seed=5)["BLEU-2"]
    values = []
    for drawn in next(resample_weights(25, 100, 5)):
        rows = np.repeat(np.arange(25), drawn.astype(int))
        values.append(corpus_bleu([[references[i]] for i in rows], [outputs[i] for i in rows], (0.5, 0.5)))
    assert [found.low, found.high] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-12)
    assert found.low <= found.value <= found.high


def test_the_interval_of_a_statistic_of_rows_is_scipys() -> None:
    rows = np.random.default_rng(1).normal(size=(40, 2))
    wanted = stats.bootstrap(
        (rows[:, 0], rows[:, 1]), lambda x, y: stats.spearmanr(x, y).statistic,
        paired=True, vectorized=False, n_resamples=300, method="percentile", rng=7,
    ).confidence_interval  # fmt: skip
    drawn = bootstrap(lambda picked: stats.spearmanr(rows[picked]).statistic, len(rows), resamples=300, seed=7)
    assert drawn == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    # Draws without a value are left out: of two rows, half of the draws hold both, and the others one of them twice.
    spread = bootstrap(lambda picked: np.ptp(picked) or math.nan, 2, resamples=100, seed=0)
    assert spread == (1, 1)


def test_rows_that_a_metric_leaves_out_do_not_count() -> None:
    rng = np.random.default_rng(0)
    kept = rng.random(80)
    found = intervals(of_rows(MACCS=np.where(np.arange(80) % 2, kept, np.nan)))["MACCS"]
    assert found.n == 40
    assert found.value == pytest.approx(kept[1::2].mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * kept[1::2].std() / math.sqrt(40), rel=0.15)


def test_wilson_by_hand_and_where_it_is_used() -> None:
    assert wilson(0.0, 100) == pytest.approx((0, 0.0369935), abs=1e-6)  # 3.8415 / 103.8415
    assert wilson(0.5, 100) == pytest.approx(stats.binomtest(50, 100).proportion_ci(method="wilson"), abs=1e-9)
    found = intervals(of_rows(Exact=np.zeros(100), Validity=np.ones(100), Levenshtein=np.zeros(100)))
    assert (found["Exact"].low, found["Exact"].high) == wilson(0, 100)
    assert found["Validity"].low == pytest.approx(1 - found["Exact"].high)
    assert math.isnan(found["Levenshtein"].low), "it has no upper bound: zeros say nothing"


def test_what_has_no_interval() -> None:
    scored = Scored({"Uniqueness": 0.9, "FCD": 1.0, "MACCS": math.nan}, pd.DataFrame({"MACCS": [math.nan] * 3}))
    found = intervals(scored)
    assert all(math.isnan(part.low) for part in found.values())
    assert math.isnan(intervals(of_rows(MACCS=np.array([0.4])))["MACCS"].low), "a single row has no spread"


# ---- FCD ----


def molecules(rng: np.random.Generator, n: int, d: int = 12) -> FCDStatistics:
    x = rng.normal(size=(n, d)) / np.arange(1, d + 1)
    y = 0.8 * x + 0.5 * rng.normal(size=(n, d)) / np.arange(1, d + 1) + 0.2
    return FCDStatistics(np.concatenate([x, y]), np.arange(n), np.arange(n) + n)


def value_of(fcd: FCDStatistics) -> float:
    return frechet_distance(*(fcd.activations[side[side >= 0]] for side in (fcd.references, fcd.predictions)))


def weighted_fcd(fcd: FCDStatistics, weights: np.ndarray) -> float:
    """FCD by the textbook formula (matrix square root by eigenvalues) with a weight per row."""
    means, spreads = [], []
    for side in (fcd.references, fcd.predictions):
        w = np.where(side >= 0, weights, 0.0)
        size, w = np.sum(side >= 0), w / w.sum()
        x = fcd.activations[side]
        means.append(w @ x)
        spreads.append(((x - means[-1]).T * w) @ (x - means[-1]) * size / (size - 1))
    root = np.sqrt(np.maximum(np.linalg.eigvals(spreads[0] @ spreads[1]).real, 0)).sum()
    return float(np.sum((means[0] - means[1]) ** 2) + np.trace(spreads[0] + spreads[1]) - 2 * root)


def test_fcd_by_row_is_the_derivative_by_the_rows_weight() -> None:
    fcd = molecules(np.random.default_rng(0), 50)
    fcd.predictions[4] = -1  # an invalid output: this row moves the references only
    influence = fcd_influence(fcd)
    assert value_of(fcd) == pytest.approx(weighted_fcd(fcd, np.ones(50)))
    assert influence.sum() == pytest.approx(0, abs=1e-10)
    for row in (0, 4, 20):
        step = np.zeros(50)
        step[row] = 1e-4
        up, down = (weighted_fcd(fcd, np.ones(50) + sign * step) for sign in (1, -1))
        assert influence[row] == pytest.approx((up - down) / 2e-4, rel=1e-5)


@pytest.mark.parametrize(("n", "d"), [(200, 12), (60, 90)])  # 60 rows of 90: a singular covariance
def test_fcd_intervals_cover_the_mean_fcd_of_sets_of_that_size(n: int, d: int) -> None:
    rng = np.random.default_rng(2)
    runs = [molecules(rng, n, d) for _ in range(150)]
    values = np.array([value_of(run) for run in runs])
    errors = np.array([math.sqrt(np.sum(fcd_influence(run) ** 2)) for run in runs])
    assert 0.88 <= np.mean(np.abs(values - values.mean()) <= 1.96 * errors) <= 1
    assert errors.mean() == pytest.approx(values.std(), rel=0.35)
    scored = Scored({"FCD": values[0]}, pd.DataFrame({"id": range(n)}), fcd=runs[0])
    assert intervals(scored)["FCD"].high == pytest.approx(values[0] + 1.96 * errors[0], rel=1e-3)


# ---- between systems ----


def test_p_by_hand() -> None:
    """Three rows, all better by 1: of 8 swaps two are as far apart, so p is near 1/4."""
    line = compare(of_rows(Levenshtein=np.array([1.0, 2, 3])), of_rows(Levenshtein=np.array([2.0, 3, 4])))
    assert line["difference"] == -1
    assert line["p"] == pytest.approx(0.25, abs=0.02)
    assert [line["low"], line["high"]] == pytest.approx([-1, -1])  # whatever rows are drawn


def test_the_test_is_paired_and_symmetric() -> None:
    rng = np.random.default_rng(4)
    base = rng.random(200)
    a, b = of_rows(MACCS=base), of_rows(MACCS=base + 0.02 * rng.random(200))
    there, back = compare(a, b), compare(b, a)
    assert there["p"] == back["p"] == 1 / 10000  # far within the intervals of either, row by row always worse
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["high"] < 0 < back["low"]
    same = compare(a, a)
    assert (same["difference"], same["p"]) == (0, 1)
    three = compare_all({"a": a, "b": b, "c": a}, [("a", "b"), ("a", "c")], permutations=999)
    assert three["p_holm"].tolist() == [2 / 1000, 1], "over the pairs of a metric"


@pytest.mark.filterwarnings("ignore:\\nThe hypothesis contains 0 counts")
def test_bleu_differences_are_recomputed_from_swapped_rows() -> None:
    references, outputs, a = translated(12, seed=0)
    better = [r if i % 2 else o for i, (r, o) in enumerate(zip(references, outputs, strict=True))]
    counts = bleu_statistics(references, better)
    b = Scored({"BLEU-4": float(counts.score(4))}, a.samples, counts)
    line = compare(b, replace(a, metrics={"BLEU-4": a.metrics["BLEU-4"]}))
    # Every one of the 2^12 swaps, by nltk; rows where both systems say the same change nothing.
    observed = corpus_bleu([[r] for r in references], better) - corpus_bleu([[r] for r in references], outputs)
    far = 0
    moved = [i for i in range(12) if better[i] != outputs[i]]
    for code in range(2 ** len(moved)):
        left, right = list(better), list(outputs)
        for place, i in enumerate(moved):
            if code >> place & 1:
                left[i], right[i] = right[i], left[i]
        apart = corpus_bleu([[r] for r in references], left) - corpus_bleu([[r] for r in references], right)
        far += abs(apart) >= observed - 1e-9
    assert line["difference"] == pytest.approx(observed, abs=1e-12)
    assert line["p"] == pytest.approx(far / 2 ** len(moved), abs=0.02)


def test_fcd_of_two_systems_is_compared_row_by_row() -> None:
    rng = np.random.default_rng(5)
    one, other = molecules(rng, 200), molecules(rng, 200)
    frame = pd.DataFrame({"id": range(200)})
    a, b = (Scored({"FCD": value_of(f)}, frame, fcd=f) for f in (one, other))
    line, same = compare(a, b), compare(a, a)
    assert same["p"] == 1
    assert line["low"] <= line["difference"] <= line["high"]
    worse = FCDStatistics(one.activations + np.repeat([[0.0], [1.0]], 200, axis=0), one.references, one.predictions)
    c = Scored({"FCD": value_of(worse)}, frame, fcd=worse)
    assert compare(c, a)["p"] < 1e-6
    unknown = Scored({"FCD": 1.0}, frame)
    assert math.isnan(compare(a, unknown)["p"])


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04 times 4 3 2 1, never falling.
    corrected = [0.06, 0.04, np.nan, 0.06, 0.06]
    assert holm(pd.Series([0.04, 0.01, np.nan, 0.03, 0.02])).tolist() == pytest.approx(corrected, nan_ok=True)
    assert holm(pd.Series([0.9, 0.8])).tolist() == [1, 1]


def test_systems_on_other_rows_are_not_compared() -> None:
    a = of_rows(METEOR=np.arange(3.0))
    other = Scored(a.metrics, a.samples.assign(id=[0, 7, 2]))
    with pytest.raises(CompanionError, match=r"row 2: .* has id 1, .* has 7"):
        compare(a, other)
    with pytest.raises(CompanionError, match=r"row 3: a has id 2, b has None"):
        compare(a, Scored(a.metrics, a.samples.iloc[:2]))


# ---- seeds, files ----


def test_statistics_survive_their_file(tmp_path: Path) -> None:
    _, _, scored = translated(5)
    fcd = molecules(np.random.default_rng(0), 5)
    path = tmp_path / "x.npz"
    write_statistics(path, replace(scored, fcd=fcd))
    back = read_statistics(path)
    assert (back["bleu"].rows() == scored.bleu.rows()).all()
    assert (back["fcd"].activations == fcd.activations).all()
    write_statistics(path, scored)
    assert set(read_statistics(path)) == {"bleu"}
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadFileError, match="damaged"):
        read_statistics(path)
    with pytest.raises(BadFileError, match="missing"):
        read_statistics(tmp_path / "y.npz")
