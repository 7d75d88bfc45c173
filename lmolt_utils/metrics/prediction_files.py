"""Files of others: predictions as they are published, and what ``lmolt score`` and ``lmolt nli`` make of them.

:mod:`lmolt_utils.data.text_tables` tells the formats apart: JSON lines or arrays; tables with a header of our names or
of MolT5's and L+M-24's (`SMILES / ground truth / output` holds captions, `description / ground truth / output`
molecules); one output per line, as L+M-24's submissions. Nothing is trimmed. What was decided about a file stands in
`frame.attrs["notes"]`; what cannot be decided is refused.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.data.molecules import parse
from lmolt_utils.data.rows import ALIASES
from lmolt_utils.data.text_tables import ABSENT, Table, plain, read_table
from lmolt_utils.files import BadFileError, as_json, fingerprint, write_text
from lmolt_utils.metrics.intervals import intervals, strict_json

#: What the columns may be called; case, spaces around and underscores do not matter.
_NAMES = {
    "id": ("id", "cid"),
    "task": ("task",),
    "source": ("source",),
    "reference": ("reference", "references", "ground truth", "golden"),
    "raw": ("raw",),
    "prediction": ("prediction", "predictions", "output", "outputs", "generated"),
}
_OF_TASK = {
    task: tuple(plain(name) for name in ALIASES[column])
    for task, column in {"mol2cap": "caption", "cap2mol": "molecule"}.items()
}
_KNOWN = {name for names in (*_NAMES.values(), *_OF_TASK.values()) for name in names}
#: The first column of MolT5's tables says what the others hold.
_TASK_BY_SOURCE = {"smiles": "mol2cap", "description": "cap2mol"}


def read_predictions(path: str | Path, *, task: str | None = None, reference: str | Path | None = None) -> pd.DataFrame:
    """A frame with id (else numbered from 0), reference and prediction, and `task` and `raw` where the file has them.

    `-` is standard input. reference: a file with the references, in place of those the predictions come with. Rows are
    matched by id where both files have ids, else one by one. Its column is `reference`, `ground truth`, or the task's
    own name (`description`, `SMILES`); a file of one column without header works too.

    Raises BadFileError, which names the first bad place.
    """
    table = read_table(Path(path), _KNOWN)
    ids = _ids(table)
    columns = {"task": table.column(_NAMES["task"]), "raw": table.column(_NAMES["raw"], null=True)}
    predictions = table.column(_NAMES["prediction"], null=True)
    if predictions is None:
        predictions = columns["raw"] or _only_column(table, without=_NAMES["reference"])
    if predictions is None:
        raise BadFileError(
            f"{table.path} has the columns {table.told}; a table of predictions has SMILES or description, ground "
            "truth, output; or prediction (or raw), and reference or a second file with it"
        )
    if columns["task"] is None and (told := _task_by_header(table) or task):
        columns["task"] = [told] * len(predictions)
    references: list[Any] | None
    if reference is not None:
        first = columns["task"][0] if columns["task"] else None
        references = _partners(table, ids, len(predictions), read_table(Path(reference), _KNOWN), first)
    else:
        references = table.column(_NAMES["reference"])
    if references is None:
        raise BadFileError(
            f"{table.path} holds outputs only ({len(predictions)} lines): name the file with their references "
            "(--reference FILE), or call their column 'reference'"
        )
    frame = pd.DataFrame(
        {"id": range(len(predictions)) if ids is None else ids, "reference": references, "prediction": predictions}
        | {name: cells for name, cells in columns.items() if cells is not None},
        dtype=object,
    )
    frame.attrs["notes"] = table.notes
    return frame


def read_captions(path: str | Path) -> list[str]:
    """The captions of a file: its lines, or its column of predictions, or else of captions."""
    table = read_table(Path(path), _KNOWN)
    for names in (_NAMES["prediction"], _OF_TASK["mol2cap"]):
        if (cells := table.column(names, null=True)) is not None:
            return [cell or "" for cell in cells]
    if (cells := _only_column(table)) is not None:
        return cells
    raise BadFileError(f"{table.path} has the columns {table.told}: call that of the captions 'caption'")


def refuse_molecules(captions: Sequence[str], file: str | Path) -> None:
    """Raise :class:`BadFileError` where all captions are SMILES; say so where some are."""
    if smiles := [number for number, text in enumerate(captions, start=1) if " " not in text and parse(text)]:
        told = f"{len(smiles)} of {len(captions)} captions are SMILES, the first in row {smiles[0]}"
        if len(smiles) == sum(map(bool, captions)):
            raise BadFileError(f"{file}: {told}: give captions; lmolt score takes molecules")
        print(f"note: {told}; each is a fact without a property", file=sys.stderr)


def _only_column(table: Table, without: Sequence[str] = ()) -> list[Any] | None:
    """The cells of a file of lines, or of one column under a known name but those ``without``."""
    if table.header is None:
        return [row[0] for row in table.rows]
    known = _KNOWN.difference(without, *(_NAMES[name] for name in ("id", "task", "source")))
    return table.column(table.names, null=True) if len(table.names) == 1 and table.names[0] in known else None


def _task_by_header(table: Table) -> str | None:
    told = [task for name, task in _TASK_BY_SOURCE.items() if name in table.names]
    return told[0] if len(told) == 1 and {"ground truth", "output"} <= set(table.names) else None


def _partners(table: Table, ids: Sequence[Any] | None, rows: int, other: Table, task: str | None) -> list[str]:
    """The references in the order of the predictions."""
    references, theirs = _references(other, task), _ids(other)
    table.notes += [f"references: {note}" for note in other.notes]
    if ids is None or theirs is None:
        if len(references) != rows:
            raise BadFileError(
                f"{table.path} has {rows} predictions and {other.path} {len(references)} references. Is a first line a "
                "header? Call it 'prediction' or 'reference'"
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
        raise BadFileError(f"{other.path}: {len(left)} ids have no prediction; the first is {left[0]!r}")
    return [by_id[name] for name in ours]


def _references(other: Table, task: str | None) -> list[str]:
    of_task = _OF_TASK.get(task or "", ())
    for names in (_NAMES["reference"], of_task):
        if (cells := other.column(names)) is not None:
            return cells
    if (cells := _only_column(other)) is not None:
        return cells
    wanted = " or ".join((*_NAMES["reference"], *of_task))
    hint = "" if task else " (say which task it is: --task)"
    raise BadFileError(f"{other.path} has no column {wanted}; it has {other.told}{hint}")


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


# ---- lmolt score ----

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
    """Every metric of one file: print its table, write JSON where asked; returns the exit status."""
    from lmolt_utils.metrics.scoring import Scorer  # here: `lmolt atoms` needs no nltk

    file, reference, output = report_paths(arguments)
    frame = read_predictions(file, task=arguments.task, reference=reference)
    scores = Scorer(arguments.tokenizer, arguments.invalid, arguments.meteor).score(
        frame, arguments.task, rule=arguments.postprocess
    )
    found = intervals(scores)
    table = pd.DataFrame(list(found.values()), index=list(found)).rename_axis("metric").reset_index()
    told = ", ".join(f"{name} {scores.conventions[name]}" for name in _TOLD[scores.task])
    print(f"{file.name}: {scores.task}, {len(frame)} rows; {told}")
    print(table.to_string(index=False, na_rep="-"))
    for name, value in scores.conventions.items():
        if value and name.startswith(_ODD) and not name.endswith("_version"):
            print(f"{name}: {value}")
    metrics = {name: interval._asdict() for name, interval in found.items()}
    write_report(output, scores.to_dict() | strict_json({"metrics": metrics}), file, reference, frame)
    return 0


def report_paths(arguments: argparse.Namespace) -> tuple[Path, Path | None, Path | None]:
    """FILE, --reference and --json; raises :class:`BadFileError`, before any work, for a report that cannot be."""
    file = Path(arguments.file)
    reference, output = (None if name is None else Path(name) for name in (arguments.reference, arguments.json))
    if output is not None:
        if not output.absolute().parent.is_dir():
            raise BadFileError(f"{output} cannot be written: there is no folder {output.parent}")
        if output.is_dir():
            raise BadFileError(f"{output} cannot be written: it is a folder; name a file")
        inputs = [path for path in (file, reference) if path is not None and path.exists()]
        if output.exists() and any(output.samefile(path) for path in inputs):
            raise BadFileError(f"{output} is an input: name a file that may be replaced")
    return file, reference, output


def write_report(
    output: Path | None, report: dict[str, Any], file: Path, reference: Path | None, frame: pd.DataFrame
) -> None:
    """Print the notes; write the report with the files it is made from: a device (``/dev/stdout``) in place."""
    notes = frame.attrs["notes"]
    for note in notes:
        print(f"note: {note}")
    if output is None:
        return
    files: dict[str, Any] = {
        name: {"name": path.name, "sha256": fingerprint(path) if path.is_file() else None}
        for name, path in {"predictions": file, "references": reference}.items()
        if path is not None
    }
    text = as_json({**report, "files": {**files, "notes": notes}})
    if output.exists() and not output.is_file():
        with output.open("w", encoding="utf-8") as handle:
            handle.write(text)
    else:
        write_text(output.resolve(), text)
