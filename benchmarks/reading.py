"""What reading the notebooks asks for: a Markdown table, a line per executed notebook.

Minutes are the words of its Markdown by 200 a minute. Cells, lines and outputs are those of the committed copies, which
keep no times: seconds are papermill's, of the last run of the profile.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from lmolt_utils.paths import root, run_folder

WORDS_A_MINUTE = 200
#: Cells of parameters, the notebook's own and papermill's: nothing to read in them, and no output.
_PARAMETERS = {"parameters", "injected-parameters"}


def measured(notebook: dict[str, Any]) -> dict[str, float]:
    """Minutes, cells, lines per code cell and the share of code cells with output."""
    cells = [cell for cell in notebook["cells"] if not _PARAMETERS & set(cell["metadata"].get("tags", []))]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    words = sum(len("".join(cell["source"]).split()) for cell in cells if cell["cell_type"] == "markdown")
    lines = [len("".join(cell["source"]).splitlines()) for cell in code]
    return {
        "minutes to read": words / WORDS_A_MINUTE,
        "cells": len(cells),
        "lines per code cell, median": median(lines),
        "largest": max(lines),
        "code cells with output": sum(bool(cell["outputs"]) for cell in code) / len(code),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--notebooks", type=Path, default=root() / "figures" / "notebooks", help="default: %(default)s")
    parser.add_argument("--profile", default="cpu", help="whose run the seconds are of (default: %(default)s)")
    given = parser.parse_args()
    table = {}
    for path in sorted(given.notebooks.glob("*.ipynb")):
        ran = run_folder(given.profile) / "notebooks" / path.name
        told = json.loads(ran.read_text(encoding="utf-8"))["metadata"].get("papermill", {}) if ran.exists() else {}
        table[path.stem] = measured(json.loads(path.read_text(encoding="utf-8"))) | {"s": told.get("duration")}
    frame = pd.DataFrame(table).T.rename_axis("notebook")
    shown = {"minutes to read": "{:.1f}", "code cells with output": "{:.0%}"}
    for name in frame:
        frame[name] = [shown.get(str(name), "{:.0f}").format(value) if value else "–" for value in frame[name]]
    print(frame.to_markdown(disable_numparse=True, colalign=["left", *["right"] * len(frame.columns)]))


if __name__ == "__main__":
    main()
