"""The authors' own per-caption scores, the one result file they released: the data of ALMol's Fig. 1.

It lies in their repository (github.com/gkoumasd/alignment_tuning_LLMS, ``smiles2caption.txt``, a CSV), not in this one:
it is read where parameter ``author_scores`` points.
"""

from pathlib import Path

import pandas as pd

from lmolt_utils.files import BadFileError
from lmolt_utils.paths import from_root

#: Its groups, and the systems here that they correspond to.
GROUPS = {"Meditron": "meditron", "CPO-Meditron_Lan": "cpo", "CPO-Meditron_Mol": "cpo-mol2cap"}
HOW_TO_GET = (
    "The authors' scores are not there: save smiles2caption.txt of github.com/gkoumasd/alignment_tuning_LLMS and give "
    "its path as parameter author_scores."
)
_COLUMNS = ("score", "length", "group")


def read_author_scores(given: Path | str) -> pd.DataFrame:
    """Long table of the file: system, quantity (``entailment``, 0..1; ``length_deviation``, tokens), value.

    Raises :class:`~lmolt_utils.files.BadFileError` for a file that is missing or no such table.
    """
    path = Path(from_root(str(given)))
    if not path.is_file():
        raise BadFileError(f"{path} is missing or no file. {HOW_TO_GET}")
    try:
        frame = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BadFileError(f"{path} is not the CSV it should be ({error}). {HOW_TO_GET}") from None
    missing = [name for name in _COLUMNS if name not in frame.columns]
    if missing:
        raise BadFileError(f"{path} has no column {missing[0]!r} (it has: {', '.join(frame.columns)}). {HOW_TO_GET}")
    strange = sorted(set(frame["group"].astype(str)) - set(GROUPS))
    if strange:
        raise BadFileError(f"{path} has a group {strange[0]!r}; known are {', '.join(GROUPS)}")
    for name in ("score", "length"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
        if frame[name].isna().any():
            raise BadFileError(f"{path} line {int(frame[name].isna().argmax()) + 2}: {name} is no number")
    if not frame["score"].between(0, 1).all():
        raise BadFileError(f"{path}: a score lies outside 0..1 and is no probability")
    frame = frame.assign(system=frame["group"].map(GROUPS))
    named = frame.rename(columns={"score": "entailment", "length": "length_deviation"})
    return named.melt(id_vars=["system"], value_vars=["entailment", "length_deviation"], var_name="quantity")
