"""Signals at random moments over all notebooks, then damage: in the end the same bytes as of a run left in peace.

``make torture``. Each signal goes to the run that the one before left unfinished; a run that ends meanwhile is compared
and begun anew. A fault is noted and the next attack follows. In the end a table says what was done and what was found;
exit status 1: something was found.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.timing import show
from lmolt_utils.files import fingerprint
from lmolt_utils.paths import root
from lmolt_utils.run.notebook import notebook_record, read_notebook_record
from lmolt_utils.run.notebooks import AFTER, NOTEBOOKS
from lmolt_utils.run.reproduce import executed
from lmolt_utils.run.steps import record_path, records

#: What has to be the same in the end. Logs, notebooks and records hold times.
_COMPARED = ("data", "models", "predictions", "scores", "figures")
#: Seconds after which a run that was told to end, and what it started, hang.
_HANGS = 60.0
#: Who gets which signal: the command itself, as by Ctrl-C or `kill`; one of the processes below it; all
#: at once; or the command again after a moment.
SIGNALS = tuple((number, who) for number in ("SIGKILL", "SIGTERM", "SIGINT") for who in ("main", "one", "all", "twice"))


@dataclass
class Torture:
    """``profile``, up to the notebook ``until``, tortured in folders below ``place``."""

    place: Path
    profile: str = "smoke"
    until: str = NOTEBOOKS[-1]
    rng: random.Random = field(default_factory=random.Random)
    done: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[str, str]] = field(default_factory=list)

    def begin(self, runs: Path, first: str) -> None:
        """A copy of the undisturbed run without what the notebook ``first``, and those that read its files, made."""
        shutil.copytree(self.place / "undisturbed", runs)
        folder, again = runs / self.profile, {first}
        for notebook in NOTEBOOKS:
            if notebook != first and not again & set(AFTER[notebook]):
                continue
            again.add(notebook)
            for name in (read_notebook_record(folder, notebook) or {"files": {}})["files"]:
                shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink(missing_ok=True)
                record_path(folder / name).unlink(missing_ok=True)
            executed(folder, notebook).unlink(missing_ok=True)
            notebook_record(folder, notebook).unlink(missing_ok=True)
        shutil.rmtree(folder / "cache", ignore_errors=True)

    def run(self, runs: Path, **environment: str) -> "subprocess.Popen[str]":
        """``lmolt reproduce`` in ``runs``, in the background; its words go to a log beside it."""
        runs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "lmolt_utils.cli", "reproduce", "--profile", self.profile, "--cores", "1"]
        with (self.place / f"{runs.name}.log").open("w", encoding="utf-8") as log:
            return subprocess.Popen(
                [*command, "--", "--until", f"nb{self.until}"],
                env={**os.environ, "LMOLT_RUNS": str(runs), **environment},
                cwd=root(),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def finished(self, attack: str, runs: Path, **environment: str) -> None:
        """Run to the end; anything but success and an undisturbed run's bytes is a fault."""
        if self.run(runs, **environment).wait():
            self.fault(attack, f"the run after it fails: {self._words(runs)}")
        else:
            self.compare(attack, runs)

    def compare(self, attack: str, runs: Path) -> None:
        there, here = self.files(self.place / "undisturbed"), self.files(runs)
        if different := sorted(name for name in {*there, *here} if there.get(name) != here.get(name)):
            self.fault(attack, f"{len(different)} of {len(there)} files differ: {', '.join(different[:3])}")
            kept = self.place / f"fault-{len(self.faults)}"
            shutil.copytree(runs / self.profile, kept, ignore_dangling_symlinks=True)

    def files(self, runs: Path) -> dict[str, str]:
        """What is compared of a run: names and SHA-256."""
        paths = [path for name in _COMPARED for path in (runs / self.profile / name).rglob("*") if path.is_file()]
        names = {path.relative_to(runs).as_posix(): path for path in paths}
        noted = (".record.json", ".seconds.jsonl")
        return {n: fingerprint(p) for n, p in names.items() if not n.endswith(noted) and "/." not in n}

    def fault(self, attack: str, told: str) -> None:
        self.faults.append((attack, told))
        print(f"FAULT {attack}: {told}", flush=True)

    def _words(self, runs: Path) -> str:
        lines = (self.place / f"{runs.name}.log").read_text(encoding="utf-8", errors="replace").split("\n")
        return " | ".join([line for line in lines if "Error" in line or line.startswith("lmolt:")][-3:] or lines[-3:])

    # ---- signals ----

    def family(self, runs: Path) -> list[psutil.Process]:
        """Every process that works on ``runs``: all inherit where it is."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("LMOLT_RUNS") == str(runs) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def signalled(self, runs: Path, number: str, who: str, moment: float) -> None:
        """One signal ``moment`` seconds after the start, and what must hold then."""
        attack, main = f"{number} {who}", self.run(runs)
        with suppress(subprocess.TimeoutExpired):
            if main.wait(moment):
                self.fault(attack, f"a run goes wrong by itself: {self._words(runs)}")
            else:
                self.compare(attack, runs)
                shutil.rmtree(runs)
                self.done["runs that ended before their signal"] += 1
            return
        below = [process for process in self.family(runs) if process.pid != main.pid]
        targets = [psutil.Process(main.pid), *below] if who == "all" else [psutil.Process(main.pid)]
        for process in [self.rng.choice(below)] if who == "one" and below else targets:
            with suppress(psutil.Error):
                process.send_signal(getattr(signal, number))
                if who == "twice":
                    time.sleep(self.rng.random())
                    process.send_signal(getattr(signal, number))
        self.done[attack] += 1
        if who == "one":  # what is left ends by itself, well or not, or is told to
            with suppress(subprocess.TimeoutExpired):
                main.wait(moment)
            main.terminate()
        elif number == "SIGKILL" and who != "all":  # nobody was told: the others work on
            if self._snakemake(runs) and (self.run(runs).wait() != 1 or "already running" not in self._words(runs)):
                self.fault(attack, f"a second run beside the first one is not refused: {self._words(runs)}")
            _end(self.family(runs))
        try:
            main.wait(_HANGS)
        except subprocess.TimeoutExpired:
            self.fault(attack, f"the command hangs {_HANGS:.0f} s after it")
        left = psutil.wait_procs(self.family(runs), _HANGS if self.family(runs) else 0)[1]
        if left:
            self.fault(attack, f"{len(left)} processes left: {' '.join(_command(left[0]))[-80:]}")
        _end([*left, *self.family(runs)])
        main.wait()
        self.whole(attack, runs)

    def _snakemake(self, runs: Path) -> bool:
        return any("snakemake" in _command(process) for process in self.family(runs))

    def whole(self, attack: str, runs: Path) -> None:
        """A record stands beside whole files only: what it stands beside is read without further questions."""
        for first, record in records(runs / self.profile).items():
            for name, digest in record["outputs"].items():
                path = first.with_name(name) if first.with_name(name).exists() else runs / self.profile / "logs" / name
                if not path.exists() or fingerprint(path) != digest:
                    self.fault(attack, f"{name} is not what its record says")

    # ---- damage ----

    def damage(self, runs: Path, bend: Callable[[Path], None], files: int) -> None:
        """``bend`` files drawn from all that a finished run holds, records and executed notebooks too."""
        every = [path for path in (runs / self.profile).rglob("*") if path.is_file() and path.stat().st_size]
        for path in self.rng.sample([path for path in every if ".snakemake" not in path.parts], files):
            bend(path)

    def cut(self, path: Path) -> None:
        os.truncate(path, self.rng.randrange(path.stat().st_size))

    def flip(self, path: Path) -> None:
        """One bit, the time of the last change left as it was."""
        times, data = path.stat(), bytearray(path.read_bytes())
        data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def later(self, path: Path) -> None:
        os.utime(path, (2.4e9, 2.4e9))

    def earlier(self, path: Path) -> None:
        os.utime(path, (5e8, 5e8))

    def refused(self, attack: str, runs: Path, wanted: str) -> None:
        """A run that cannot write must say so, not hang, nor end well."""
        main = self.run(runs)
        try:
            status = main.wait(600)
        except subprocess.TimeoutExpired:
            status = 0
            main.terminate()
        log = (self.place / f"{runs.name}.log").read_text(encoding="utf-8", errors="replace")
        if status != 1 or wanted not in log:
            self.fault(attack, f"exit status {status}, {wanted!r} {'' if wanted in log else 'not '}said")

    def all_damage(self, runs: Path, files: int) -> None:
        """Each kind of damage to a finished run in ``runs``, and the places and settings that a run may meet."""
        kinds = {"cut short": self.cut, "with a flipped bit": self.flip, "of 2046": self.later, "of 1986": self.earlier}
        for kind, bend in kinds.items():
            attack = f"{files} files {kind}"
            self.damage(runs, bend, files)
            self.done[attack] += 1
            self.finished(attack, runs)
        places = (("disk full", "size=600k", "No space left"), ("read-only folder", "ro", "Read-only"))
        for attack, options, said in places if os.geteuid() == 0 else ():  # only root may mount
            with mounted(self.place / attack, options) as small:
                self.refused(attack, small, said)
                self.done[attack] += 1
        odd = self.place / "a b &'$(id)é…"
        first, second = self.run(odd, LC_ALL="C", TZ="Asia/Kathmandu"), self.run(odd)
        self.done["two runs at once, odd path, locale C, another time zone"] += 1
        if sorted((first.wait(), second.wait())) != [0, 1]:
            self.fault("two runs at once", f"exit statuses {first.returncode} and {second.returncode}: 0 and 1 wanted")
        self.compare("two runs at once, odd path, locale C, another time zone", odd)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it ended meanwhile
        return []


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, 20)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of its own at ``folder``; needs root."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def main(argv: list[str] | None = None) -> int:
    """Torture, and print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=1e9, help="no further signal after so many minutes")
    parser.add_argument("--longest", type=float, default=45, help="seconds to a signal, at most (default: 45)")
    parser.add_argument("--files", type=int, default=20, help="damaged files (default: 20); 0: no damage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", default=NOTEBOOKS[0], choices=NOTEBOOKS, help="what ran before it stays")
    parser.add_argument("--until", default=NOTEBOOKS[-1], choices=NOTEBOOKS)
    parser.add_argument("--place", help="a folder to work in, kept; an undisturbed run that it holds is used")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lmolt-torture-") as folder:
        it = Torture(Path(given.place or folder), until=given.until, rng=random.Random(given.seed))
        if it.run(it.place / "undisturbed").wait():
            raise SystemExit(f"the undisturbed run fails: {it._words(it.place / 'undisturbed')}")
        runs, began = it.place / "tortured", time.monotonic()
        for number in range(given.signals):
            if not runs.exists() and given.first != NOTEBOOKS[0]:
                it.begin(runs, given.first)
            print(f"{number} signals, {len(it.faults)} faults", end="\r", flush=True)
            if time.monotonic() - began > 60 * given.minutes:
                break
            it.signalled(runs, *SIGNALS[number % len(SIGNALS)], moment=it.rng.uniform(0, given.longest))
        it.finished("all signals", runs)
        if given.files:
            it.all_damage(runs, given.files)
    found = Counter(attack for attack, _ in it.faults)
    show([{"attack": name, "times": times, "faults": found[name]} for name, times in it.done.items()])
    for attack, told in it.faults:
        print(f"FAULT {attack}: {told}")
    return bool(it.faults)


if __name__ == "__main__":
    raise SystemExit(main())
