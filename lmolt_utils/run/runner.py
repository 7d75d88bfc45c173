"""Run notebooks headlessly: one by papermill, all eight by Snakemake."""

import fcntl
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, TextIO

from lmolt_utils.config.params import load
from lmolt_utils.config.systems import load_systems, planned, with_ratio_grid
from lmolt_utils.errors import remedy
from lmolt_utils.files import BadFileError, fingerprint, read_json, write_json
from lmolt_utils.paths import figures_folder, root, run_folder, shown
from lmolt_utils.run.notebook_files import NOTEBOOKS, changes, made_from, notebook_path

#: Makes about as many systems as all others together.
LONGEST = "06_ablation"


class NotebookError(RuntimeError):
    """A notebook that stopped with an error; the message names its cell and the error."""


def receipt_path(profile: str, notebook: str) -> Path:
    """What tells that a notebook is done: the hashes of the files it wrote and of what they were made from."""
    return run_folder(profile) / "receipts" / f"{notebook}.json"


def jobs_of_systems(profile: str, *, per_system: bool = False) -> dict[str, tuple[str, list[str]]]:
    """Which systems a job of their own makes before their notebook shows them: notebook and systems by job.

    ``per_system``: every one. Else the ablation's, dealt out to the profile's ``ablation_jobs``: on two cores one
    process for all of them would go on long after the other notebooks are done.
    """
    params = load(profile)
    rows = [row for row in with_ratio_grid(load_systems(), params) if row.init != "baseline"]  # those take seconds
    if per_system:
        return {row.name: (row.notebook, [row.name]) for row in rows}
    count = params.ablation_jobs
    names = [row.name for row in rows if row.notebook == LONGEST]
    if count < 2:
        return {}
    return {f"{LONGEST}.{part + 1}": (LONGEST, names[part::count]) for part in range(min(count, len(names)))}


def run_notebook(
    notebook: str, profile: str, overrides: Mapping[str, Any] | None = None, systems: Sequence[str] = ()
) -> float:
    """Execute one notebook with papermill; the executed copy and the log stay in the run's folder.

    Returns the seconds it took. Raises :class:`NotebookError` naming cell and error; a record of time and
    peak memory is kept beside the executed copy.
    """
    import papermill

    values: dict[str, Any] = {"profile": profile, **(overrides or {})}
    tag = ""
    if systems:
        values["systems"] = list(systems)
        tag = f".{systems[0]}" + (f"+{len(systems) - 1}" if len(systems) > 1 else "")
    folder = run_folder(profile, changes(profile, overrides or {}))
    executed = folder / "notebooks" / f"{notebook}{tag}.ipynb"
    log = folder / "logs" / f"{notebook}{tag}.log"
    for path in (executed, log):
        path.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with open(log, "w", encoding="utf-8") as stream, _errors_to(stream):
        try:
            papermill.execute_notebook(
                str(notebook_path(notebook)),
                str(executed),
                parameters=values,
                cwd=str(root()),
                progress_bar=False,
                stdout_file=stream,
                stderr_file=stream,
            )
        except papermill.PapermillExecutionError as error:
            raise NotebookError(_explain(notebook, error, executed, log)) from None
        except Exception as error:  # a dead kernel, a full disk: papermill has no common class for these
            raise NotebookError(f"{notebook}{tag} stopped: {remedy(error)}\n  log: {shown(log)}") from error
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    write_json(executed.with_suffix(".run.json"), {"seconds": round(seconds, 1), "peak_mb": round(peak)})
    return seconds


@contextmanager
def _errors_to(stream: TextIO) -> Iterator[None]:
    """Send what the kernel's process itself writes to standard error into the log."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(stream.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _explain(notebook: str, error: Any, executed: Path, log: Path) -> str:
    line = next((line for line in str(error.source).splitlines() if line.strip()), "")
    value = str(error.evalue).strip() or "(no message)"
    return (
        f"{notebook} failed in cell {error.cell_index} ({line.strip()[:70]})\n"
        f"  {error.ename}: {value}\n  executed copy: {shown(executed)}\n  log: {shown(log)}"
    )


def drop_stale_receipts(profile: str) -> list[str]:
    """Remove receipts whose files are missing or changed, or were made from something else; a line for each reason.

    Snakemake goes by times: it cannot tell for a file that was damaged, nor for a folder that was copied or moved.
    What reads such files runs again with them: the Snakefile wants every notebook's receipt.
    """
    reasons: dict[str, list[str]] = {}
    now = cache(partial(made_from, profile=profile))  # a notebook's systems have receipts of their own
    for receipt in sorted(receipt_path(profile, "any").parent.glob("*.json")):
        if reason := _stale(receipt, now, run_folder(profile)):
            receipt.unlink()
            reasons.setdefault(reason, []).append(receipt.stem.removesuffix(".system"))
    return [f"again: {', '.join(names)} ({reason})" for reason, names in reasons.items()]


def _receipts(profile: str) -> dict[Path, tuple[bytes, tuple[int, int]]]:
    """The receipts there are: their bytes and times."""
    found = receipt_path(profile, "any").parent.glob("*.json")
    return {path: (path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)) for path in found}


def _stale(receipt: Path, now: Callable[[str], Mapping[str, str]], folder: Path) -> str | None:
    """Why a receipt no longer holds, if so; ``now``: what a notebook's files would be made from."""
    try:
        told = read_json(receipt)
        then, files, wanted = dict(told["made_from"]), dict(told["files"]), now(told["notebook"])
    except (BadFileError, KeyError, TypeError, ValueError):
        return "its receipt is damaged"
    if differing := [name for name in wanted if then.get(name) != wanted[name]]:
        return f"{', '.join(differing)} changed"
    for name, digest in files.items():
        path = folder / name if (folder / name).exists() else root() / name
        if not path.exists() or fingerprint(path) != digest:
            return f"{name} is missing or was changed"
    return None


