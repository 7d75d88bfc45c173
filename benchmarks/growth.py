"""How time and memory grow with the corpus: its rows through data, negatives, scoring and NLI, each in one process.

Writes docs/growth.csv and draws docs/growth.png; stages may be measured one at a time. Seconds are the processor's,
which a busy machine lengthens less than wall time, after a first pass over 100 rows (imports, models).
"""

import argparse
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmolt_utils.config.prompts import TASKS
from lmolt_utils.data.card import make_card
from lmolt_utils.data.overlap import make_overlap
from lmolt_utils.data.prepare import make_corpus, make_sample_and_test
from lmolt_utils.files import atomic
from lmolt_utils.paths import root
from lmolt_utils.run import steps
from lmolt_utils.run.notebook import Run, start


def _run(rows: int, corpus: str) -> Run:
    """A run of the default profile on ``rows`` of the embedded corpus, or of L+M-24's released archive ``corpus``."""
    overrides: dict[str, Any] = {"corpus_rows": rows, "test_rows": min(3000, rows // 20)}
    if corpus != "embedded":
        part = Path(os.environ["LMOLT_RUNS"], f"additional_data_{rows}.zip")
        if not part.exists():
            with zipfile.ZipFile(corpus) as whole, zipfile.ZipFile(part, "w") as some:
                for name in whole.namelist():
                    lines = whole.read(name).splitlines(keepends=True)
                    if name == "train_props.txt":  # it is sorted: every so many lines one
                        lines = [lines[index * len(lines) // rows] for index in range(rows)]
                    some.writestr(name, b"".join(lines))
        overrides |= {"corpus": str(part), "test_set": "extra_valid"}
    return start("01_data", {"profile": "cpu", "systems": [], "overrides": overrides})


def data(run: Run) -> None:
    """The steps of 01_data: corpus, sample and test set, overlap, card."""
    corpus = make_corpus(run)
    make_overlap(run, corpus, *make_sample_and_test(run), run.params.cap2mol_model)
    make_card(run, corpus)


def generated(run: Run) -> None:
    """The steps of 02_negatives, with its negative generators."""
    from lmolt_utils.negatives.pairs import make_negatives, make_pairs

    for task in TASKS:
        make_negatives(run, task, getattr(run.params, f"negatives_{task}_model"))
    make_pairs(run)


def nearest(run: Run) -> None:
    """Rejected answers of the molecules most alike: the sample against all of the training split."""
    from lmolt_utils.negatives.pairs import draw

    for task in TASKS:
        draw("nearest", make_sample_and_test(run)[0], make_corpus(run), task, 0)


def _answers(run: Run, side: str) -> pd.DataFrame:
    """Every row of the corpus, answered by the row after: right in part."""
    corpus = make_corpus(run)
    return pd.DataFrame({"id": corpus["id"], "reference": corpus[side], "prediction": np.roll(corpus[side], -1)})


def scoring(task: str, side: str, run: Run) -> None:
    """All metrics of a task, with intervals."""
    from lmolt_utils.metrics.intervals import intervals
    from lmolt_utils.metrics.scoring import Scorer

    intervals(Scorer().score(_answers(run, side).assign(task=task), task))


def nli(run: Run) -> None:
    """Atomic cross-NLI of the captions, by the shipped model."""
    from lmolt_utils.nli.classifier import Classifier, PairScorer
    from lmolt_utils.nli.cross_nli import Method, canonical_atoms, cross_nli
    from lmolt_utils.nli.llm import decomposer

    method = Method("atomic", canonical_atoms(decomposer(run)))
    cross_nli({"": _answers(run, "caption")}, [method], PairScorer(Classifier("embedded:nli")))


#: What is measured, and up to how many rows: ChemNet takes an hour for 100,000.
STAGES: Mapping[str, tuple[Callable[[Run], None], int]] = {
    "data": (data, 10**6),
    "negatives, generated": (generated, 10**6),
    "negatives, nearest": (nearest, 10**6),
    "scoring, captions": (partial(scoring, "mol2cap", "caption"), 10**6),
    "scoring, molecules": (partial(scoring, "cap2mol", "molecule"), 10**4),
    "NLI": (nli, 10**6),
}


def one(stage: str, rows: int, corpus: str) -> dict[str, Any]:
    """Seconds of a stage in this process, the data that it reads made before, and the peak of the whole."""
    steps.forget_peak = lambda: None  # the peak of all steps
    work = STAGES[stage][0]
    with redirect_stdout(None):
        first, run = _run(100, corpus), _run(rows, corpus)
        for each in (first, run) if stage != "data" else ():
            make_corpus(each)
            make_sample_and_test(each)
        work(first)
        began, wall = time.process_time(), time.perf_counter()
        work(run)
    spent = {"seconds": time.process_time() - began, "wall": time.perf_counter() - wall}
    return {"stage": stage, "rows": rows, **spent, "peak_mb": steps.peak_memory_mb()}


def draw_growth(table: pd.DataFrame) -> None:
    """Both axes logarithmic; along the dashed line ten times the rows take ten times as long."""
    import matplotlib.pyplot as plt

    from lmolt_utils.figures.style import STYLE, write_figure

    plt.style.use(STYLE)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, column, label in zip(axes, ("seconds", "peak_mb"), ("processor seconds", "peak memory, MB"), strict=True):
        for stage, lines in table.groupby("stage"):
            axis.plot(lines["rows"], lines[column], marker="o", label=stage)
        axis.set(xlabel="corpus rows", ylabel=label, xscale="log", yscale="log")
    ends = np.array([table["rows"].min(), table["rows"].max()])
    axes[0].plot(ends, ends / 200, "--", color="grey", label="linear")
    axes[0].legend(fontsize=7)
    figure.set_label("Processor seconds and peak memory against corpus rows, by stage, on logarithmic axes")
    write_figure(root() / "docs", "growth", (figure, table))


def main() -> None:
    """Measure each stage at each size in a process of its own; print, write and draw the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--corpus", default="embedded", help="or L+M-24's additional_data.zip, thinned out")
    given = parser.parse_args()
    path = root() / "docs" / "growth.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame()
    in_turn = ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1)
    with tempfile.TemporaryDirectory(prefix="lmolt-growth-") as folder, in_turn:
        os.environ |= {"LMOLT_RUNS": folder, "OMP_NUM_THREADS": "1"}
        for rows, stage in ((r, s) for r in given.rows for s in given.stages if r <= STAGES[s][1]):
            line = pd.DataFrame([in_turn.submit(one, stage, rows, given.corpus).result()]).round(2)
            table = pd.concat([table, line]).drop_duplicates(["stage", "rows"], keep="last")
            table = table.sort_values(["stage", "rows"])
            with atomic(path) as part:
                table.to_csv(part, index=False)
    draw_growth(table)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
