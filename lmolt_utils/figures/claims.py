"""The papers' claims (``params/claims.yaml``) decided by the result files of a run.

A claim is a list of conditions on numbers. Each number has draws: what it would be with other test rows (bootstrap,
the same rows for every system; FCD and KL each by its own interval) and, where a system was trained with several seeds,
with others. A claim holds, or does not, where at most 2.5 % of the draws say otherwise; else it is within noise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from pydantic import Field

from lmolt_utils.config.params import ParameterError, load
from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.published import METRICS, load_official, load_published
from lmolt_utils.config.reading import Strict, read_as
from lmolt_utils.config.systems import System
from lmolt_utils.figures.tables import untrue_deltas
from lmolt_utils.files import BadFileError, read_json, read_rows
from lmolt_utils.metrics.intervals import Additive, additive, mean_of, resampled
from lmolt_utils.metrics.results import read_scores, seeds_of
from lmolt_utils.metrics.scoring import score_path
from lmolt_utils.nli.results import divergence_path, rows_path
from lmolt_utils.paths import root, run_folder, shown
from lmolt_utils.run.notebook import Run, altered

Verdict = Literal["holds", "does not hold", "within noise", "not decidable", "not run"]
#: Share of the draws on either side of a 95 % interval: more that disagree are noise.
DISAGREEING = 0.025
DRAWS = 1000
NLI = ("coverage", "hallucination", "unsupported")
AUTHORS, _OFFICIAL, DELTAS = "authors' ", "official ", "deltas that do not follow"
_COLUMNS = ("id", "claim", "source", "verdict", "evidence", "draws", "seeds")


class Condition(Strict):
    """One number, or a difference of two, and its bound; see the head of ``params/claims.yaml``."""

    of: str
    metric: str
    minus: str | None = None
    times: float = 1.0
    task: Task | None = None
    method: str = "atomic"
    cut: int = 0
    minus_cut: int | None = None
    below: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    above: float | None = None
    within: float | None = None

    @property
    def sides(self) -> list[tuple[str, int]]:
        """Whose number is asked for, at which cut; two sides are a difference."""
        if self.minus_cut is not None:
            return [(self.of, self.cut), (self.of, self.minus_cut)]
        return [(name, self.cut) for name in (self.of, self.minus) if name]

    def holds(self, number: np.ndarray) -> np.ndarray:
        """Where ``number`` keeps every bound."""
        bounds: list[tuple[float | None, Callable[[np.ndarray, float], np.ndarray]]] = [
            (self.below, np.less),
            (self.at_most, np.less_equal),
            (self.at_least, np.greater_equal),
            (self.above, np.greater),
            (self.within, lambda value, bound: np.abs(value) <= bound),
        ]
        kept = [rule(number, bound) for bound, rule in bounds if bound is not None]
        return np.asarray(np.logical_and.reduce(kept))


class Claim(Strict):
    """A statement of a paper (or a control) and what decides it."""

    id: str
    claim: str
    source: str
    says: str = ""
    given: list[Condition] = Field(default_factory=list)
    all: list[Condition] = Field(default_factory=list)
    not_decidable: str = ""


def load_claims() -> list[Claim]:
    """The claims of ``params/claims.yaml``, in its order."""
    return read_as(root() / "params" / "claims.yaml", list[Claim])


@dataclass(frozen=True, eq=False)
class Number:
    """A mean over ``seeds`` training seeds, its values under other draws (None: no spread is known), and the seeds'
    standard deviation (NaN: of one seed). As a text: 0.52 ± 0.06 [0.4, 0.63], the interval that of the draws."""

    mean: float
    seeds: int
    draws: np.ndarray | None
    spread: float = math.nan

    def __str__(self) -> str:
        spread = "" if math.isnan(self.spread) else f" ± {_short(self.spread)}"
        if self.draws is None:
            return f"{_short(self.mean)}{spread}"
        low, high = np.quantile(self.draws, [DISAGREEING, 1 - DISAGREEING])
        return f"{_short(self.mean)}{spread} [{_short(low)}, {_short(high)}]"


def _short(value: float) -> str:
    return f"{round(float(value), 3) + 0.0:g}"  # no minus zero


@dataclass
class Evidence:
    """Numbers of a run, read once each; a missing one is None."""

    run: Run
    systems: Sequence[System]
    seed: int = 0
    kept: dict[tuple[object, ...], Number | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labels = {system.name: system.label for system in self.systems}
        self.trained = {system.name for system in self.systems if system.method != "none"}
        self.rng = np.random.default_rng(self.seed)

    def printed(self, name: str, metric: str) -> str:
        """What the papers' newest table prints for a system's metric, as " (paper .42)"; empty where none does."""
        rows = next((system.rows for system in self.systems if system.name == name), {})
        value = load_published().printed(rows, metric)
        return "" if value is None else f" (paper {value:g})"

    def number(self, condition: Condition, name: str, cut: int) -> Number | None:
        """The number that ``condition`` asks of ``name``."""
        key = (name, condition.metric, condition.task, condition.method, cut)
        if key not in self.kept:
            if condition.metric == "KL":
                self.kept[key] = self._divergence(name, cut)
            elif condition.metric.startswith(AUTHORS):
                self.kept[key] = self._released(name, condition.metric.removeprefix(AUTHORS))
            elif condition.metric == DELTAS:
                self.kept[key] = Number(untrue_deltas(name), 1, None)
            elif condition.metric.startswith(_OFFICIAL):
                metric = condition.metric.removeprefix(_OFFICIAL)
                self.kept[key] = Number(load_official()[name][METRICS[metric].task][metric], 1, None)
            else:
                copies = seeds_of(name, self.labels)
                found = [one for copy in copies if (one := self._score(condition, copy)) is not None]
                self.kept[key] = self._over_seeds(found)
        return self.kept[key]

    def _score(self, condition: Condition, system: str) -> tuple[float, np.ndarray | None] | None:
        if condition.metric in NLI:
            row = next((one for one in self.systems if one.name == system), None)  # a table of one's own may lack it
            if row is None or not (path := rows_path(self.run, row)).exists():
                return None
            rows = read_rows(path, ("method", condition.metric))
            values = rows.loc[rows["method"] == condition.method, condition.metric].to_numpy(dtype=float)
            return _drawn(mean_of(values))
        for task in [condition.task] if condition.task else TASKS:
            path = score_path(self.run, system, task, "json")
            if not path.exists():
                continue
            scored = read_scores(self.run, system, task)
            if condition.metric not in scored.metrics and condition.metric not in scored.samples:
                continue
            if part := additive(scored, condition.metric):
                return _drawn(part)
            value, interval = scored.metrics[condition.metric], read_json(path)["intervals"][condition.metric]
            return (value, self._normal(value, interval["low"], interval["high"])) if not math.isnan(value) else None
        return None

    def _over_seeds(self, found: Sequence[tuple[float, np.ndarray | None]]) -> Number | None:
        """Each draw takes other test rows (the mean of the seeds' draws) and other training seeds (Student's t)."""
        if not found:
            return None
        values, drawn = [value for value, _ in found], [draws for _, draws in found if draws is not None]
        draws = np.mean(drawn, axis=0) if drawn else None
        spread = math.nan
        if len(values) > 1:
            spread = float(np.std(values, ddof=1))
            errors = self.rng.standard_t(len(values) - 1, DRAWS) * (spread / math.sqrt(len(values)))
            draws = (np.mean(values) if draws is None else draws) + errors
        return Number(float(np.mean(values)), len(values), draws, spread)

    def _divergence(self, method: str, cut: int) -> Number | None:
        if not divergence_path(self.run).exists():
            return None
        words = (0, *self.run.params.word_cuts)[cut]
        for line in read_json(divergence_path(self.run))["table"]:
            if line["method"] == method and line["words"] == words and line["kl"] is not None:
                return Number(line["kl"], 1, self._normal(line["kl"], line["low"], line["high"]))
        return None

    def _released(self, system: str, quantity: str) -> Number:
        """A mean over the rows of the authors' released file."""
        facts = read_as(root() / "params" / "released.yaml", dict[str, dict[str, tuple[int, float, float]]])
        n, mean, deviation = facts[system][quantity]
        half = 1.96 * deviation / math.sqrt(n)
        return Number(mean, 1, self._normal(mean, mean - half, mean + half))

    def _normal(self, value: float, low: float | None, high: float | None) -> np.ndarray | None:
        """Draws around a number of which only the 95 % interval is known."""
        if low is None or high is None:
            return None
        return value + self.rng.standard_normal(DRAWS) * (high - low) / (2 * 1.96)