def reproduce(profile: str, cores: int, *, per_system: bool = False, extra: Sequence[str] = ()) -> int:
    """Run what is not done yet of the eight notebooks, in order, through Snakemake; its exit status.

    Refuses to start while another run of the same profile is under way. A run that was killed leaves no lock, once
    its notebooks have ended too. Status 0 says that every notebook is done and every file is what was made.
    """
    params = load(profile)  # a mistyped profile or parameter stops here
    planned(params)  # and a system that cannot be made
    folder = run_folder(profile)
    figures_folder(folder, params.figures_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".running", "w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotebookError(
                f"profile {profile} is already running in {shown(folder)}: wait for it to end"
            ) from None
        kept = _receipts(profile) if {"-n", "--dry-run", "--dryrun"} & set(extra) else {}
        for line in drop_stale_receipts(profile):
            print(line, flush=True)
        command = [sys.executable, "-c", _SNAKEMAKE, "--snakefile", str(root() / "Snakefile")]
        command += ["--config", f"profile={profile}", f"per_system={per_system}"]
        command += ["--directory", str(folder), "--cores", str(cores), "--nolock", "--rerun-incomplete"]
        command += ["--rerun-triggers", "mtime", "params", "input", "--quiet", "host"]
        command += [*(["--resources", "gpu=1"] if params.device == "cuda" else []), "--keep-going", *extra]
        status = _follow(command, folder / "logs" / "snakemake.log", handle.fileno())
        for receipt, (text, times) in kept.items():  # a dry run changes nothing
            receipt.write_bytes(text)
            os.utime(receipt, ns=times)
        if status == 0 and not extra:  # Snakemake's own arguments may leave notebooks out
            left = drop_stale_receipts(profile)
            missing = [name for name in NOTEBOOKS if not receipt_path(profile, name).exists()]
            if left or missing:
                print("\n".join([*left, f"not done: {', '.join(missing)}"]), file=sys.stderr)
                return 1
        return 1 if status else 0


#: Snakemake, started so that it and the notebooks it runs end with the process that started it.
_SNAKEMAKE = (
    "from lmolt_utils.run.runner import end_with_parent; end_with_parent(); from snakemake.cli import main; main()"
)


def end_with_parent() -> None:
    """End this process, and its group where it leads one, once the process that started it has ended, however.

    A terminated run ends its own; this is for one that was killed, which can do nothing. (Kernels do the same.)
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        _signal(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        _signal(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _signal(process: int, number: int) -> None:
    """Send a signal to a process, with all of its group where it leads one."""
    try:
        if os.getpgid(process) == process:
            os.killpg(process, number)
        else:
            os.kill(process, number)
    except ProcessLookupError:
        return


#: Of Snakemake's output, what a reader wants to follow: which notebook, why, how many are left, what failed.
_SHOWN = re.compile(
    r"^\s+reason:|^\d+ of \d+ steps|^(local)?rule (nb|made)|^\d\d_|^lmolt:|^  \w|^Error in|error|Exception"
    r"|Nothing to be done"
)
_HIDDEN = re.compile(r"^\s+(input|output|jobid|resources|priority|threads|wildcards|shell|log|message|tmpdir)\b|^\s*\(")


#: Seconds that notebooks get to end themselves before they are killed: a kernel that is at work takes six.
_GRACE = 20.0


def _follow(command: Sequence[str], log: Path, lock: int) -> int:
    """Run ``command``; print the lines a reader wants, keep all of them in ``log``; the exit status.

    It has a process group of its own, which is ended with this process, and holds ``lock`` as long as it lives.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
    piped |= {"start_new_session": True, "pass_fds": (lock,)}
    with open(log, "w", encoding="utf-8") as stream, subprocess.Popen(command, **piped) as process:
        try:
            for line in process.stdout or ():
                stream.write(line)
                stream.flush()
                if _SHOWN.search(line) and not _HIDDEN.search(line):
                    print(_short(line), end="", flush=True)
        except BaseException:
            _signal(process.pid, signal.SIGTERM)  # Snakemake starts nothing more, and ends with the notebooks
            with suppress(subprocess.TimeoutExpired):  # then it is killed
                process.wait(_GRACE)
            _signal(process.pid, signal.SIGKILL)
            raise
    return process.returncode


def _short(line: str) -> str:
    """Without Snakemake's own words and long paths."""
    line = re.sub(r"^(local)?rule nb(\S+):", r"\2: starting", line)
    line = re.sub(r"^(local)?rule made(\S+):", r"systems \2: starting", line)
    return re.sub(r"[^\s,:]*/(\w[\w@.+-]*\.(?:json|ipynb|py))", r"\1", line)
