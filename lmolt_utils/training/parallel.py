"""``accelerate launch --num_processes N -m lmolt_utils.training.parallel PROFILE SYSTEM``: one training on N GPUs.

The papers' trainings fit one GPU, and systems side by side lose nothing; this is for one system that is to go faster.
The first process decides and records as a notebook does, which then finds the training done; the others work with it.
The rows of a step are dealt out to the processes; gradients are averaged, so loss and step are those of one process.
"""

import sys
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from lmolt_utils.config.params import ParameterError, load
from lmolt_utils.config.systems import planned
from lmolt_utils.errors import CompanionError, exit_status, remedy
from lmolt_utils.paths import run_folder
from lmolt_utils.run.notebook import Run, prepare_libraries
from lmolt_utils.run.notebooks import with_data_switches
from lmolt_utils.training.experiment import initial_model, plan, train_into, train_system


def main(profile: str, name: str) -> None:
    """Train the system ``name`` of ``profile`` in all processes that were launched; 02 must have run."""
    params = with_data_switches(load(profile))
    row = next((row for row in planned(params) if row.name == name), None)
    if row is None or row.method == "none" or row.adapter_of != name:
        raise ParameterError(f"{name!r} is no system that profile {profile!r} trains (lmolt systems lists them)")
    prepare_libraries(params)
    run = Run(row.notebook, run_folder(profile), params)
    todo, state = plan(run, row), PartialState(cpu=params.device == "cpu")
    print(f"process {state.process_index + 1} of {state.num_processes}, {state.distributed_type.value}, {state.device}")

    def told(work: Path | None) -> Path | None:
        """What the first process says to all: the work folder of a training that begins, or that none does."""
        found = [work]
        broadcast_object_list(found)
        return found[0]

    if state.is_main_process:
        initial = initial_model(run, todo, "cap2mol")
        begun: list[Path] = []
        train_system(run, todo, initial, begin=lambda work: begun.append(told(work) or work))
        if not begun:
            told(None)
    elif work := told(None):
        train_into(run, todo, initial_model(run, todo, "cap2mol", lambda _: None), work, lambda _: None)
    state.wait_for_everyone()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[0])
    try:
        main(*sys.argv[1:])
    except CompanionError as error:
        print(f"lmolt: {remedy(error)}", file=sys.stderr)
        sys.exit(exit_status(error))
