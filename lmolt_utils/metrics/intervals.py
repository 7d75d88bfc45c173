"""How sure a score is: intervals per system, tests between systems.

A mean is a function of sums over rows, and so is corpus BLEU: a resample of the rows is a weighted sum, a thousand of
them one matrix product. FCD's interval comes from its derivative by each row's weight. Intervals are of 95 % and say
what other test molecules would give; what another training seed would is in metrics/results.py.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from lmolt_utils.errors import CompanionError
from lmolt_utils.files import BadFileError, atomic
from lmolt_utils.metrics.fcd import FCDStatistics, fcd_influence
from lmolt_utils.metrics.ngrams import BLEU_ORDERS, BleuStatistics, bleu

Array = np.ndarray

UNBOUNDED = frozenset({"Levenshtein"})  # row values may exceed 1
#: Weights (resamples times rows) held at a time: 32 MB.
_CELLS = 4_000_000
#: Ends of an interval of 95 %, and standard errors on either side of a normal one.
_LOW, _HIGH = (1 - 0.95) / 2, (1 + 0.95) / 2
_Z = float(special.ndtri(_HIGH))


@dataclass(frozen=True, eq=False)
class Scored:
    """What one system got on one task.

    metrics: corpus values, NaN where undefined. samples: per-row values, NaN where a metric leaves a row out.
    bleu, fcd: per row, what these two need, which are no mean of rows.
    conventions: what the values depend on besides the data, and counts of what was odd.
    """

    metrics: dict[str, float]
    samples: pd.DataFrame
    bleu: BleuStatistics | None = None
    fcd: FCDStatistics | None = None
    conventions: dict[str, Any] = field(default_factory=dict)
    task: str = ""

    def to_dict(self) -> dict[str, Any]:
        """All but rows and statistics, fit for strict JSON."""
        values = {"metrics": self.metrics, "conventions": self.conventions}
        return dict(strict_json({"task": self.task, "n": len(self.samples), **values}))


class Interval(NamedTuple):
    """The value of ``n`` rows with its interval; ``low`` and ``high`` are NaN where the rows know of no spread."""

    value: float
    low: float
    high: float
    n: int


def strict_json(value: Any) -> Any:
    """Fit for strict JSON, all the way down: NaN as null, infinity as "any", a frame as a list of its lines."""
    if isinstance(value, pd.DataFrame):
        return strict_json(value.to_dict("records"))
    if isinstance(value, dict):
        return {key: strict_json(part) for key, part in value.items()}
    if isinstance(value, list):
        return [strict_json(part) for part in value]
    if isinstance(value, float):
        return None if math.isnan(value) else "any" if math.isinf(value) else float(value)
    return value


# ---- metrics as functions of sums ----


@dataclass(frozen=True, eq=False)
class Additive:
    """A metric that depends on sums over rows only.

    rows: (n, k). value: sums of shape (..., k) to values of shape (...). used: rows that count.
    """

    rows: Array
    value: Callable[[Array], Array]
    used: int

    def total(self) -> float:
        """The value of all rows."""
        return float(self.value(self.rows.sum(axis=0)))


def _ratio(sums: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan))


def mean_of(values: Array) -> Additive:
    """The mean of row values, those that are NaN left out."""
    counted = ~np.isnan(values)
    return Additive(np.stack([np.where(counted, values, 0.0), counted], axis=1), _ratio, int(counted.sum()))


def additive(scored: Scored, name: str) -> Additive | None:
    """The metric ``name`` as a function of sums over rows; None if it is none (FCD, uniqueness)."""
    if name in scored.samples:
        return mean_of(scored.samples[name].to_numpy(dtype=float))
    if name in BLEU_ORDERS and scored.bleu is not None:
        rows = scored.bleu.rows()
        return Additive(rows, partial(bleu, order=BLEU_ORDERS[name]), len(rows))
    return None


# ---- resampling ----


def resample_weights(n: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each of ``n`` rows was drawn, in blocks of shape (block, n); the same for every system."""
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // n)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = rng.integers(0, n, size=(count, n)) + np.arange(count)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(float)


def resampled(parts: Sequence[Additive], resamples: int, seed: int) -> list[Array]:
    """Values of each part under the same ``resamples`` draws of the rows, shape (resamples,) each."""
    if not parts:
        return []
    rows = np.concatenate([part.rows for part in parts], axis=1)
    sums = np.concatenate([weights @ rows for weights in resample_weights(len(rows), resamples, seed)])
    edges = np.cumsum([0, *(part.rows.shape[1] for part in parts)])
    return [part.value(sums[:, a:b]) for part, a, b in zip(parts, edges[:-1], edges[1:], strict=True)]


