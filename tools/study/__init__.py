"""The study: L+M-24's real molecules, the papers' sample, steps and batch, small models (docs/study.md)."""

import pandas as pd

from lmolt_utils.files import atomic
from lmolt_utils.paths import root

#: What is committed of it.
FOLDER = root() / "figures" / "study"


def save_table(name: str, table: pd.DataFrame) -> None:
    """Write ``figures/study/NAME.csv``."""
    with atomic(FOLDER / f"{name}.csv") as part:
        table.to_csv(part, index=False, float_format="%.6g")