def _drawn(part: Additive) -> tuple[float, np.ndarray]:
    return part.total(), resampled([part], DRAWS, 0)[0]


def judge(claim: Claim, evidence: Evidence) -> dict[str, str]:
    """The verdict on one claim; ``draws`` is the share of the draws in which it holds."""
    line = dict.fromkeys(_COLUMNS, "") | {"id": claim.id, "claim": claim.claim, "source": claim.source}
    if claim.not_decidable:
        return line | {"verdict": "not decidable", "evidence": claim.not_decidable}
    told, seeds = dict[str, list[str]](), dict[str, int]()
    point, known, drawn = True, True, np.ones(DRAWS, dtype=bool)
    for condition in claim.all:
        numbers = []
        for name, cut in condition.sides:
            number, label = evidence.number(condition, name, cut), evidence.labels.get(name, name)
            if number is None:
                return line | {"verdict": "not run", "evidence": f"no {condition.metric} of {label}"}
            if math.isnan(number.mean):
                undefined = f"{condition.metric} of {label} is not a number"
                return line | {"verdict": "not decidable", "evidence": undefined}
            numbers.append(number)
            title = condition.metric + ("" if condition.metric != "KL" else f", cut {cut}")
            title += "" if condition.method == "atomic" else f" by {condition.method}"
            told.setdefault(title, []).append(f"{label} {number}{evidence.printed(name, condition.metric)}")
            if name in evidence.trained:
                seeds[label] = number.seeds
        draws = [number.draws for number in numbers if number.draws is not None]
        point &= bool(condition.holds(np.array(_difference([number.mean for number in numbers], condition.times))))
        known &= len(draws) == len(numbers)
        if known:
            drawn &= condition.holds(_difference(draws, condition.times))
    for condition in claim.given:
        number, label = evidence.number(condition, condition.of, condition.cut), evidence.labels[condition.of]
        if number is None or not condition.holds(np.array(number.mean)):
            said = f"{condition.metric}: {label} {number}{evidence.printed(condition.of, condition.metric)}"
            return line | {"verdict": "not decidable", "evidence": said + ", nothing to compare with"}
    share = float(drawn.mean()) if known else math.nan
    verdict = "holds" if point else "does not hold"
    if known and DISAGREEING < share < 1 - DISAGREEING:
        verdict = "within noise"
    return line | {
        "verdict": verdict,
        "evidence": "; ".join(f"{metric}: {', '.join(dict.fromkeys(numbers))}" for metric, numbers in told.items()),
        "draws": "" if math.isnan(share) else f"{share:.0%}",
        "seeds": ", ".join(f"{label} {count}" for label, count in seeds.items()),
    }


