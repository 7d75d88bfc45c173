"""What is kept of the study: every number that a claim rests on with its draws, the variants' scores, the verdicts.

``figures/study/numbers.npz`` holds, for each number, its mean over training seeds, their count and spread, and its
1,000 draws (float32), so that every verdict can be decided again without predictions or scores.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lmolt_utils.config.params import load
from lmolt_utils.config.systems import load_systems
from lmolt_utils.figures.claims import DRAWS, Condition, Evidence, Number, flipped, judge, load_claims
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
    """Decide every claim again from the committed numbers; 3 where a verdict is not the committed one, else 0."""
    evidence = Kept(_run(), load_systems(), kept=read_numbers(FOLDER / "numbers.npz"))
    now = pd.DataFrame([judge(claim, evidence) for claim in load_claims()])
    changed = flipped(pd.read_csv(FOLDER / "claims.csv", dtype=str), now)
    print("\n".join(changed) or f"all {len(now)} verdicts are as committed")
    return 3 if changed else 0


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
