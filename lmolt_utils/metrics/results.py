"""The scores of all systems, read back from their files: tables, spread over seeds, the papers' headline effects."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.systems import System
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import read_json, read_rows
from lmolt_utils.metrics.intervals import Scored, additive, read_statistics, resampled
from lmolt_utils.metrics.scoring import score_path
from lmolt_utils.paths import root
from lmolt_utils.run.notebook import Run

SCORE_COLUMNS = ("system", "task", "metric", "value", "n", "low", "high")
SEED_COLUMNS = ("system", "task", "metric", "mean", "spread", "low", "high", "seeds", "wanted")
QUANTITIES = ("length_deviation", "chr_f", "entailment")
NOT_RUN = "not run"
#: What scores must have in common to stand in one table.
COMPARABLE = ("tokenizer", "meteor_matcher", "invalid")


class MixedScoresError(CompanionError, ValueError):
    """Scores by different conventions, which must not share a table."""


# ---- score files ----


def all_scores(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Long table (:data:`SCORE_COLUMNS`) of every score file there is; systems without one have no rows.

    low and high: the 95 % interval, NaN where a metric has none.
    """
    lines = []
    for system in systems:
        for task in TASKS:
            path = score_path(run, system.name, task, "json")
            if path.exists():
                result = read_json(path)
                for metric, value in result["metrics"].items():
                    interval = result.get("intervals", {}).get(metric, {})
                    ends = interval.get("low"), interval.get("high")
                    lines.append((system.name, task, metric, value, result["n"], *ends))
    frame = pd.DataFrame(lines, columns=list(SCORE_COLUMNS))
    return frame.astype({"value": float, "n": int, "low": float, "high": float})


def read_scores(run: Run, name: str, task: Task) -> Scored:
    """Read back what scoring wrote; raises :class:`~lmolt_utils.files.BadFileError` naming the missing file."""
    metrics = read_json(score_path(run, name, task, "json"))["metrics"]
    return Scored(
        {metric: math.nan if value is None else float(value) for metric, value in metrics.items()},
        read_rows(score_path(run, name, task, "samples.jsonl"), ("id",)),
        read_statistics(score_path(run, name, task, "statistics.npz")),
    )


