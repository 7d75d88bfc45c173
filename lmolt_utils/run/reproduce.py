"""``lmolt reproduce``: Snakemake on the eight notebooks of one profile, in the profile's run folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from lmolt_utils.config.params import load
from lmolt_utils.config.systems import planned
from lmolt_utils.files import read_kept
from lmolt_utils.paths import figures_folder, root, run_folder, shown
from lmolt_utils.run.copies import copy_executed
from lmolt_utils.run.notebook import damaged
from lmolt_utils.run.notebooks import NOTEBOOKS

#: Seconds that notebooks get to end themselves before they are killed: a kernel that is at work takes six.
_GRACE = 20.0
#: Else glibc gives freed blocks of logits back at every step: half of a training's time on a CPU at 32,000 tokens.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


def executed(folder: Path, notebook: str) -> Path:
    """The executed copy of a notebook, which tells Snakemake that it is done."""
    return folder / "notebooks" / f"{notebook}.ipynb"


def drop_unfinished(folder: Path) -> list[str]:
    """Delete executed notebooks that a kill cut short, or whose files are missing or were changed; a line for each.

    Snakemake looks at the executed notebook alone. In a folder without its notes nothing is known of what the notebooks
    were run with, so all count as not done; their steps are checked one by one when they run.
    """
    lines = []
    for done in (path for path in (executed(folder, name) for name in NOTEBOOKS) if path.exists()):
        written = read_kept(done) or {"metadata": {}}
        if written["metadata"].get("papermill", {}).get("end_time") is None:
            line = f"{done.stem} was interrupted: it runs again, and what is done in it stays"
        elif not (folder / ".snakemake" / "metadata").is_dir():
            line = f"{done.stem} runs again: Snakemake has no notes of this run"
        elif file := damaged(folder, done.stem):
            line = f"{done.stem} runs again: {file} is missing or was changed"
        else:
            continue
        done.unlink()
        lines.append(line)
    return lines


def _running(folder: Path) -> bool:
    """Whether Snakemake is at work in ``folder``, started by anybody."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return any("snakemake" in words and str(folder) in words for words in lines)


def reproduce(profile: str, cores: int, *, per_system: bool = False, extra: Sequence[str] = ()) -> int:
    """Run what is not done yet of the eight notebooks; 0, or 1 when a notebook failed.

    Raises ``RuntimeError`` while another run of the profile is under way or when Snakemake is killed, and
    ``KeyboardInterrupt`` once all notebooks have ended, when this process is told to end.
    """
    params, folder = load(profile), run_folder(profile)
    planned(params)  # a system that cannot be made stops here
    figures = figures_folder(folder, params.figures_dir)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(root() / "Snakefile"), "--directory", str(folder)]
    command += ["--config", f"profile={profile}", f"per_system={per_system}", "--cores", str(cores)]
    command += ["--workflow-profile", str(root() / "profiles" / "default")]
    command += ["--resources", "gpu=1"] if params.device == "cuda" else []
    if _running(folder):
        raise RuntimeError(f"profile {profile} is already running in {shown(folder)}: wait for it to end")
    if any((folder / ".snakemake" / "locks").glob("*")):  # of a run that was killed
        subprocess.run([*command, "--unlock"], check=True, capture_output=True)
    if not {"-n", "--dry-run", "--dryrun"} & set(extra):
        for line in drop_unfinished(folder):
            print(line, flush=True)
    environment = {**os.environ, **_MEMORY, "OMP_NUM_THREADS": str(params.threads), "PYTHONUNBUFFERED": "1"}
    # A session of its own: a closed terminal or Ctrl-C reaches this process alone, which ends the others in order.
    with subprocess.Popen([*command, *extra], env=environment, start_new_session=True) as process:
        try:
            status = process.wait()
            if status < 0:
                raise RuntimeError(f"Snakemake was killed (signal {-status}): run the same command again to go on")
        except BaseException:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                try:
                    os.killpg(process.pid, signal.SIGINT)  # Snakemake ends its notebooks and unlocks the folder
                    process.wait(_GRACE)
                finally:  # also after a second Ctrl-C
                    os.killpg(process.pid, signal.SIGKILL)
            raise
    if status:
        return 1
    if figures.is_relative_to(root() / "figures") and all(executed(folder, name).exists() for name in NOTEBOOKS):
        copy_executed(folder, figures)  # tracked, as the figures are
    return 0
