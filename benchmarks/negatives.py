"""Negatives: bookkeeping at 1k, 10k and 160k rows, and generation batched by length against one row at a time.

``python -m benchmarks.negatives`` prints two tables. Each size runs in a process of its own, so that its
peak memory is its own; the naive version of each row stands beside it, from the same process.
"""

import argparse
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from lmolt_utils.run.shards import Shards, answered

from lmolt_utils.config.prompts import TASKS, Task, prompt
from lmolt_utils.embedded.corpus import generate as generate_corpus
from lmolt_utils.files import read_rows, write_rows
from lmolt_utils.models.generation import batches, generate
from lmolt_utils.models.loading import Kind as ModelKind
from lmolt_utils.models.loading import load_model, load_tokenizer
from lmolt_utils.negatives.drawn import SIDES, Kind, draw
from lmolt_utils.negatives.pairs import preference_pairs, usable
from lmolt_utils.run.steps import peak_memory_mb

SIZES = (1_000, 10_000, 160_000)
REPEATS = 3
DRAWN: tuple[Kind, ...] = ("shuffled", "random", "property_edited")  # nearest compares each row with all others
MODELS: tuple[tuple[str, ModelKind, Task], ...] = (
    ("negatives-mol2cap", "translator", "mol2cap"),
    ("negatives-cap2mol", "translator", "cap2mol"),
    ("mol2cap", "causal", "mol2cap"),
    ("cap2mol", "causal", "cap2mol"),
)


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _rows(count: int) -> pd.DataFrame:
    """``count`` rows of a small corpus over and over, each text made different by its number."""
    base = generate_corpus(1000, 0)
    frame = pd.concat([base] * (count // len(base) + 1), ignore_index=True).head(count)
    numbers = pd.Series([f"{number:06d}" for number in range(count)])
    return frame.assign(
        id="r" + numbers, split="train", molecule=frame["molecule"] + numbers, caption=frame["caption"] + " " + numbers
    )


def _stand_in(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
    """Answers without a model, in the batches that a model would be given."""
    for chunk in batches([len(text) for text in texts], 128, 128 * 256):
        yield [(index, texts[index][::-1]) for index in chunk]


def _naive_pairs(frame: pd.DataFrame, answers: dict[Task, list[str]]) -> list[dict[str, str]]:
    pairs = []
    for task, given in answers.items():
        source, answer = SIDES[task]
        for number, (_, row) in enumerate(frame.iterrows()):
            pair = {"id": row["id"], "source": row[source], "chosen": row[answer], "rejected": given[number]}
            if pair["rejected"] not in ("", pair["chosen"]):
                pairs.append(pair)
    return pairs


def _draw_both(kind: Kind, frame: pd.DataFrame) -> None:
    for task in TASKS:
        draw(kind, frame, frame, task, 0)


def bookkeeping(count: int) -> dict[str, float]:
    """Seconds of each piece of bookkeeping for ``count`` rows (both tasks), and the process's peak memory in MB."""
    frame = _rows(count)
    answers: dict[Task, list[str]] = {}
    found: dict[str, float] = {"rows": count}

    def ask(folder: Path) -> None:
        for task in TASKS:
            shards = Shards(folder / task, 1000, {})
            answers[task] = answered(list(frame[SIDES[task][0]]), _stand_in, shards, task)

    def pair(folder: Path) -> None:
        path = folder / "pairs.jsonl"
        write_rows(path, usable(preference_pairs(frame, answers)))
        read_rows(path, ("chosen",))

    with tempfile.TemporaryDirectory() as name:
        found["batches and shards, s"] = _seconds(lambda: ask(Path(name)))
        found["resumed from shards, s"] = _seconds(lambda: ask(Path(name)))
        found["pairs to file and back, s"] = _seconds(lambda: pair(Path(name)))
    found["pairs in memory, s"] = _seconds(lambda: usable(preference_pairs(frame, answers)))
    for kind in DRAWN:
        found[f"{kind}, s"] = _seconds(partial(_draw_both, kind, frame))
    found["peak, MB"] = peak_memory_mb()
    if count <= SIZES[1]:  # the naive version is slow in proportion
        found["iterrows / pairs in memory"] = (
            _seconds(lambda: _naive_pairs(frame, answers)) / found["pairs in memory, s"]
        )
    return found


def generation(rows: int, alone: int, batch_size: int) -> pd.DataFrame:
    """Milliseconds per row one at a time (``alone`` rows, drawn) and batched (``rows``), their ratio, equal outputs."""
    corpus = generate_corpus(max(100, rows), 0).head(rows)
    table = []
    for name, kind, task in MODELS:
        model, tokenizer = load_model(f"embedded:{name}", kind), load_tokenizer(f"embedded:{name}")
        source = corpus[SIDES[task][0]]
        texts = [prompt(task, text) for text in source] if kind == "causal" else list(source)
        drawn = random.Random(0).sample(range(len(texts)), min(alone, len(texts)))
        ask = partial(generate, model, tokenizer, max_new_tokens=96, title=name)
        ask(texts[:2], batch_size=2)  # the first call is slower
        single: list[str] = []
        together: list[str] = []

        def one_by_one(ask: Any = ask, texts: Any = texts, drawn: Any = drawn, single: Any = single) -> None:
            single[:] = [ask([texts[index]], batch_size=1)[0] for index in drawn]

        def batched(ask: Any = ask, texts: Any = texts, together: Any = together) -> None:
            together[:] = ask(texts, batch_size=batch_size)

        ratios = []
        for _ in range(REPEATS):
            slow, fast = _seconds(one_by_one) / len(drawn), _seconds(batched) / len(texts)
            ratios.append((slow / fast, slow, fast))
        ratio, slow, fast = statistics.median_low(ratios)
        table.append(
            {
                "model": name,
                "one at a time, ms/row": slow * 1e3,
                "batched, ms/row": fast * 1e3,
                "times faster": ratio,
                "equal outputs": [together[i] for i in drawn] == single,
            }
        )
    return pd.DataFrame(table).set_index("model")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES), help="rows of the bookkeeping table")
    parser.add_argument("--rows", type=int, default=300, help="rows generated in batches")
    parser.add_argument("--alone", type=int, default=40, help="rows generated one at a time")
    parser.add_argument("--batch", type=int, default=128, help="prompts generated together")
    given = parser.parse_args()
    found = []
    for size in given.sizes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(pool.apply(bookkeeping, (size,)))
    if found:
        print(pd.DataFrame(found).set_index("rows").T.round(2).to_string(na_rep="-"), "\n")
    if given.rows:
        print(generation(given.rows, given.alone, given.batch).round(2).to_string())


if __name__ == "__main__":
    main()