def all_samples(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Long table of per-row values: system, task, id, quantity (:data:`QUANTITIES`), value."""
    frames = []
    for system in systems:
        files = [(task, score_path(run, system.name, task, "samples.jsonl")) for task in TASKS]
        for task, path in (*files, ("mol2cap", run.path("scores", f"{system.name}.nli.jsonl"))):
            if path.exists():
                rows = read_rows(path, ("id",)).rename(columns={"Chr-F": "chr_f"})
                kept = [name for name in QUANTITIES if name in rows]
                long = rows.melt(id_vars=["id"], value_vars=kept, var_name="quantity", value_name="value")
                frames.append(long.assign(system=system.name, task=task))
    columns = ["system", "task", "id", "quantity", "value"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def conventions(run: Run, systems: Sequence[System], task: Task) -> dict[str, Any]:
    """What all scores of a task have in common (tokenizer, matcher, versions).

    Raises :class:`MixedScoresError` when systems were scored by different conventions (:data:`COMPARABLE`).
    """
    found = {
        system.name: read_json(path)["conventions"]
        for system in systems
        if (path := score_path(run, system.name, task, "json")).exists()
    }
    first, *others = found or [""]
    for name in COMPARABLE:
        for other in others:
            if (one := found[first].get(name)) != (two := found[other].get(name)):
                raise MixedScoresError(
                    f"{task}: {first} was scored with {name} {one!r}, {other} with {two!r}; such numbers do not share "
                    "a table. Run 07_nli_evaluation again, which scores all systems alike."
                )
    return found.get(first, {})


def overview(run: Run, systems: Sequence[System], task: Task) -> pd.DataFrame:
    """Systems against metrics for one task, value ± half the 95 % interval; without scores every cell says so."""
    scores = all_scores(run, systems)
    scores = scores[scores["task"] == task]
    wide = scores.assign(text=[_text(line) for line in scores.itertuples()])
    wide = wide.pivot(index="system", columns="metric", values="text")
    order = list(dict.fromkeys(scores["metric"]))
    wide = wide.reindex(index=[system.name for system in systems], columns=order)
    wide.index = pd.Index([system.label for system in systems], name="system")
    return wide.astype(object).where(wide.notna(), NOT_RUN)


def _text(line: Any) -> str:
    if math.isnan(line.value):
        return "undefined"
    half = (line.high - line.low) / 2
    return f"{line.value:.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")


# ---- training seeds ----


def seeds_of(name: str, names: Iterable[str]) -> list[str]:
    """``name`` and, among ``names``, its copies for further training seeds (``<name>@seed<k>``)."""
    copy = re.compile(rf"{re.escape(name)}@seed\d+")
    return [name, *(other for other in names if copy.fullmatch(other))]


def seed_spread(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Mean and spread over training seeds (:data:`SEED_COLUMNS`) of the systems that have copies among ``systems``.

    spread: sample standard deviation; low, high: Student's t interval of the mean at 95 %; seeds: how many defined
    values there are, of ``wanted``. One seed has no spread: NaN, never 0. Files of seeds that are not asked for do not
    count.
    """
    names = [system.name for system in systems]
    copies = {name: seeds_of(name, names) for name in names}
    first = {copy: name for name, own in copies.items() if len(own) > 1 for copy in own}
    scores = all_scores(run, [system for system in systems if system.name in first])
    scores["system"] = scores["system"].map(first)
    groups = scores.groupby(["system", "task", "metric"], sort=False)["value"]
    frame = groups.agg(mean="mean", spread="std", seeds="count").reset_index()
    half = stats.t.ppf(0.975, frame["seeds"] - 1) * frame["spread"] / np.sqrt(frame["seeds"])
    frame = frame.assign(low=frame["mean"] - half, high=frame["mean"] + half)
    return frame.assign(wanted=[len(copies[name]) for name in frame["system"]])[list(SEED_COLUMNS)]


# ---- the papers' headline effects ----

#: Share of the draws on either side of a 95 % interval: where more say otherwise, an effect is undecided.
UNDECIDED = 0.025
RULES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "below": np.less,
    "above": np.greater,
    "at_least": np.greater_equal,
    "within": lambda number, bound: np.abs(number) <= bound,
}
_TASK_OF: dict[str, Task] = {"BLEU-2": "mol2cap", "MACCS": "cap2mol", "Validity": "cap2mol"}


