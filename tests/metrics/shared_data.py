"""Published predictions and what the official scripts print of them, where they are at hand."""

import csv
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(os.environ.get("LMOLT_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def shared(name: str) -> Path:
    """A file of the real data; the test is skipped without it."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"real data not found: {path} (set LMOLT_SHARED_DATA)")
    return path


def read_pairs(name: str) -> tuple[list[str], list[str]]:
    """References and outputs of a published table, read without the package."""
    path = shared(name)
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["ground truth"] for row in rows], [row["output"] for row in rows]


def oracle(name: str) -> Any:
    """Values of the official scripts."""
    return json.loads(shared(name).read_text(encoding="utf-8"))
