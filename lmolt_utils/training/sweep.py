"""The sweep of the mixing ratio (L4M Fig. 4): for each share merge, align, predict, then delete the merge's weights.

A point of the sweep is a row of the systems table like any other; ``ratio_grid`` adds rows without writing them out
(:func:`~lmolt_utils.config.systems.with_ratio_grid`).
A merge of 7B models takes as much disk as its parents and is used once: ``keep_merges: false`` leaves its YAML and
record, from which it is made again should anything need it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from lmolt_utils.config.systems import System
from lmolt_utils.files import emptied, empty
from lmolt_utils.merging.merges import merge_of
from lmolt_utils.run.notebook import Run
from lmolt_utils.training.experiment import make_system


def make_sweep(
    run: Run,
    systems: Sequence[System],
    table: Sequence[System],
    make: Callable[[Any, System, Callable[[str], None]], None] = make_system,
    say: Callable[[str], None] = print,
) -> None:
    """Make ``systems`` one after the other; without ``keep_merges`` a merge goes once the last that uses it is done.

    A merge stays if a row of the whole ``table`` that is not made here, or that another notebook makes too, starts
    from it: that notebook may be reading it at this moment.
    """
    here = {system.name for system in systems if system.notebook == run.notebook}
    if run.wanted is not None:
        here &= set(run.wanted)  # what another job was asked for may be in use there
    elsewhere = {_merge_name(run, row) for row in table if row.name not in here}
    for place, system in enumerate(systems):
        make(run, system, say)
        name = _merge_name(run, system)
        needed = elsewhere | {_merge_name(run, later) for later in systems[place + 1 :]}
        if name is None or run.params.keep_merges or name in needed:
            continue
        folder = run.path("models", name)
        if not emptied(folder):
            empty(folder)
            say(f"merge {name}: weights deleted after their last use, by {system.name}")


def _merge_name(run: Run, system: System) -> str | None:
    merge = merge_of(system, system.params(run.params))
    return merge.name if merge else None
