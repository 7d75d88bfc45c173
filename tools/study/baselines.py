"""What a table of the training molecules answers, without any training: ``python -m tools.study.baselines``.

The trivial baselines (lmolt_utils/data/baselines.py) from 0.1 %, 1 %, 10 % and all of the training molecules, on the
study's three test sets, both tasks: over all test molecules and, for the 10 % sample, over one molecule of each
property set and over the molecules whose property set is rare. Each part is kept in ``runs/study-baselines`` until all
are there; together they are ``figures/study/baselines.csv``.
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from lmolt_utils.config.params import load
from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.data.baselines import ANSWERS, Sample
from lmolt_utils.data.captioner import knowledge, reader
from lmolt_utils.data.molecules import molecules
from lmolt_utils.data.prepare import corpus_source
from lmolt_utils.data.sample import draw, property_key, sample
from lmolt_utils.files import atomic
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.metrics.captions import caption_scores, caption_tokenizer, meteor_matcher
from lmolt_utils.metrics.intervals import Additive, intervals, percentiles, resampled
from lmolt_utils.metrics.molecules import molecule_scores
from lmolt_utils.paths import from_root, root, run_folder
from lmolt_utils.run.notebook import Run
from tools.study import save_table
from tools.study.backbones import corpus

TEST_SETS = ("extra_valid", "test", "withheld_combos")
SHARES = (0.001, 0.01, 0.1, 1.0)
SAMPLE_SHARE = 0.1  # the papers'
COLUMNS = ("test_set", "rows", "sample_share", "system", "task", "metric", "value", "low", "high", "n")
#: A property set is rare when fewer training molecules have it.
RARE = 10
METRICS = (
    *("BLEU-2", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR"),
    *("BLEU", "Exact", "MACCS", "RDK", "Morgan", "Validity", "Uniqueness"),
)


def property_columns(references: Sequence[str], outputs: Sequence[str], decomposer: Decomposer) -> pd.DataFrame:
    """Per row: twice the properties in both, those of both together (their ratio of sums is micro F1), exact."""
    rows = []
    for reference, text in zip(references, outputs, strict=True):
        true, found = set((property_key(reference) or "").split("|")), decomposer.properties(text)
        rows.append((2 * len(true & found), len(true) + len(found), float(true == found)))
    return pd.DataFrame(rows, columns=["both", "together", "exact"])


class Measure:
    """Scores answers with intervals; what does not change from one to the next is kept."""

    def __init__(self, decomposer: Decomposer) -> None:
        self.decomposer = decomposer
        self.words = caption_tokenizer(from_root(load("study").caption_tokenizer)), meteor_matcher("auto")

    def __call__(
        self, task: Task, tested: pd.DataFrame, answers: Sequence[str], training: Collection[str] = ()
    ) -> pd.DataFrame:
        """Columns metric, value, low, high, n. ``training``: canonical SMILES, for the share of novel answers."""
        references = tested["caption" if task == "mol2cap" else "molecule"].tolist()
        if task == "mol2cap":
            scored = caption_scores(references, answers, *self.words)
        else:
            scored = molecule_scores(references, answers, fcd=False)
        kept = {name: scored.metrics[name] for name in METRICS if name in scored.metrics}
        scored = replace(scored, metrics=kept)
        rows = [(name, one.value, one.low, one.high) for name, one in intervals(scored).items()]
        if task == "mol2cap":
            rows += _property_rows(property_columns(tested["properties"].tolist(), answers, self.decomposer))
        elif training:
            novel = [one.canonical not in training for one in molecules(answers)]
            rows.append(("Novelty", float(np.mean(novel)) if novel else np.nan, np.nan, np.nan))
        frame = pd.DataFrame(rows, columns=["metric", "value", "low", "high"])
        return frame.assign(n=len(tested))


def _property_rows(columns: pd.DataFrame) -> list[tuple[str, float, float, float]]:
    parts = {
        "property F1": Additive(columns[["both", "together"]].to_numpy(dtype=float), _share, len(columns)),
        "exact property set": Additive(
            np.stack([columns["exact"], np.ones(len(columns))], axis=1).astype(float), _share, len(columns)
        ),
    }
    drawn = resampled(list(parts.values()), 1000, 0)
    return [(name, part.total(), *percentiles(one)) for (name, part), one in zip(parts.items(), drawn, strict=True)]


def _share(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1))


def views(tested: pd.DataFrame, training: pd.Series) -> dict[str, np.ndarray]:
    """Which rows count: all, one of each property set, those of rare sets. ``training``: all training property sets."""
    keys = tested["properties"].map(property_key)
    counts = training.map(property_key).value_counts()
    return {
        "all": np.ones(len(tested), dtype=bool),
        "one per property set": ~keys.duplicated().to_numpy(),
        "rare sets": (keys.map(counts).fillna(0) < RARE).to_numpy(),
    }


def part(
    measure: Measure,
    tested: pd.DataFrame,
    known: Sample,
    share: float,
    masks: dict[str, np.ndarray],
    training: set[str],
) -> pd.DataFrame:
    """Every baseline that knows ``known``, on one test set."""
    found = []
    for baseline, answer in ANSWERS.items():
        for task in TASKS:
            sources = tested["molecule" if task == "mol2cap" else "caption"].tolist()
            answers = pd.Series(answer(known, task, sources))
            for view, mask in masks.items() if share == SAMPLE_SHARE else [("all", masks["all"])]:
                if mask.sum() < 2:
                    continue
                scored = measure(task, tested[mask].reset_index(drop=True), answers[mask].tolist(), training)
                found.append(scored.assign(rows=view, sample_share=share, system=baseline, task=task))
    return pd.concat(found)


def main(rows: int = 3000) -> None:
    params = load("study")
    frame, known = corpus(), knowledge(corpus_source(Run("01_data", run_folder("study", {}), params)))
    training, measure = frame[frame["split"] == "train"], Measure(reader(known.tree))
    found, kept = [], root() / "runs" / "study-baselines"
    for share in SHARES:
        told: Sample | None = None
        for name in TEST_SETS:
            path = kept / f"{name}-{share:g}-{rows}.csv"
            if not path.exists():
                tested, _ = draw(name, frame, rows, params.seed, corpus_seed=params.corpus_seed, known=known)
                told = told or Sample(sample(frame, share, params.seed))
                masks = views(tested, training["properties"])
                known_molecules = {one.canonical for one in molecules(training["molecule"])}  # read once, then kept
                scored = part(measure, tested, told, share, masks, known_molecules)
                with atomic(path) as half:
                    scored.assign(test_set=name)[list(COLUMNS)].to_csv(half, index=False, float_format="%.6g")
                print(f"{name}, {share:.1%} of the training molecules: done", flush=True)
            found.append(pd.read_csv(path))
    save_table("baselines", pd.concat(found))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
