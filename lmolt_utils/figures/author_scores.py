"""The authors' own per-caption scores, the one result file they released: the data of ALMol's Fig. 1.

It lies in their repository (github.com/gkoumasd/alignment_tuning_LLMS, ``smiles2caption.txt``, a CSV), not in this one.
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


def read_author_scores(given: Path | str) -> pd.DataFrame:
    """Long table of the file: system, quantity (``entailment``, 0..1; ``length_deviation``, tokens), value."""
    path = Path(from_root(str(given)))
    try:
        types = {"score": float, "length": float, "group": str}
        frame = pd.read_csv(path, usecols=list(types), dtype=types, compression=None)
    except (OSError, ValueError) as error:
        raise BadFileError(f"{path} cannot be read ({error!s:.200}). {HOW_TO_GET}") from None
    frame["system"] = frame["group"].map(GROUPS)
    if frame.isna().any(axis=None) or not frame["score"].between(0, 1).all():
        raise BadFileError(f"{path} has an empty cell, an unknown group or a score outside 0..1. {HOW_TO_GET}")
    named = frame.rename(columns={"score": "entailment", "length": "length_deviation"})
    return named.melt(id_vars=["system"], value_vars=["entailment", "length_deviation"], var_name="quantity")
