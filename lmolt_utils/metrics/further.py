"""What is asked for beside the papers' metrics: how diverse and how makeable generated molecules are, each share of
all outputs and of the valid ones, and whether captions stay the same when their molecule is written as another SMILES.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from rdkit.Contrib.SA_Score import sascorer

from lmolt_utils.config.systems import System
from lmolt_utils.data.molecules import LONGEST, molecule, parse
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.metrics.analysis import behaviours
from lmolt_utils.metrics.intervals import compare_all, mean_of, percentiles, resampled
from lmolt_utils.metrics.scoring import Scorer
from lmolt_utils.models.predictions import prediction_path, scored_answers
from lmolt_utils.paths import from_root
from lmolt_utils.run.notebook import Run

ALL, VALID = "of all outputs", "of valid outputs"
#: Of RDKit's synthetic accessibility score, 1 (easy) to 10: above it Ertl and Schuffenhauer (2009) call molecules hard.
HARD = 6.0
SET_COLUMNS = ("system", "quantity", "denominator", "value", "n")
REFERENCES = "test references"
REWRITTEN_COLUMNS = ("system", "measure", "n", "before", "after", "difference", "low", "high")
SCORES = ("BLEU-2", "ROUGE-L", "METEOR", "Chr-F")
_RESAMPLES = 2000


@lru_cache(maxsize=50_000)
def sa_score(smiles: str) -> float:
    """Synthetic accessibility (Ertl and Schuffenhauer 2009), of a molecule that RDKit reads."""
    return float(sascorer.calculateScore(parse(smiles)))


def molecule_sets(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """:data:`SET_COLUMNS` of the molecules of those ``systems`` that have them, and of the test references.

    Molecules are told apart by canonical SMILES; *new* ones are no training molecule (by 07's count of copies);
    scaffolds are Bemis and Murcko's, which a molecule without a ring has not. n: the denominator.
    """
    copies = {name: float(entry["cap2mol"]["copied"]) for name, entry in behaviours(run, systems).items()}
    lines: list[tuple[Any, ...]] = []
    for system in systems:
        if prediction_path(run, system.name, "cap2mol").exists():
            answers = scored_answers(run, system, "cap2mol")
            if not lines:
                lines += _set_lines(REFERENCES, list(answers["reference"]), math.nan)
            lines += _set_lines(system.label, list(answers["prediction"]), copies.get(system.name, math.nan))
    return pd.DataFrame(lines, columns=list(SET_COLUMNS))


def _set_lines(label: str, outputs: Sequence[str], copied: float) -> list[tuple[Any, ...]]:
    """copied: share of all outputs that are training molecules."""
    read = [found for text in outputs if len(text) <= LONGEST and (found := molecule(text))]
    scores = np.array([sa_score(one.canonical) for one in read])
    scaffolds = {one.scaffold for one in read} - {""}
    counts = {
        "distinct molecules": len({one.canonical for one in read}),
        "new molecules": len(read) - copied * len(outputs),
        "distinct scaffolds": len(scaffolds),
        f"SA score at most {HARD:g}": int((scores <= HARD).sum()),
    }
    sizes = {ALL: len(outputs), VALID: len(read)}
    lines = [(label, "valid", ALL, len(read) / len(outputs), len(outputs))]
    lines += [(label, name, of, x / n if n else math.nan, n) for name, x in counts.items() for of, n in sizes.items()]
    return [*lines, (label, "mean SA score", VALID, float(scores.mean()) if read else math.nan, len(read))]


def rewritten_captions(run: Run, systems: Sequence[System], rules: Decomposer) -> pd.DataFrame:
    """:data:`REWRITTEN_COLUMNS`: captions of the same molecules before and after these were written as other SMILES.

    n: the test rows whose SMILES did change; the others are left out. Scores have a value before and after, and a
    difference with low and high; shares of equal captions and of equal property sets have only after, low and high.
    """
    scorer = Scorer(from_root(run.params.caption_tokenizer), run.params.invalid)
    lines: list[tuple[Any, ...]] = []
    for system in systems:
        other = system.model_copy(update={"name": f"{system.name}.rewritten"})
        if not all(prediction_path(run, each.name, "mol2cap").exists() for each in (system, other)):
            continue
        before, after = (scored_answers(run, each, "mol2cap").set_index("id") for each in (system, other))
        if list(before.index) != list(after.index):
            raise ValueError(f"{system.name} answered other test rows than {other.name}: run 06_ablation again")
        changed = before["source"] != after["source"]
        pair = {"before": before[changed].reset_index(), "after": after[changed].reset_index()}
        if not changed.any():
            continue
        texts = pd.DataFrame({when: frame["prediction"] for when, frame in pair.items()})
        sets = texts.map(rules.properties)
        stated = sets[sets.map(bool).any(axis=1)]  # two captions without a property say nothing of the molecule
        for name, side in {"equal captions": texts, "equal property sets": stated}.items():
            equal = mean_of((side["before"] == side["after"]).to_numpy(dtype=float))
            ends = percentiles(resampled([equal], _RESAMPLES, run.params.seed)[0]) if len(side) else (math.nan,) * 2
            value = equal.total() if len(side) else math.nan
            lines.append((system.label, name, len(side), math.nan, value, math.nan, *ends))
        scored = {when: scorer.score(frame, "mol2cap") for when, frame in pair.items()}
        tests = compare_all(scored, [("after", "before")], resamples=_RESAMPLES, permutations=1).set_index("metric")
        for name in SCORES:
            values = [scored[when].metrics[name] for when in pair]
            lines.append((system.label, name, len(texts), *values, *tests.loc[name, ["difference", "low", "high"]]))
    return pd.DataFrame(lines, columns=list(REWRITTEN_COLUMNS))