def bootstrap(
    statistic: Callable[[Array], Any], n: int, *, resamples: int, seed: int | np.random.Generator
) -> tuple[float, float]:
    """The 95 % interval of what ``statistic`` makes of ``n`` row numbers, drawn with replacement.

    For what is no function of sums over rows: for those that are, :func:`resampled` counts the same draws at once.
    """
    draws = np.random.default_rng(seed).integers(0, n, (resamples, n))
    return percentiles(np.array([statistic(rows) for rows in draws], dtype=float))


def percentiles(values: Array) -> tuple[float, float]:
    """The interval that holds 95 % of the defined values; NaN without any."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return math.nan, math.nan
    low, high = np.quantile(defined, [_LOW, _HIGH])
    return float(low), float(high)


def intervals(scored: Scored, *, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """An interval for every metric: rows resampled with replacement, the same draws for all metrics.

    Where all rows are 0, or all are 1, a bootstrap knows no spread: there Wilson's bound stands, which also bounds the
    mean of any metric within 0 and 1.
    """
    parts = {name: part for name in scored.metrics if (part := additive(scored, name))}
    drawn = dict(zip(parts, resampled(list(parts.values()), resamples, seed), strict=True))
    result, fcd = {}, scored.fcd
    for name, value in scored.metrics.items():
        if name in parts:
            result[name] = _interval(name, parts[name], value, drawn[name])
        elif name == "FCD" and fcd is not None:
            half = _Z * math.sqrt(np.sum(fcd_influence(fcd) ** 2))
            result[name] = Interval(value, max(0.0, value - half), value + half, int(np.sum(fcd.predictions >= 0)))
        else:  # uniqueness: resampled rows would repeat and change what it counts
            result[name] = Interval(value, math.nan, math.nan, 0 if name == "FCD" else len(scored.samples))
    return result


def _interval(name: str, part: Additive, value: float, drawn: Array) -> Interval:
    counted = part.rows[part.rows[:, 1] > 0, 0] if part.value is _ratio else np.empty(0)
    alike = part.used < 2 or (counted.size > 0 and (counted == counted[0]).all())
    if not alike:
        return Interval(value, *percentiles(drawn), part.used)
    rate = part.used > 1 and counted[0] in (0.0, 1.0) and name not in UNBOUNDED
    return Interval(value, *(wilson(value, part.used) if rate else (math.nan, math.nan)), part.used)


def wilson(rate: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a rate (0..1) over ``n`` rows (Wilson 1927)."""
    middle = (rate + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(rate * (1 - rate) / n + _Z**2 / (4 * n**2))
    # By the formula the ends are exactly 0 and 1 there; rounding may say otherwise.
    return (0.0 if rate == 0 else middle - half), (1.0 if rate == 1 else middle + half)


# ---- between systems ----

COMPARISON_COLUMNS = ("metric", "a", "b", "difference", "low", "high", "p", "p_holm")


def compare_all(
    scored: Mapping[str, Scored],
    pairs: Sequence[tuple[str, str]],
    *,
    permutations: int = 9999,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every pair of systems on every metric both have: :data:`COMPARISON_COLUMNS`, one line per pair and metric.

    difference: a minus b. low, high: paired bootstrap (both systems on the same drawn rows). p: paired permutation
    test, the outputs of the two systems swapped row by row with probability 1/2, p = (1 + swaps at least as far
    apart) / (1 + permutations). FCD: interval and p from the normal approximation of its derivative by row. p_holm:
    Holm's correction over the pairs, metric by metric.

    Raises :class:`CompanionError` if the systems of a pair were not run on the same rows.
    """
    lines: list[tuple[Any, ...]] = []
    for a, b in pairs:
        for number, (x, y) in enumerate(zip_longest(scored[a].samples["id"], scored[b].samples["id"]), start=1):
            if x != y:
                raise CompanionError(f"row {number}: {a} has id {x!r}, {b} has {y!r}; predict both on the same rows")
    systems = list(dict.fromkeys(system for pair in pairs for system in pair))
    influence = cache(fcd_influence)
    for name in dict.fromkeys(name for system in systems for name in scored[system].metrics):
        sides = {system: part for system in systems if (part := additive(scored[system], name))}
        usable = [(a, b) for a, b in pairs if a in sides and b in sides]
        lefts, rights = ([sides[pair[side]] for pair in usable] for side in (0, 1))
        drawn = resampled([*lefts, *rights], resamples, seed)
        tested = permuted(lefts, rights, permutations, seed)
        for number, (left, right, p) in enumerate(zip(lefts, rights, tested, strict=True)):
            low, high = percentiles(drawn[number] - drawn[number + len(lefts)])
            lines.append((name, *usable[number], left.total() - right.total(), low, high, p))
        if name == "FCD":
            lines += [(name, a, b, *_fcd_difference(scored[a], scored[b], influence)) for a, b in pairs]
    frame = pd.DataFrame(lines, columns=[c for c in COMPARISON_COLUMNS if c != "p_holm"])
    corrected = frame.groupby("metric", sort=False)["p"].transform(holm)
    return frame.assign(p_holm=corrected)[list(COMPARISON_COLUMNS)]


def permuted(lefts: Sequence[Additive], rights: Sequence[Additive], permutations: int, seed: int) -> list[float]:
    """p of each pair of systems under the same row-wise swaps; NaN where the difference is undefined."""
    if not lefts:
        return []
    moved = [right.rows - left.rows for left, right in zip(lefts, rights, strict=True)]
    stacked = np.concatenate(moved, axis=1)
    edges = np.cumsum([0, *(part.shape[1] for part in moved)])
    observed = [left.total() - right.total() for left, right in zip(lefts, rights, strict=True)]
    exceeded = np.zeros(len(lefts))
    rng, n = np.random.default_rng(seed), len(stacked)
    block = max(1, _CELLS // n)
    for start in range(0, permutations, block):
        swapped = rng.integers(0, 2, size=(min(block, permutations - start), n), dtype=np.int8).astype(float)
        sums = swapped @ stacked
        for index, (left, right) in enumerate(zip(lefts, rights, strict=True)):
            move = sums[:, edges[index] : edges[index + 1]]
            apart = left.value(left.rows.sum(axis=0) + move) - right.value(right.rows.sum(axis=0) - move)
            # A swap that leaves everything in place must count as equal, whatever its rounding.
            exceeded[index] += np.sum(np.abs(apart) >= abs(observed[index]) - 1e-9)
    ps = (1 + exceeded) / (1 + permutations)
    return [math.nan if math.isnan(d) else float(p) for d, p in zip(observed, ps, strict=True)]


def _fcd_difference(
    a: Scored, b: Scored, influence: Callable[[FCDStatistics], Array]
) -> tuple[float, float, float, float]:
    """Difference, low, high and p."""
    difference = a.metrics.get("FCD", math.nan) - b.metrics.get("FCD", math.nan)
    if a.fcd is None or b.fcd is None:
        return difference, math.nan, math.nan, math.nan
    error = math.sqrt(np.sum((influence(a.fcd) - influence(b.fcd)) ** 2))
    p = 2 * stats.norm.sf(abs(difference) / error) if error else 1.0
    return difference, difference - _Z * error, difference + _Z * error, float(p)


def holm(p: "pd.Series[float]") -> "pd.Series[float]":
    """Holm's step-down correction; NaN is no test and stays NaN."""
    tested = p.dropna().sort_values(kind="stable")
    steps = tested * np.arange(len(tested), 0, -1)
    return steps.cummax().clip(upper=1.0).reindex(p.index)


# ---- files ----

_PARTS: dict[str, type[BleuStatistics] | type[FCDStatistics]] = {"bleu": BleuStatistics, "fcd": FCDStatistics}


def write_statistics(path: Path, scored: Scored) -> None:
    """Write what BLEU and FCD need as a compressed ``.npz``, atomically."""
    kept = {part: vars(held) for part in _PARTS if (held := getattr(scored, part)) is not None}
    arrays: dict[str, Array] = {f"{part}.{name}": values for part in kept for name, values in kept[part].items()}
    with atomic(path) as half, open(half, "wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)


def read_statistics(path: Path) -> dict[str, Any]:
    """The fields that :func:`write_statistics` wrote; raises :class:`BadFileError` if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {
                part: kind(**{name: stored[f"{part}.{name}"] for name in kind.__annotations__})
                for part, kind in _PARTS.items()
                if any(name.startswith(f"{part}.") for name in stored.files)
            }
    except FileNotFoundError:
        raise BadFileError(f"{path} is missing: run 07_nli_evaluation, or make reproduce") from None
    except Exception as error:  # zip, zlib and numpy each raise their own
        raise BadFileError(f"{path} is damaged ({error}): delete it and run 07_nli_evaluation again") from None
