"""What the benchmarks share."""

import time
from collections.abc import Callable
from typing import Any

import pandas as pd


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What ``work`` returns, and its wall time in seconds."""
    started = time.perf_counter()
    value = work()
    return value, time.perf_counter() - started


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table, a row of ``rows`` a line."""
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:,.4g}".format, na_rep="-") + "\n", flush=True)
