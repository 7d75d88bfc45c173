"""The papers' claims (``params/claims.yaml``) decided by the result files of a run.

A claim is a list of conditions on numbers. Each number has draws: what it would be with other test rows (bootstrap, the
same rows for every system) and, where a system was trained with several seeds, with other training seeds. A claim
holds, or does not, where at most 2.5 % of the draws say otherwise; else it is within noise.
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
from lmolt_utils.config.systems import System, load_systems
from lmolt_utils.figures.author_scores import read_author_scores
from lmolt_utils.files import BadFileError, read_json, read_rows, write_text
from lmolt_utils.metrics.intervals import Additive, additive, mean_of, resampled
from lmolt_utils.metrics.results import read_scores, seeds_of
from lmolt_utils.metrics.scoring import score_path
from lmolt_utils.nli.results import divergence_path, rows_path
from lmolt_utils.paths import figures_folder, root, run_folder, shown
from lmolt_utils.run.notebook import Run, altered

Verdict = Literal["holds", "does not hold", "within noise", "not decidable", "not run"]
#: Share of the draws on either side of a 95 % interval: more that disagree are noise.
DISAGREEING = 0.025
DRAWS = 1000
_NLI = ("coverage", "hallucination", "unsupported")
_AUTHORS, _OFFICIAL = "authors' ", "official "
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
        low, high = (None, None) if self.draws is None else np.quantile(self.draws, [DISAGREEING, 1 - DISAGREEING])
        return f"{_short(self.mean)}{spread}" + ("" if low is None else f" [{_short(low)}, {_short(high)}]")


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
            elif condition.metric.startswith(_AUTHORS):
                self.kept[key] = self._authors(name, condition.metric.removeprefix(_AUTHORS))
            elif condition.metric.startswith(_OFFICIAL):
                metric = condition.metric.removeprefix(_OFFICIAL)
                self.kept[key] = Number(load_official()[name][METRICS[metric].task][metric], 1, None)
            else:
                copies = seeds_of(name, self.labels)
                found = [one for copy in copies if (one := self._score(condition, copy)) is not None]
                self.kept[key] = self._over_seeds(found)
        return self.kept[key]

    def _score(self, condition: Condition, system: str) -> tuple[float, np.ndarray | None] | None:
        if condition.metric in _NLI:
            path = rows_path(self.run, next(one for one in self.systems if one.name == system))
            if not path.exists():
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
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        if len(values) > 1:
            of_mean = spread / math.sqrt(len(values))
            draws = (np.mean(values) if draws is None else draws) + self.rng.standard_t(
                len(values) - 1, DRAWS
            ) * of_mean
        return Number(float(np.mean(values)), len(values), draws, spread)

    def _divergence(self, method: str, cut: int) -> Number | None:
        if not divergence_path(self.run).exists():
            return None
        words = (0, *self.run.params.word_cuts)[cut]
        for line in read_json(divergence_path(self.run))["table"]:
            if line["method"] == method and line["words"] == words and line["kl"] is not None:
                return Number(line["kl"], 1, self._normal(line["kl"], line["low"], line["high"]))
        return None

    def _authors(self, system: str, quantity: str) -> Number | None:
        if not self.run.params.author_scores:
            return None
        scores = read_author_scores(self.run.params.author_scores)
        of = quantity.removeprefix("absolute ")
        values = scores.loc[(scores["system"] == system) & (scores["quantity"] == of), "value"].to_numpy(dtype=float)
        value, draws = _drawn(mean_of(np.abs(values) if of != quantity else values))
        return Number(value, 1, draws)

    def _normal(self, value: float, low: float | None, high: float | None) -> np.ndarray | None:
        """Draws around a number of which only the 95 % interval is known."""
        if low is None or high is None or math.isnan(low) or math.isnan(high):
            return None
        return value + self.rng.standard_normal(DRAWS) * (high - low) / (2 * 1.96)


def _drawn(part: Additive) -> tuple[float, np.ndarray]:
    return part.total(), resampled([part], DRAWS, 0)[0]


def judge(claim: Claim, evidence: Evidence) -> dict[str, str]:
    """The verdict on one claim; ``draws`` is the share of the draws in which it holds."""
    line = {"id": claim.id, "claim": claim.claim, "source": claim.source}
    if claim.not_decidable:
        return {**line, "verdict": "not decidable", "evidence": claim.not_decidable, "draws": "", "seeds": ""}
    told, seeds = dict[str, list[str]](), dict[str, int]()
    point, known, drawn = True, True, np.ones(DRAWS, dtype=bool)
    for condition in claim.all:
        numbers = []
        for name, cut in condition.sides:
            number, label = evidence.number(condition, name, cut), evidence.labels.get(name, name)
            if number is None:
                lacking = f"no {condition.metric} of {label}"
                return {**line, "verdict": "not run", "evidence": lacking, "draws": "", "seeds": ""}
            if math.isnan(number.mean):
                undefined = f"{condition.metric} of {label} is not a number"
                return {**line, "verdict": "not decidable", "evidence": undefined, "draws": "", "seeds": ""}
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
    share = float(drawn.mean()) if known else math.nan
    verdict = "holds" if point else "does not hold"
    if known and DISAGREEING < share < 1 - DISAGREEING:
        verdict = "within noise"
    return {
        **line,
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
    for line in now.itertuples():
        print(f"{line.id:5} {line.verdict:14} {line.claim}\n{'':20} {line.evidence}{_sure(line._asdict())}")
    print(", ".join(f"{count} {verdict}" for verdict, count in counts(now).items()))
    for name in altered(run.folder, "07_nli_evaluation"):
        print(f"missing, or not what 07_nli_evaluation wrote: {name}")
    changed = flipped(read_verdicts(kept), now) if kept.exists() else []
    for text in changed:
        print(f"changed: {text}")
    return 3 if changed else 0


_HEAD = """# Results: what holds of the papers' claims

