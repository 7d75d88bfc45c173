"""``python -m lmolt_utils.run.execute IN OUT ...``: papermill, as the Snakefile runs it.

Told to end, papermill kills its kernel within five seconds and waits for it for ever. Here the signal goes to the
kernel, whose cell ends in order: a training finishes its step and keeps it. Where a machine has several GPUs, an
execution takes one that no other has.
"""

import fcntl
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from lmolt_utils.config.params import load
from lmolt_utils.run.plan import gpus

#: What an execution ends with, by the error of its cell: as :func:`~lmolt_utils.errors.exit_status` has it.
STATUS = {"KeyboardInterrupt": 130, "TryAgainError": 75}
STATUS |= dict.fromkeys(("CompanionError", "ParameterError", "DataError", "BadFileError"), 2)


def take_gpu(devices: Sequence[str]) -> IO[str] | None:
    """Show CUDA the first of ``devices`` that is free, until the returned lock goes; ``None``: all are taken."""
    for device in devices:
        place = Path(tempfile.gettempdir(), f"lmolt-gpu-{os.getuid()}-{device}.lock")
        lock = open(place, "w", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        return lock
    return None


def main(arguments: Sequence[str]) -> int:
    """papermill's own arguments; 0 done, 1 failed, 2 wrong input, 75 worth trying again, 130 told to end."""
    told: list[int] = []  # signals, remembered: there may be no kernel yet
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: told.append(number))
    from papermill.cli import papermill
    from papermill.exceptions import PapermillExecutionError

    ended = [1]
    ending: list[psutil.Process] = []

    def work() -> None:
        try:
            papermill(list(arguments), standalone_mode=False)
            ended[0] = 0
        except PapermillExecutionError as error:
            if (status := STATUS.get(error.ename)) is None:
                traceback.print_exc()
            else:  # the message says it all
                print(f"{arguments[0]}: {error.ename}: {error.evalue}", file=sys.stderr)
            ended[0] = 1 if status is None else status
        except (Exception, SystemExit):  # a kernel that just began dies of the signal, and papermill exits
            traceback.print_exc()
            ended[0] = 130 if told else 1

    profile = arguments[arguments.index("profile") + 1] if "profile" in arguments else "cpu"
    lock = None
    if load(profile).device == "cuda" and Path(arguments[0]).name[:2] not in ("01", "08"):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(index) for index in range(len(gpus()))]
        lock = take_gpu(devices) if len(devices) > 1 else None
    worker = threading.Thread(target=work)  # outside the main thread nbclient leaves signals alone
    worker.start()
    while worker.is_alive():
        worker.join(0.5)
        for kernel in [one for one in psutil.Process().children() if one not in ending] if told else ():
            ending.append(kernel)  # once: a second signal would interrupt what the first began, and nobody would answer
            with suppress(psutil.NoSuchProcess):
                kernel.terminate()
    del lock
    return ended[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