def _difference(numbers: Sequence[Any], times: float) -> Any:
    return numbers[0] - times * numbers[1] if len(numbers) == 2 else numbers[0]


def verdicts(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """A line per claim; ``systems``: every system of the run, its copies for further seeds among them.

    A column ``older_code`` names the steps that older code made, where there are any.
    """
    evidence = Evidence(run, systems, run.params.seed)
    found = pd.DataFrame([judge(claim, evidence) for claim in load_claims()])
    return found.assign(older_code=run.older_code) if run.older_code else found


def flipped(before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """Claims whose verdict was another one, as "C1: holds -> within noise"; one that was not run before is none."""
    old = before.set_index("id")["verdict"].to_dict()
    return [
        f"{line.id}: {old[line.id]} -> {line.verdict}"
        for line in now.itertuples()
        if old.get(line.id, line.verdict) not in (line.verdict, "not run")
    ]


def decide(profile: str) -> int:
    """Print the verdicts of a profile's run; 3 where one differs from the claims.csv that 08 wrote before, else 0."""
    params = load(profile)
    run = Run("08_figures", run_folder(profile, {}), params)
    if not run.path("scores").is_dir():
        raise ParameterError(f"profile {profile} has no scores yet: make reproduce PROFILE={profile}")
    now, kept = verdicts(run, run.table), run.figures / "claims.csv"
    for line in now.to_dict("records"):
        print(f"{line['id']:5} {line['verdict']:14} {line['claim']}\n{'':20} {line['evidence']}{sure(line)}")
    print(", ".join(f"{count} {verdict}" for verdict, count in counts(now).items()))
    for name in altered(run.folder, "07_nli_evaluation"):
        print(f"missing, or not what 07_nli_evaluation wrote: {name}")
    changed = flipped(read_verdicts(kept), now) if kept.exists() else []
    for text in changed:
        print(f"changed: {text}")
    return 3 if changed else 0


def read_verdicts(path: Path) -> pd.DataFrame:
    """A ``claims.csv``, as texts; :class:`~lmolt_utils.files.BadFileError` where it is not one, whole."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError:  # pandas' errors, and texts that are not UTF-8
        table = pd.DataFrame()
    whole = not table.empty and set(_COLUMNS) <= set(table)
    if not (whole and table["id"].is_unique and table["verdict"].isin(get_args(Verdict)).all()):
        raise BadFileError(f"{shown(path)} is no table of verdicts, or damaged: restore it, or run 08_figures again")
    return table


def sure(line: Mapping[Any, Any]) -> str:
    """In which share of the draws a claim holds, and of how many training seeds its numbers are."""
    share = f"; it holds in {line['draws']} of the draws" if line["draws"] else ""
    return share + (f"; training seeds: {line['seeds']}" if line["seeds"] else "")


def counts(table: pd.DataFrame) -> Mapping[str, int]:
    """How many claims got each verdict, in the order of the scale."""
    found = table["verdict"].value_counts()
    return {verdict: int(found[verdict]) for verdict in get_args(Verdict) if verdict in found}
