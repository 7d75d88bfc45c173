"""Loading and composing, rows per second and peak memory, beside the row-by-row way.

``python -m benchmarks.data`` prints two tables.

Loading, three ways over the same files: ``load`` (this package's reader without RDKit), ``iterrows`` (pandas' reader,
then one row at a time with the same checks) and ``load + RDKit`` (what a run does: every molecule is read once). Each
runs in a process of its own, because peak memory is a property of a process, and in turns, so that a busy machine slows
all.

Composing: captions in L+M-24's forms for every row's property set, beside ``iterrows`` with a composer made per row.
"""

import argparse
import re
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import pandas as pd

from lmolt_utils.data.captioner import captioner
from lmolt_utils.data.rows import MAX_CAPTION, MAX_MOLECULE, read_rows_of
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.run.steps import peak_memory_mb

SIZES = (1_000, 10_000, 160_000)
WAYS = ("load", "iterrows", "load + RDKit")
_BASE = 1_000


def rows_like_the_corpus(rows: int) -> pd.DataFrame:
    """``rows`` distinct molecules of the embedded corpus's lengths: 1,000 of them, each with labelled methane added."""
    base = generate(_BASE, 0)[["molecule", "caption", "properties"]]
    frame = pd.concat([base] * -(-rows // _BASE), ignore_index=True).head(rows)
    labels = [f"[{index // _BASE + 1}CH4]." for index in range(rows)]
    return frame.assign(molecule=pd.Series(labels) + frame["molecule"].astype(object))


def one_by_one(path: Path) -> pd.DataFrame:
    """The obvious loop: pandas reads, ``iterrows`` checks."""
    forbidden = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    good = []
    for _, row in frame.iterrows():
        texts = [row["molecule"], row["caption"], row["properties"]]
        if not all(isinstance(text, str) and text.strip() and not forbidden.search(text) for text in texts):
            continue
        if len(row["molecule"]) <= MAX_MOLECULE and len(row["caption"]) <= MAX_CAPTION:
            good.append({"molecule": texts[0], "caption": texts[1], "properties": texts[2]})
    return pd.DataFrame(good)


def run_once(way: str, path: Path) -> tuple[int, float, float]:
    """Rows loaded, seconds, and the process's peak memory in MB."""
    start = time.perf_counter()
    rows = one_by_one(path) if way == "iterrows" else read_rows_of(path, check=way == "load + RDKit").frame
    return len(rows), time.perf_counter() - start, peak_memory_mb()


def measure(sizes: Sequence[int] = SIZES, repeats: int = 3, ways: Sequence[str] = WAYS) -> pd.DataFrame:
    """Medians over ``repeats``: format, rows, way, seconds, rows per second, peak MB, and seconds over those of load.

    Parquet is read by ``load`` only; RDKit's reading is measured once above 10,000 rows, because it takes a minute.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="lmolt-bench-") as folder:
        for size in sizes:
            frame = rows_like_the_corpus(size)
            frame.to_csv(Path(folder) / "train.csv", index=False)
            frame.to_parquet(Path(folder) / "train.parquet")
            del frame  # a child's peak counts from its parent's
            for file in ("train.csv", "train.parquet"):
                for turn in range(repeats):
                    for way in ways:
                        if (way != "load" and file != "train.csv") or (
                            way == "load + RDKit" and size > 10_000 and turn
                        ):
                            continue
                        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                            count, seconds, peak = process.submit(run_once, way, Path(folder) / file).result()
                        if count != size:
                            raise ValueError(f"{way} gave {count} of {size} rows of {file}")
                        found.append(
                            {"format": file[6:], "rows": size, "way": way, "seconds": seconds, "peak MB": peak}
                        )
    table = pd.DataFrame(found).groupby(["format", "rows", "way"], sort=False).agg(median).reset_index()
    table["rows/s"] = table["rows"] / table["seconds"]
    own = table[table["way"] == "load"].set_index(["format", "rows"])["seconds"].to_dict()
    table["times load"] = [row.seconds / own[row.format, row.rows] for row in table.itertuples()]
    return table


def compose_once(size: int) -> dict[str, float]:
    """One size of :func:`composing`: seconds of both ways in this process, in turns, and its peak memory."""
    frame = rows_like_the_corpus(size).drop(columns="caption")
    own, naive = [], []
    for _ in range(3):
        start = time.perf_counter()
        write = captioner("l+m-24", None)
        captions = [write(m, p.split("|"), 0, 0) for m, p in zip(frame["molecule"], frame["properties"], strict=True)]
        own.append(time.perf_counter() - start)
        start = time.perf_counter()
        some = frame.head(1_000)  # it is slow in proportion
        again = [captioner("l+m-24", None)(r["molecule"], r["properties"].split("|"), 0, 0) for _, r in some.iterrows()]
        naive.append((time.perf_counter() - start) / len(some) * size)
        if again != captions[: len(again)]:
            raise ValueError("two ways of composing gave different captions")
    seconds = median(own)
    return {
        "rows": size,
        "seconds": seconds,
        "rows/s": size / seconds,
        "peak MB": peak_memory_mb(),
        "iterrows, composer per row": median(naive) / seconds,
    }


def composing(sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """Composing so many captions: seconds, rows per second, peak MB, and how many times slower the naive way is."""
    found = []
    for size in sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            found.append(process.submit(compose_once, size).result())
    return pd.DataFrame(found)


def main() -> None:
    """Print the tables of :func:`measure` and :func:`composing`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES, help="sizes (default: 1000 10000 160000)")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for table in (composing(arguments.rows), measure(arguments.rows, arguments.repeats)):
        print(table.to_string(index=False, float_format=lambda value: f"{value:,.2f}"), "\n", flush=True)


if __name__ == "__main__":
    main()
