"""What the benchmarks share: ways of doing the same work, timed in turns."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import pandas as pd


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What ``work`` returns, and its wall time in seconds."""
    started = time.perf_counter()
    value = work()
    return value, time.perf_counter() - started


def compare(ways: Mapping[str, tuple[int, Callable[[], Any]]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Time two ways, each ``repeats`` times, in turns, so that a busy machine slows both alike.

    ways: by name how many rows it works on, and the work. Returns the medians in milliseconds per row with ``ratio``,
    the median of the first way's time over the second's, and what each way returned last.
    """
    spent: dict[str, list[float]] = {name: [] for name in ways}
    values = {}
    for _ in range(repeats):
        for name, (rows, work) in ways.items():
            values[name], seconds = timed(work)
            spent[name].append(1e3 * seconds / rows)
    ratio = median(one / other for one, other in zip(*spent.values(), strict=True))
    return {f"{name}, ms/row": median(times) for name, times in spent.items()} | {"ratio": ratio}, values


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table, a row of ``rows`` a line."""
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:,.4g}".format, na_rep="-") + "\n", flush=True)
