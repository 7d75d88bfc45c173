"""The sweep of the mixing ratio (L4M Fig. 4): for each share merge, align, predict, then delete the merge's weights.

A point of the sweep is a row of the systems table like any other; ``ratio_grid`` adds rows without writing them out
(:func:`~lmolt_utils.systems.with_ratio_grid`).
A merge of 7B models takes as much disk as its parents and is used once: ``keep_merges: false`` leaves its YAML and
record, from which it is made again should anything need it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from lmolt_utils.experiment import make_system
from lmolt_utils.files import emptied, empty
from lmolt_utils.merge_step import merge_of
from lmolt_utils.systems import System


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