def effects(
    run: Run, systems: Sequence[System], scores: pd.DataFrame, *, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Each effect of ``params/effects.yaml`` with the numbers it rests on and whether it is seen: see :func:`judge`.

    scores: :func:`all_scores` of ``systems``, their copies for further seeds among them.
    """
    names = [system.name for system in systems]
    rests_on = {(name, effect["metric"]) for effect in _effects() for name in effect["systems"]}
    drawn = {}
    for system, metric in sorted((copy, metric) for name, metric in rests_on for copy in seeds_of(name, names)):
        task = _TASK_OF[metric]
        if score_path(run, system, task, "statistics.npz").exists():
            part = additive(read_scores(run, system, task), metric)
            assert part is not None
            drawn[system, metric] = resampled([part], draws, 0)[0]
    return judge(scores, systems, drawn, draws=draws, seed=seed)


def _effects() -> list[dict[str, Any]]:
    return list(yaml.safe_load((root() / "params" / "effects.yaml").read_text(encoding="utf-8")))


def judge(
    scores: pd.DataFrame,
    systems: Sequence[System],
    replicates: Mapping[tuple[str, str], np.ndarray],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Whether each effect is seen, in which share of the draws, over how many seeds: one line of text per effect.

    replicates: values by (system, metric) under the same draws of the test rows. Of a system with several seeds the
    mean counts; each draw moves it by what other test rows would do (the mean of its seeds' replicates) and,
    independently of other systems, by what other training seeds would do (Student's t times standard deviation over
    the root of the number of seeds). An effect is undecided where more than 2.5 % of the draws say otherwise;
    ``draws`` is the share in which it is seen, "–" where neither spread is known. Where a trained system has one seed
    its verdict knows the test rows only, and says so.
    """
    rng = np.random.default_rng(seed)
    names = [system.name for system in systems]
    trained = {system.name for system in systems if system.method != "none"}
    values = scores.dropna(subset="value").set_index(["system", "metric"])["value"].to_dict()
    numbers: dict[tuple[str, str], _Number] = {}
    lines = []
    for effect in _effects():
        rests_on = [(name, effect["metric"]) for name in effect["systems"]]
        for key in rests_on:
            if key not in numbers:
                copies = [(copy, key[1]) for copy in seeds_of(key[0], names)]
                numbers[key] = _number(
                    [values[copy] for copy in copies if copy in values],
                    [replicates[copy] for copy in copies if copy in replicates],
                    draws,
                    rng,
                )
        lines.append(_line(effect, {name: numbers[name, effect["metric"]] for name in effect["systems"]}, trained))
    return pd.DataFrame(lines)


@dataclass(frozen=True, eq=False)
class _Number:
    """A system's number: its mean over ``seeds``, their standard deviation, its draws (None: no spread is known)."""

    mean: float
    spread: float
    seeds: int
    draws: np.ndarray | None

    def __str__(self) -> str:
        if not self.seeds:
            return NOT_RUN
        return f"{self.mean:.2f}" + ("" if math.isnan(self.spread) else f" ± {self.spread:.2f}")


def _number(values: Sequence[float], replicates: Sequence[np.ndarray], draws: int, rng: np.random.Generator) -> _Number:
    k = len(values)
    mean = float(np.mean(values)) if k else math.nan
    spread = float(np.std(values, ddof=1)) if k > 1 else math.nan
    if not k or (k == 1 and not replicates):
        return _Number(mean, spread, k, None)
    drawn = np.mean(replicates, axis=0) if replicates else np.full(draws, mean)
    if k > 1:
        drawn = drawn + rng.standard_t(k - 1, len(drawn)) * spread / math.sqrt(k)
    return _Number(mean, spread, k, drawn)


def _line(effect: Mapping[str, Any], numbers: Mapping[str, _Number], trained: set[str]) -> dict[str, str]:
    missing = not all(number.seeds for number in numbers.values())
    drawn = [number.draws for number in numbers.values() if number.draws is not None]
    share = float(np.mean(_holds(effect, drawn))) if len(drawn) == len(numbers) else math.nan
    if missing:
        seen = NOT_RUN
    elif UNDECIDED < share < 1 - UNDECIDED:
        seen = "undecided"
    else:
        seen = "yes" if _holds(effect, [np.array(number.mean) for number in numbers.values()]).all() else "no"
    seeds = {name: number.seeds for name, number in numbers.items() if name in trained}
    return {
        "effect": effect["effect"],
        "source": effect["source"],
        "here": ", ".join(f"{name} {number}" for name, number in numbers.items()),
        "seen": f"{seen} (one seed)" if not missing and 1 in seeds.values() else seen,
        "draws": "–" if math.isnan(share) else f"{share:.0%}",
        "seeds": ", ".join(f"{name} {count}" for name, count in seeds.items()) or "none trained",
    }


def _holds(effect: Mapping[str, Any], values: Sequence[np.ndarray]) -> np.ndarray:
    """Where the value, or the difference of the two values, is what the effect's rule asks for."""
    number = values[0] - values[1] if len(values) == 2 else values[0]
    return next(np.asarray(holds(number, effect[rule])) for rule, holds in RULES.items() if rule in effect)
