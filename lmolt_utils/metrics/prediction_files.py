"""Files of others: predictions as they are published, and the reports of ``lmolt score``, ``nli`` and ``atoms``.

The layouts (:mod:`lmolt_utils.data.text_tables` says how they are told apart):

- JSON lines or an array of JSON objects, such as this companion's
  `{"id": ..., "task": ..., "reference": ..., "raw": ..., "prediction": ...}`;
- MolT5's and L+M-24's tables: tab-separated, header `SMILES / ground truth / output` (then it holds captions) or
  `description / ground truth / output` (molecules);
- a table with a header of our names, separated by tabs, commas or semicolons;
- L+M-24's submissions: one output per line, with or without a header; the references come from a second file.

Nothing is trimmed. What was decided about a file stands in `frame.attrs["notes"]`; what cannot be decided is refused.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.data.molecules import parse
from lmolt_utils.data.rows import ALIASES
from lmolt_utils.data.text_tables import ABSENT, Table, plain, read_table
from lmolt_utils.files import BadFileError, as_json, fingerprint, write_text
from lmolt_utils.metrics.intervals import intervals

#: What the columns may be called; case, spaces around and underscores do not matter.
_NAMES = {
    "id": ("id", "cid"),
    "task": ("task",),
    "source": ("source",),
    "reference": ("reference", "references", "ground truth"),
    "raw": ("raw",),
    "prediction": ("prediction", "predictions", "output", "outputs"),
}
_OF_TASK = {
    task: tuple(plain(name) for name in ALIASES[column])
    for task, column in {"mol2cap": "caption", "cap2mol": "molecule"}.items()
}
_KNOWN = {name for names in (*_NAMES.values(), *_OF_TASK.values()) for name in names}
#: The first column of MolT5's tables says what the others hold.
_TASK_BY_SOURCE = {"smiles": "mol2cap", "description": "cap2mol"}


def read_predictions(path: str | Path, *, task: str | None = None, reference: str | Path | None = None) -> pd.DataFrame:
    """The predictions of one system: a frame with id, source, reference and prediction, and `task` and `raw`
    where the file has them. Rows without an id are numbered from 0; `-` is standard input.

    reference: a file with the references; it also replaces those the predictions come with. Rows are matched by id
    where both files have ids, else one by one. Its column is `reference`, `ground truth`, or the task's own name
    (`description`, `SMILES`); a file of one column without header works too.

    Raises BadFileError for a file that is missing, is none of the formats, or whose rows do not match the
    references': the first bad place is named.
    """
    table = read_table(Path(path), _KNOWN)
    ids = _ids(table)
    columns = {name: table.column(_NAMES[name], null=name != "task") for name in ("task", "source", "raw")}
    predictions = table.column(_NAMES["prediction"], null=True)
    if predictions is None:
        predictions = columns["raw"] or _only_column(table, without=_NAMES["reference"])
    if predictions is None:
        raise BadFileError(
            f"{table.path} has the columns {table.told}; a table of predictions has SMILES or description, ground "
            "truth, output; or prediction (or raw), and reference or a second file with it"
        )
    if columns["task"] is None:
        told = _task_by_header(table)
        columns["task"] = [told or task] * len(predictions) if told or task else None
        if told and columns["source"] is None:
            columns["source"] = table.column([name for name, of in _TASK_BY_SOURCE.items() if of == told])
    columns["source"] = columns["source"] or [""] * len(predictions)
    references = table.column(_NAMES["reference"])
    if reference is not None:
        told = columns["task"][0] if columns["task"] else None
        references = _partners(
            table, ids, predictions, read_table(Path(reference), _KNOWN), told, given=references is not None
        )
    elif references is None:
        raise BadFileError(
            f"{table.path} holds outputs only ({len(predictions)} lines): name the file with their references "
            "(--reference FILE), or call their column 'reference'"
        )
    lookalikes = sum(text in ("nan", "NaN", "None", "null") for text in predictions)
    if lookalikes:
        table.notes.append(f"{lookalikes} predictions read 'nan', 'None' or 'null': taken as text, not as missing")
    frame = pd.DataFrame(
        {"id": range(len(predictions)) if ids is None else ids, "reference": references, "prediction": predictions}
        | {name: cells for name, cells in columns.items() if cells is not None},
        dtype=object,
    )
    frame.attrs["notes"] = table.notes
    return frame


def read_captions(path: str | Path) -> tuple[list[str], list[str]]:
    """The captions of a file, and notes: its lines, or its column of predictions, or else of captions.

    Raises BadFileError as :func:`read_predictions` does.
    """
    table = read_table(Path(path), _KNOWN)
    for names in (_NAMES["prediction"], _NAMES["raw"], _OF_TASK["mol2cap"]):
        if (cells := table.column(names, null=True)) is not None:
            return [cell or "" for cell in cells], table.notes
    if (cells := _only_column(table)) is not None:
        return cells, table.notes
    raise BadFileError(f"{table.path} has the columns {table.told}: call that of the captions 'caption'")


def _only_column(table: Table, without: Sequence[str] = ()) -> list[Any] | None:
    """The cells of a file of lines, or of one column under a known name but those ``without``."""
    if table.header is None:
        return [row[0] for row in table.rows]
    known = _KNOWN.difference(without, *(_NAMES[name] for name in ("id", "task", "source")))
    return table.column(table.names, null=True) if len(table.names) == 1 and table.names[0] in known else None


def _task_by_header(table: Table) -> str | None:
    told = [task for name, task in _TASK_BY_SOURCE.items() if name in table.names]
    return told[0] if len(told) == 1 and {"ground truth", "output"} <= set(table.names) else None


# -------------------------------------------------------------------------------------------- references


def _partners(
    table: Table,
    ids: Sequence[Any] | None,
    predictions: Sequence[Any],
    other: Table,
    task: str | None,
    *,
    given: bool,
) -> list[str]:
    """The references in the order of the predictions."""
    references, theirs = _references(other, task), _ids(other)
    table.notes += [f"references: {note}" for note in other.notes]
    if given:
        table.notes.append(f"references are {other.path}'s; the file's own are not used")
    if ids is None or theirs is None:
        if len(references) != len(predictions):
            plain = table.header is None or other.header is None
            hint = ". Is a first line a header? Call it 'prediction' or 'reference'" if plain else ""
            raise BadFileError(
                f"{table.path} has {len(predictions)} predictions and {other.path} {len(references)} references: the "
                f"first without a partner is line {min(len(predictions), len(references)) + 1} of the longer one{hint}"
            )
        if ids is not None or theirs is not None:
            table.notes.append("rows are paired in the order of the files: only one of them has ids")
        return references
    by_id = {str(name): text for name, text in zip(theirs, references, strict=True)}
    ours = [str(name) for name in ids]
    for place, name in zip(table.places, ours, strict=True):
        if name not in by_id:
            raise BadFileError(f"{table.path} {place}: id {name!r} is not in {other.path}")
    wanted = set(ours)
    if left := [name for name in by_id if name not in wanted]:
        raise BadFileError(
            f"{other.path} has {len(left)} ids without a prediction in {table.path}; the first is {left[0]!r}"
        )
    return [by_id[name] for name in ours]


def _references(other: Table, task: str | None) -> list[str]:
    cells = other.column(_NAMES["reference"])
    if cells is None and task in _OF_TASK:
        cells = other.column(_OF_TASK[task])
    if cells is None and (cells := _only_column(other)) is not None:
        if other.header is None:
            _refuse_header(other, cells[0], task)
        elif None in cells:
            raise BadFileError(f"{other.path} {other.places[cells.index(None)]}: the reference is null; text is needed")
    if cells is None:
        wanted = (*_NAMES["reference"], *_OF_TASK.get(task or "", ()))
        hint = "" if task else " (say which task it is: --task)"
        raise BadFileError(
            f"{other.path} has no column with references ({' or '.join(wanted)}; it has {other.told}){hint}"
        )
    return cells


def _refuse_header(other: Table, first: str, task: str | None) -> None:
    """One word above the references that is none: scored as a row, a header is a silent error."""
    word = re.fullmatch(r"[A-Za-z_][\w -]*", first) if task == "cap2mol" else re.fullmatch(r"\w+", first)
    if word and len(other.rows) > 1 and (task != "cap2mol" or parse(first) is None):
        raise BadFileError(
            f"{other.path} line 1 ({first!r}) is no {'molecule' if task == 'cap2mol' else 'caption'} but looks like a "
            "header: call it 'reference'. If it is a reference, put a line 'reference' above it"
        )


def _ids(table: Table) -> list[Any] | None:
    """Text or whole numbers, each once; None: the file has none."""
    cells = table.cells(_NAMES["id"])
    seen: dict[str, str] = {}
    for place, cell in zip(table.places, cells, strict=True) if cells else ():
        if isinstance(cell, bool) or not isinstance(cell, (str, int)) or cell == "":
            got = "missing" if cell is ABSENT else repr(cell)
            raise BadFileError(f"{table.path} {place}: the id is {got:.40}; text or a whole number is needed")
        if first := seen.get(str(cell)):
            raise BadFileError(f"{table.path} {place}: id {cell!r} is also in {first}; each id may stand once")
        seen[str(cell)] = place
    return cells


# -------------------------------------------------------------------------------------------- lmolt score

#: Conventions that the table names above the numbers: no number is read without them.
_TOLD = {
    "mol2cap": ("tokenizer", "meteor_matcher", "postprocess"),
    "cap2mol": ("invalid", "rdkit_version", "postprocess"),
}
#: Counts of what was odd, and notes: shown below the table where there are any.
_ODD = (
    *("missing_", "empty_", "invalid_", "unparsable_", "doubled_", "fcd_", "rdkit_gave_up", "wrong_modality"),
    "postprocess: ",
)


def score_file(arguments: argparse.Namespace) -> int:
    """Every metric of one file: print its table, write what was asked for; returns the exit status.

    Raises ValueError or OSError with a message that says what to do, before anything is computed where it can.
    """
    from lmolt_utils.metrics.captions import caption_tokenizer  # here: `lmolt atoms` needs no nltk
    from lmolt_utils.metrics.featurise import Featuriser
    from lmolt_utils.metrics.scoring import Scorer

    file, reference, json, csv = (
        None if name is None else Path(name)
        for name in (arguments.file, arguments.reference, arguments.json, arguments.csv)
    )
    assert file is not None
    check_outputs([json, csv], [file, reference])
    frame = read_predictions(file, task=arguments.task, reference=reference)
    scorer = Scorer(
        caption_tokenizer(arguments.tokenizer), arguments.invalid, arguments.meteor, Featuriser(arguments.workers)
    )
    scores = scorer.score(frame, arguments.task, rule=arguments.postprocess)
    found = intervals(scores, resamples=arguments.resamples)
    metrics = {name: interval.to_dict() for name, interval in found.items()}
    table = pd.DataFrame([{"metric": name, **entry} for name, entry in metrics.items()])
    table = table[["metric", "value", "low", "high", "n"]].astype({"value": float, "low": float, "high": float})

    told = ", ".join(f"{name} {scores.conventions[name]}" for name in _TOLD[scores.task])
    print(f"{file.name}: {scores.task}, {scores.n} rows; {told}")
    print(table.to_string(index=False, na_rep="-"))
    odd = [
        f"{name}: {value}"
        for name, value in scores.conventions.items()
        if value and name.startswith(_ODD) and not name.endswith("_version")
    ]
    for line in ["", *odd] if odd else []:
        print(line)
    for note in frame.attrs["notes"]:
        print(f"note: {note}")
    if json is not None:
        report = {**scores.to_dict(), "metrics": metrics, "files": told_files(file, reference, frame)}
        write_output(json, as_json(report))
    if csv is not None:
        write_output(csv, table.to_csv(index=False))
    return 0


def check_outputs(outputs: Sequence[Path | None], inputs: Sequence[Path | None]) -> None:
    """Raise :class:`BadFileError`, before anything is computed, for a file that cannot or must not be written."""
    kept = {path.resolve() for path in inputs if path is not None}
    for output in (path for path in outputs if path is not None):
        if not output.absolute().parent.is_dir():
            raise BadFileError(f"{output} cannot be written: there is no folder {output.parent}")
        if output.is_dir():
            raise BadFileError(f"{output} cannot be written: it is a folder; name a file")
        if output.resolve() in kept:
            raise BadFileError(f"{output} is also given as another file: name one that may be replaced")
        if output.is_file() or not output.exists():  # two reports may both go to the screen
            kept.add(output.resolve())


def write_output(path: Path, text: str) -> None:
    """Write a report: a file as a whole, a link's target, a device or pipe (``/dev/stdout``) in place."""
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as handle:
            handle.write(text)
    else:
        write_text(path.resolve(), text)


def told_files(file: Path, reference: Path | None, frame: pd.DataFrame) -> dict[str, Any]:
    """Which files a report is made from, and how they were read."""
    inputs = {"predictions": file, "references": reference}
    files: dict[str, Any] = {
        name: {"name": path.name, "sha256": fingerprint(path) if path.is_file() else None}
        for name, path in inputs.items()
        if path is not None
    }
    return {**files, "notes": frame.attrs["notes"]}
