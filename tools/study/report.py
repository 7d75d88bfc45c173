"""What is kept of the study: every number that a claim rests on with its draws, the variants' scores, the verdicts.

``figures/study/numbers.npz`` holds, for each number, its mean over training seeds, their count and spread, and its
1,000 draws (float32), so that every verdict can be decided again without predictions or scores.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lmolt_utils.config.params import load
from lmolt_utils.config.systems import load_systems
from lmolt_utils.figures.claims import DRAWS, Condition, Evidence, Number, judge, load_claims, read_verdicts
from lmolt_utils.files import atomic
from lmolt_utils.metrics.results import all_scores
from lmolt_utils.paths import run_folder
from lmolt_utils.run.notebook import Run
from tools.study import FOLDER, save_table, variants


class Kept(Evidence):
    """Evidence read back from ``numbers.npz``."""

    def number(self, condition: Condition, name: str, cut: int) -> Number | None:
        """See :class:`~lmolt_utils.figures.claims.Evidence`."""
        return self.kept.get((name, condition.metric, condition.task, condition.method, cut))


def main() -> None:
    """Write the scores, the numbers, the verdicts, and the scores of the variants that were made."""
    run = _run()
    save_table("scores", all_scores(run, run.table))
    evidence = Evidence(run, run.table, run.params.seed)
    verdicts = pd.DataFrame([judge(claim, evidence) for claim in load_claims()])
    verdicts = verdicts.assign(older_code=run.older_code) if run.older_code else verdicts
    write_numbers(FOLDER / "numbers.npz", evidence.kept)
    save_table("claims", verdicts)
    variants.save()
    print(verdicts[["id", "verdict", "claim"]].to_string(index=False))


def check() -> int:
    """Decide every claim again from the committed numbers; 3 where ``claims.csv`` or ``scores.csv`` differ, else 0."""
    numbers = read_numbers(FOLDER / "numbers.npz")
    evidence = Kept(_run(), load_systems(), kept=numbers)
    now = pd.DataFrame([judge(claim, evidence) for claim in load_claims()])
    wrong = differing(read_verdicts(FOLDER / "claims.csv"), now) + untold(numbers, pd.read_csv(FOLDER / "scores.csv"))
    print("\n".join(wrong) or f"all {len(now)} verdicts are as committed, with their evidence")
    return 3 if wrong else 0


def differing(committed: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """Claims of which a committed line is missing, or says something else."""
    lines = committed.set_index("id")
    found = [f"{name}: not in claims.csv" for name in now["id"] if name not in lines.index]
    found += [f"{name}: no such claim" for name in lines.index if name not in set(now["id"])]
    for line in now[now["id"].isin(lines.index)].to_dict("records"):
        old = lines.loc[line["id"]]
        found += [f"{line['id']}, {k}: {old[k]} -> {v}" for k, v in line.items() if k != "id" and old[k] != v]
    return found


def untold(numbers: Mapping[tuple[object, ...], Number | None], scores: pd.DataFrame) -> list[str]:
    """Numbers of one seed that ``scores.csv`` has otherwise (it has no NLI scores and no lengths)."""
    known, found = scores.set_index(["system", "metric"])["value"].to_dict(), []
    for (name, metric, *_), number in numbers.items():
        value = known.get((name, metric))
        if (
            number is not None
            and number.seeds == 1
            and value is not None
            and not math.isclose(value, number.mean, rel_tol=1e-5, abs_tol=1e-9)
        ):
            found.append(f"{metric} of {name}: {value} in scores.csv, {number.mean:.6g} in numbers.npz")
    return found


def write_numbers(path: Path, numbers: Mapping[tuple[object, ...], Number | None]) -> None:
    """Write the numbers that there are."""
    found = {key: number for key, number in numbers.items() if number is not None}
    facts = [[*key, number.mean, number.seeds, number.spread] for key, number in found.items()]
    nothing = np.full(DRAWS, np.nan)
    draws = [nothing if number.draws is None else number.draws for number in found.values()]
    with atomic(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, facts=json.dumps(facts), draws=np.array(draws, dtype=np.float32))


def read_numbers(path: Path) -> dict[tuple[object, ...], Number | None]:
    """What :func:`write_numbers` wrote."""
    with np.load(path) as kept:
        facts, draws = json.loads(str(kept["facts"])), kept["draws"].astype(float)
    return {
        tuple(key): Number(mean, seeds, None if np.isnan(drawn).all() else drawn, spread)
        for (*key, mean, seeds, spread), drawn in zip(facts, draws, strict=True)
    }


def _run() -> Run:
    return Run("08_figures", run_folder("study", {}), load("study"))