Every claim is a rule over result files ([params/claims.yaml](params/claims.yaml)); `lmolt claims` decides them again.
*control* is not a claim of the papers but what decides how to read one; [docs/audit.md](docs/audit.md) says where the
papers and their code disagree.
A claim **holds**, **does not hold**, is **within noise** (more than 2.5 % of 1,000 draws of other test rows, and of
other seeds where a system was trained with several, say otherwise), **not decidable** (by no run here) or **not run**
(a system or file that it needs is not there). A number is followed by the standard deviation over training seeds (±),
where there are several, and by the 95 % interval over the draws, in square brackets. A verdict says what is so in these
runs, with these models:

{profiles}

"""


#: Whose verdicts the page shows, where 08 has written them.
PROFILES = ("study", "seeds", "cpu")


def write_results(run: Run) -> None:
    """``RESULTS.md`` beside README, from the verdicts of every profile that has some; only for tracked figures."""
    if run.figures.is_relative_to(root() / "figures"):
        write_text(root() / "RESULTS.md", page(ledgers()))


def ledgers() -> dict[str, tuple[str, pd.DataFrame]]:
    """The verdicts of every profile that has some: profile -> (what it is, its claims.csv)."""
    tables = {}
    for profile in PROFILES:
        params = root() / "params" / f"{profile}.yaml"
        path = figures_folder(root() / "runs" / profile, load(profile).figures_dir) / "claims.csv"
        if path.exists():
            what = params.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").rstrip(".")
            tables[profile] = what, read_verdicts(path)
    return tables


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


def page(tables: Mapping[str, tuple[str, pd.DataFrame]]) -> str:
    """``RESULTS.md``: the ledger with a column of verdicts per profile, then the numbers behind each verdict.

    tables: profile -> (what it is, its verdicts).
    """
    profiles = [
        f"- **{name}**: {what} ({', '.join(f'{verdict}: {count}' for verdict, count in counts(table).items())})."
        + (f" Made by older code, and kept: {table['older_code'].iloc[0]}." if "older_code" in table else "")
        for name, (what, table) in tables.items()
    ]
    by_id = {name: table.set_index("id").to_dict("index") for name, (_, table) in tables.items()}
    ledger = [
        {"": f"[{one.id}](#{one.id.lower()})", "claim": one.claim, "source": one.source}
        | {name: f"**{found[one.id]['verdict']}**" if one.id in found else "–" for name, found in by_id.items()}
        for one in load_claims()
    ]
    numbers = []
    for one in load_claims():
        numbers += [f"### {one.id}", "", f"{one.claim} ({one.source})", ""]
        numbers += [f"> {one.says}", ""] if one.says else []
        for name, found in by_id.items():
            if line := found.get(one.id):
                numbers.append(f"- {name}: **{line['verdict']}**. {line['evidence']}{_sure(line)}.")
        numbers += ["", *([f"See {', '.join(links)}.", ""] if (links := _places(one, list(tables))) else [])]
    table = pd.DataFrame(ledger).to_markdown(index=False)
    return _HEAD.format(profiles="\n".join(profiles)) + table + "\n\n## The numbers\n\n" + "\n".join(numbers)


def _sure(line: Mapping[Any, Any]) -> str:
    """In which share of the draws a claim holds, and of how many training seeds its numbers are."""
    share = f"; it holds in {line['draws']} of the draws" if line["draws"] else ""
    return share + (f"; training seeds: {line['seeds']}" if line["seeds"] else "")


def _places(claim: Claim, profiles: Sequence[str]) -> list[str]:
    """Links to the tables and figures of what a claim rests on, in each profile that has its own, and to the executed
    notebooks that made it; only to what is there."""
    systems = {one.name: one for one in load_systems()}
    shows, made = list[str](), set[str]()
    for one in claim.all:
        named = [systems[name] for name in (one.of, one.minus) if name in systems]
        if one.metric == "KL":
            shows.append(f"nli_divergence_{('all', 'long', 'extreme')[one.cut]}.png")
        elif one.metric in _NLI:
            shows.append("nli_distributions.png" if one.method == "atomic" else "nli_divergence_all.png")
        elif one.metric == "length_deviation":
            shows.append("distributions.png")
        elif one.metric.startswith(_AUTHORS):
            shows.append("almol_distributions.png")
        elif one.metric in METRICS:
            for system in named:
                held = [table for table in system.rows if one.metric in load_published().table(table).metrics]
                ablation = "merge_comparison.png" if system.init == "soup" else "ratio_sweep.png"
                shows.append(f"table_{held[0]}.md" if held else ablation)
        made |= {system.notebook for system in named}
        made |= {"07_nli_evaluation"} if one.metric == "KL" or one.metric in _NLI else set()
    places = [figures_folder(root() / "runs" / name, load(name).figures_dir) for name in profiles]
    files = [folder / name for name in dict.fromkeys(shows) for folder in places]
    files += [root() / "figures" / "notebooks" / f"{name}.ipynb" for name in (*sorted(made), "08_figures") if claim.all]
    names = [path.relative_to(root()).as_posix() for path in dict.fromkeys(files) if path.exists()]
    return [f"[{name.removeprefix('figures/')}]({name})" for name in names]


def counts(table: pd.DataFrame) -> Mapping[str, int]:
    """How many claims got each verdict, in the order of the scale."""
    found = table["verdict"].value_counts()
    return {verdict: int(found[verdict]) for verdict in get_args(Verdict) if verdict in found}
