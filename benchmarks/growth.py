"""How time and memory grow with the corpus: its rows through data, negatives, scoring and NLI, each in one process.

Writes docs/growth.csv and draws docs/growth.png. Seconds are the processor's, which a busy machine lengthens less than
it does wall time, after a first pass over 100 rows (imports, models); peak memory includes the libraries.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from benchmarks.timing import show
from lmolt_utils.config.prompts import TASKS
from lmolt_utils.files import atomic
from lmolt_utils.paths import root
from lmolt_utils.run import steps
from lmolt_utils.run.notebook import Run, start


def _begun(notebook: str, rows: int, **more: object) -> Run:
    overrides = {"corpus_rows": rows, "test_rows": min(3000, rows // 20), **more}
    return start(notebook, {"profile": "cpu", "systems": [], "overrides": overrides})


def _corpus(rows: int) -> pd.DataFrame:
    from lmolt_utils.data.prepare import make_corpus

    return make_corpus(_begun("01_data", rows))


def _predictions(rows: int) -> pd.DataFrame:
    """``rows`` captions and molecules, answered by the row after: each right in part."""
    corpus = _corpus(rows)
    sides = {"mol2cap": corpus["caption"], "cap2mol": corpus["molecule"]}
    frames = [
        pd.DataFrame({"id": corpus["id"], "task": task, "reference": side, "prediction": np.roll(side, -1)})
        for task, side in sides.items()
    ]
    return pd.concat(frames)


def data(rows: int) -> None:
    """The steps of 01_data: corpus, sample and test set, overlap, card."""
    from lmolt_utils.data.card import make_card
    from lmolt_utils.data.overlap import make_overlap
    from lmolt_utils.data.prepare import make_sample_and_test

    corpus, run = _corpus(rows), _begun("01_data", rows)
    make_overlap(run, corpus, *make_sample_and_test(run), run.params.cap2mol_model)
    make_card(run, corpus)


def generated(rows: int) -> None:
    """The steps of 02_negatives, with its negative generators."""
    from lmolt_utils.negatives.pairs import make_negatives, make_pairs

    data(rows)
    run = _begun("02_negatives", rows)
    for task in TASKS:
        make_negatives(run, task, getattr(run.params, f"negatives_{task}_model"))
    make_pairs(run)


def nearest(rows: int) -> None:
    """Rejected answers of the molecules most alike: the sample against all of the training split."""
    from lmolt_utils.data.prepare import make_sample_and_test
    from lmolt_utils.negatives.pairs import draw

    sampled, _ = make_sample_and_test(_begun("01_data", rows))
    for task in TASKS:
        draw("nearest", sampled, _corpus(rows), task, 0)


def _scoring(task: str) -> Callable[[int], None]:
    def work(rows: int) -> None:
        from lmolt_utils.metrics.intervals import intervals
        from lmolt_utils.metrics.scoring import Scorer

        frame = _predictions(rows)
        intervals(Scorer().score(frame[frame["task"] == task], task))

    return work


def nli(rows: int) -> None:
    """Atomic cross-NLI, by the shipped model."""
    from lmolt_utils.grammar.decompose import Decomposer
    from lmolt_utils.nli.classifier import Classifier, PairScorer
    from lmolt_utils.nli.cross_nli import Method, canonical_atoms, cross_nli

    frame = _predictions(rows).query("task == 'mol2cap'").reset_index(drop=True)
    cross_nli({"": frame}, [Method("atomic", canonical_atoms(Decomposer()))], PairScorer(Classifier("embedded:nli")))


#: What is measured, and from which number of rows on it is left out: a generator takes minutes for a tenth of them.
STAGES: Mapping[str, tuple[Callable[[int], None], int]] = {
    "data": (data, 10**9),
    "negatives, generated": (generated, 50_000),
    "negatives, nearest": (nearest, 10**9),
    "scoring, captions": (_scoring("mol2cap"), 10**9),
    "scoring, molecules": (_scoring("cap2mol"), 50_000),
    "NLI": (nli, 10**9),
}


def one(stage: str, rows: int) -> dict[str, object]:
    """Seconds of a stage in this process, what comes before it made already, and the peak of the whole."""
    steps.forget_peak = lambda: None  # the peak of all steps
    work = STAGES[stage][0]
    before = data if stage.startswith("negatives") else _corpus
    before(rows if stage != "data" else 100)
    work(100)
    began, wall = time.process_time(), time.perf_counter()
    work(rows)
    spent = {"seconds": time.process_time() - began, "wall": time.perf_counter() - wall}
    return {"stage": stage, "rows": rows, **spent, "peak_mb": steps.peak_memory_mb()}


def draw(table: pd.DataFrame) -> None:
    """Seconds and peak memory against rows, both axes logarithmic; the dashed line is what linear growth would be."""
    import matplotlib.pyplot as plt

    from lmolt_utils.figures.style import STYLE

    plt.style.use(STYLE)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, column, label in zip(axes, ("seconds", "peak_mb"), ("processor seconds", "peak memory, MB"), strict=True):
        for stage, lines in table.groupby("stage", sort=False):
            axis.plot(lines["rows"], lines[column], marker="o", label=stage)
        axis.set(xlabel="corpus rows", ylabel=label, xscale="log", yscale="log")
    first = table[table["rows"] == table["rows"].min()]["seconds"].median()
    ends = table["rows"].min(), table["rows"].max()
    axes[0].plot(ends, [first, first * ends[1] / ends[0]], "--", color="grey", label="linear")
    axes[0].legend(fontsize=7)
    with atomic(root() / "docs" / "growth.png") as part:
        figure.savefig(part, dpi=150, metadata={"Software": None})


def main() -> None:
    """Measure each stage at each size in a process of its own; print, write and draw the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.stages[0], given.rows[0])))
        return
    path = root() / "docs" / "growth.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame()  # stages may be measured one at a time
    with tempfile.TemporaryDirectory(prefix="lmolt-growth-") as folder:
        environment = {**os.environ, "LMOLT_RUNS": folder, "OMP_NUM_THREADS": "1"}
        for rows in given.rows:
            for stage in (name for name in given.stages if rows < STAGES[name][1]):
                command = [sys.executable, "-m", "benchmarks.growth", "--one", "--stages", stage, "--rows", str(rows)]
                done = subprocess.run(command, env=environment, cwd=root(), stdout=-1, check=True, text=True)
                line = pd.DataFrame([json.loads(done.stdout.splitlines()[-1])]).round(2)
                table = pd.concat([table, line]).drop_duplicates(["stage", "rows"], keep="last")
                table = table.sort_values(["stage", "rows"])
                with atomic(path) as part:
                    table.to_csv(part, index=False)
    draw(table)
    wide = table.pivot(index="stage", columns="rows", values=["seconds", "peak_mb"]).reset_index()
    show(wide.to_dict("records"))


if __name__ == "__main__":
    main()
