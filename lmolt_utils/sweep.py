"""The sweep of the mixing ratio (L4M Fig. 4): for each share merge, align, predict, then delete the merge's weights.

A point of the sweep is a row of the systems table like any other; ``ratio_grid`` adds rows without writing them out.
A merge of 7B models takes as much disk as its parents and is used once: ``keep_merges: false`` leaves its YAML and
record, from which it is made again should anything need it.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from lmolt_utils.experiment import make_system
from lmolt_utils.files import emptied, empty
from lmolt_utils.merge_step import merge_of
from lmolt_utils.params import Params
from lmolt_utils.systems import System


def ratio(share: float) -> str:
    """A share of mol2cap as the papers' ratio, Mol2Cap:Cap2Mol: 1/19 is ``1:18``."""
    fraction = Fraction(share).limit_denominator(40)
    if math.isclose(float(fraction), share, abs_tol=1e-4):
        return f"{fraction.numerator}:{fraction.denominator - fraction.numerator}"
    return f"{share:.4g} mol2cap"


def with_ratio_grid(systems: Sequence[System], params: Params) -> list[System]:
    """``systems``, and a row ``slerp@SHARE+cpo`` for every share of ``ratio_grid`` that the table lacks.

    A share counts as there when a row trains CPO from SLERP at it with no settings of its own (within 0.0001:
    names give four digits), be it the row's own share or the profile's.
    """
    rows = list(systems)
    for share in params.ratio_grid:
        there = [
            params.mol2cap_share if row.mol2cap_share is None else row.mol2cap_share
            for row in rows
            if row.init == "slerp" and row.method == "cpo" and not row.settings
        ]
        if not any(math.isclose(share, other, abs_tol=1e-4) for other in there):
            rows.append(
                System(
                    name=f"slerp@{share:.4g}+cpo",
                    label=f"SLERP+CPO, {ratio(share)}",
                    notebook="06_ablation",
                    init="slerp",
                    method="cpo",
                    mol2cap_share=share,
                )
            )
    return rows


def make_sweep(
    run: Any,
    systems: Sequence[System],
    table: Sequence[System],
    make: Callable[[Any, System, Callable[[str], None]], None] = make_system,
    say: Callable[[str], None] = print,
) -> None:
    """Make ``systems`` one after the other; without ``keep_merges`` each merge goes once its system is done.

    Only a merge that no other row of the whole ``table`` starts from is deleted: another notebook may be reading it.
    """
    for system in systems:
        make(run, system, say)
        merge = merge_of(system, system.params(run.params))
        if merge is None or run.params.keep_merges:
            continue
        others = {row.name: merge_of(row, row.params(run.params)) for row in table if row.name != system.name}
        shared = any(other is not None and other.name == merge.name for other in others.values())
        folder = run.path("models", merge.name)
        if not shared and not emptied(folder):
            empty(folder)
            say(f"merge {merge.name}: weights deleted, used by {system.name} alone")
