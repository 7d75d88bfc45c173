"""``lmolt reproduce``: Snakemake on the eight notebooks of one profile, in the profile's run folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil

from lmolt_utils.config.params import load
from lmolt_utils.config.reading import read_yaml
from lmolt_utils.config.systems import planned
from lmolt_utils.errors import CompanionError, TryAgainError, exit_status
from lmolt_utils.files import read_kept
from lmolt_utils.paths import figures_folder, root, run_folder, shown
from lmolt_utils.run.copies import copy_executed
from lmolt_utils.run.notebook import altered
from lmolt_utils.run.notebooks import NOTEBOOKS, with_data_switches
from lmolt_utils.run.plan import gpus, problems, stop_if
from lmolt_utils.run.steps import made_by_older_code, redo_asked
from lmolt_utils.run.summary import note, notes

#: Seconds that notebooks get to end themselves before they are killed: at 7B a step of a training takes fifteen.
_GRACE = 120.0
#: Else glibc gives freed blocks of logits back at every step: half of a training's time on a CPU at 32,000 tokens.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


def executed(folder: Path, notebook: str) -> Path:
    """The executed copy of a notebook, which tells Snakemake that it is done."""
    return folder / "notebooks" / f"{notebook}.ipynb"


def drop_unfinished(folder: Path, *, dry: bool = False) -> list[str]:
    """Delete executed notebooks that a kill cut short, whose files are missing or were changed, or with steps that
    ``--redo`` asks for; a line for each. ``dry``: say so, and delete none.

    Snakemake looks at the executed notebook alone. In a folder without its notes nothing is known of what the notebooks
    were run with, so all count as not done; their steps are checked one by one when they run.
    """
    lines = []
    redo = {record["notebook"]: name for name, record in made_by_older_code(folder).items() if redo_asked(name)}
    for done in (path for path in (executed(folder, name) for name in NOTEBOOKS) if path.exists()):
        written = read_kept(done) or {"metadata": {}}
        if written["metadata"].get("papermill", {}).get("end_time") is None:
            line = f"{done.stem} was interrupted: it runs again, and what is done in it stays"
        elif not (folder / ".snakemake" / "metadata").is_dir():
            line = f"{done.stem} runs again: Snakemake has no notes of this run"
        elif file := next(altered(folder, done.stem), None):
            line = f"{done.stem} runs again: {file} is missing or was changed"
        elif done.stem in redo:
            line = f"{done.stem} runs again: --redo asks for {redo[done.stem]}"
        else:
            continue
        if not dry:
            done.unlink()
        lines.append(line)
    return lines


def _running(folder: Path) -> bool:
    """Whether Snakemake is at work in ``folder``, started by anybody."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return any("snakemake" in words and str(folder) in words for words in lines)


def _elsewhere(extra: Sequence[str]) -> bool:
    """Whether Snakemake's further arguments, or the profile that they name, send jobs to another machine."""
    words = [word for given in extra for word in given.split("=", 1)]
    named = dict(pairwise(words))
    profile = Path(named.get("--workflow-profile", "")) / "config.yaml"
    settings = read_yaml(profile) if profile.is_file() else {}
    return named.get("--executor", named.get("-e", settings.get("executor", "local"))) not in ("local", "dryrun")


def reproduce(profile: str, cores: int, *, per_system: bool = False, extra: Sequence[str] = ()) -> int:
    """Run what is not done yet of the eight notebooks; 0, 1 when a notebook failed, 75 if it may not fail later.

    Raises ``RuntimeError`` while another run is under way or when Snakemake is killed, what :func:`problems` finds, and
    ``KeyboardInterrupt`` once all notebooks have ended, when this process is told to end.
    """
    began = time.time()
    params, folder = with_data_switches(load(profile)), run_folder(profile)
    planned(params)  # a system that cannot be made stops here
    figures = figures_folder(folder, params.figures_dir)
    on_gpu, elsewhere = params.device == "cuda", _elsewhere(extra)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(root() / "Snakefile"), "--directory", str(folder)]
    command += ["--config", f"profile={profile}", f"per_system={per_system}", "--cores", str(cores)]
    command += ["--workflow-profile", str(root() / "profiles" / ("gpu" if on_gpu else "default"))]
    command += ["--resources", f"gpu={max(1, len(gpus()))}"] if on_gpu and not elsewhere else []
    if _running(folder):
        raise RuntimeError(f"profile {profile} is already running in {shown(folder)}: wait for it to end")
    dry, found = bool({"-n", "--dry-run", "--dryrun"} & set(extra)), problems(params, here=not elsewhere)
    if not dry and any((folder / ".snakemake" / "locks").glob("*")):  # of a run that was killed
        subprocess.run([*command, "--unlock"], check=True, capture_output=True)
    if not dry:
        stop_if(found)
    for line in [*(f"note: {error}" for error in found if dry), *drop_unfinished(folder, dry=dry)]:
        print(line, flush=True)
    environment = {**os.environ, **_MEMORY, "OMP_NUM_THREADS": str(params.threads), "PYTHONUNBUFFERED": "1"}
    failed: BaseException | None = None
    # A session of its own: a closed terminal or Ctrl-C reaches this process alone, which ends the others in order.
    with subprocess.Popen([*command, *extra], env=environment, start_new_session=True) as process:
        try:
            status = process.wait()
            if status < 0:
                raise RuntimeError(f"Snakemake was killed (signal {-status}): run the same command again to go on")
            if status:
                failed = _reason(folder, began)
        except BaseException as error:
            failed = error
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)  # Snakemake ends its notebooks and unlocks the folder
                try:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_GRACE)
                finally:  # also when told a second time
                    os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            if not dry:
                note(folder, "lmolt reproduce", began, failed, profile=profile)
    if failed:
        print(f"lmolt: {failed}", file=sys.stderr)
        return exit_status(failed)
    if figures.is_relative_to(root() / "figures") and all(executed(folder, name).exists() for name in NOTEBOOKS):
        copy_executed(folder, figures)  # tracked, as the figures are
    return 0


def _reason(folder: Path, began: float) -> Exception:
    """Why Snakemake failed, by the last note of each execution."""
    last = {(line["what"], str(line.get("systems"))): line for line in notes(folder, began)}
    ended = [line for line in last.values() if line["exit"]]
    told = "; ".join(f"{line['what']}: {line['error']}" for line in ended) or "Snakemake's messages say why"
    if ended and all(line["exit"] in (75, 130) for line in ended):
        return TryAgainError(told)
    return CompanionError(told) if ended and all(line["exit"] == 2 for line in ended) else RuntimeError(told)
