"""Read predictions as others publish them: one reader, told apart by what the file says about itself.

- JSON lines of this companion: `{"id": ..., "task": ..., "reference": ..., "raw": ..., "prediction": ...}`;
- MolT5's and L+M-24's tables: tab-separated, header `SMILES / ground truth / output` (then it holds captions) or
  `description / ground truth / output` (molecules);
- a table with our names: tab-separated (`.csv`: comma-separated), columns `reference` and `prediction`;
- L+M-24's submissions: no header, one output per line; the references come from a second file.

Any of them may be gzipped. Nothing is trimmed or guessed: quotes and backslashes are characters of the answer.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.files import BadFileError

_SOURCE = {"SMILES": "mol2cap", "description": "cap2mol"}
_REFERENCE_COLUMNS = {"mol2cap": ("reference", "ground truth", "description", "caption"), "cap2mol": ()}
_REFERENCE_COLUMNS["cap2mol"] = ("reference", "ground truth", "SMILES", "molecule", "canonical")


def read_predictions(path: str | Path, *, task: str | None = None, reference: str | Path | None = None) -> pd.DataFrame:
    """The predictions of one system: a frame with id, source, reference and prediction, and `task` and `raw`
    where the file has them. Rows without an id are numbered from 0.

    reference: a file with the references, for submissions (row by row), or for JSON lines and tables without
    any (by id where both have one). Its column is `reference`, `ground truth`, or the task's own name
    (`description`, `SMILES`); a file of one column without header works too.

    Raises BadFileError for a file that is missing, is none of the formats, or whose rows do not match the
    references': the first mismatch is named.
    """
    path = Path(path)
    frame = _read(path)
    if task is not None and "task" not in frame.columns:
        frame["task"] = task
    if reference is not None:
        named = frame["task"].iloc[0] if "task" in frame.columns and len(frame) else None
        frame = _with_references(frame, path, Path(reference), named)
    elif "reference" not in frame.columns:
        raise BadFileError(
            f"{path} holds outputs only ({len(frame)} lines): name the file with their references (--reference FILE)"
        )
    return frame


def _read(path: Path) -> pd.DataFrame:
    text = _text(path)
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise BadFileError(f"{path} is empty")
    if lines[0].lstrip().startswith("{"):
        return _json_lines(path, lines)
    header = lines[0].rstrip("\r")
    if path.name.removesuffix(".gz").endswith(".csv"):
        return _named(path, list(csv.reader(io.StringIO(text))))
    if "\t" in header:
        return _named(path, [line.removesuffix("\r").split("\t") for line in lines])
    return pd.DataFrame({"prediction": [line.removesuffix("\r") for line in lines]})


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except FileNotFoundError:
        raise BadFileError(f"{path} is missing: give the path of a predictions file") from None
    except UnicodeDecodeError as error:
        raise BadFileError(f"{path} is not UTF-8 text ({error})") from None
    except (OSError, EOFError) as error:
        raise BadFileError(f"{path} cannot be read ({error})") from None


def _json_lines(path: Path, lines: list[str]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise BadFileError(f"{path} line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise BadFileError(f"{path} line {number} is no JSON object but {type(row).__name__}")
        rows.append(row)
    frame = pd.DataFrame(rows, dtype=object)
    if "prediction" not in frame.columns and "raw" not in frame.columns:
        raise BadFileError(f"{path} has no field 'prediction' or 'raw' (it has: {', '.join(map(str, frame.columns))})")
    if "prediction" not in frame.columns:
        frame["prediction"] = frame["raw"]
    return _numbered(frame)


def _named(path: Path, rows: list[list[str]]) -> pd.DataFrame:
    """A table with a header; every row as many cells as that."""
    header = rows[0]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise BadFileError(
                f"{path} line {number} has {len(row)} cells where the header has {len(header)} "
                f"({', '.join(header)}): a tab or a line break inside an answer must be escaped"
            )
    frame = pd.DataFrame(rows[1:], columns=header, dtype=object)
    if header[1:] == ["ground truth", "output"] and header[0] in _SOURCE:
        frame.columns = pd.Index(["source", "reference", "prediction"])
        frame["task"] = _SOURCE[header[0]]
    elif "output" in header and "prediction" not in header:
        frame = frame.rename(columns={"output": "prediction"})
    frame = frame.rename(columns={"ground truth": "reference"})
    if "prediction" not in frame.columns:
        known = "SMILES or description, ground truth, output; or reference, prediction"
        raise BadFileError(f"{path} has the columns {', '.join(header)}; a table of predictions has {known}")
    return _numbered(frame)


def _numbered(frame: pd.DataFrame) -> pd.DataFrame:
    if "id" not in frame.columns:
        frame.insert(0, "id", range(len(frame)))
        frame.attrs["numbered"] = True
    if "source" not in frame.columns:
        frame["source"] = ""
    return frame


def _with_references(frame: pd.DataFrame, path: Path, other: Path, task: str | None) -> pd.DataFrame:
    ids, references = _references(other, task)
    frame = frame if "id" in frame.columns else _numbered(frame)
    if ids is None or frame.attrs.get("numbered"):
        if len(references) != len(frame):
            raise BadFileError(
                f"{path} has {len(frame)} predictions and {other} {len(references)} references: the first without a "
                f"partner is line {min(len(frame), len(references)) + 1} of the longer one"
            )
        return frame.assign(reference=references)
    by_id = dict(zip(ids, references, strict=True))
    theirs = [str(name) for name in frame["id"]]
    for number, name in enumerate(theirs, start=1):
        if name not in by_id:
            raise BadFileError(f"{path} row {number}: id {name!r} is not in {other}")
    if left := sorted(set(by_id) - set(theirs), key=list(by_id).index):
        raise BadFileError(f"{other} has {len(left)} ids without a prediction in {path}; the first is {left[0]!r}")
    return frame.assign(reference=[by_id[name] for name in theirs])


def _references(path: Path, task: str | None) -> tuple[list[str] | None, list[str]]:
    """Ids (None: the file has none) and references of a reference file."""
    lines = _text(path).removesuffix("\n").split("\n")
    if lines[0].lstrip().startswith("{"):
        try:
            frame = pd.DataFrame([json.loads(line) for line in lines], dtype=object)
        except json.JSONDecodeError as error:
            raise BadFileError(f"{path} is not JSON lines ({error})") from None
    else:
        rows = [line.removesuffix("\r").split("\t") for line in lines]
        if len(rows[0]) == 1 and rows[0][0] not in {c for names in _REFERENCE_COLUMNS.values() for c in names}:
            return None, [row[0] for row in rows]
        uneven = next((i for i, row in enumerate(rows, start=1) if len(row) != len(rows[0])), None)
        if uneven is not None:
            raise BadFileError(f"{path} line {uneven} has not as many cells as its header")
        frame = pd.DataFrame(rows[1:], columns=rows[0], dtype=object)
    wanted = _REFERENCE_COLUMNS.get(task or "", ("reference", "ground truth"))
    column = next((name for name in wanted if name in frame.columns), None)
    if column is None:
        hint = "" if task else " (say which task it is: --task)"
        raise BadFileError(
            f"{path} has no column with references ({' or '.join(wanted)}; it has {', '.join(frame.columns)}){hint}"
        )
    ids = next((name for name in ("id", "CID") if name in frame.columns), None)
    return (None if ids is None else [str(value) for value in frame[ids]]), list(frame[column])
