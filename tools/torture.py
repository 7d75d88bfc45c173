"""Signals at random moments over all notebooks, then damage: in the end the same bytes as of a run left in peace.

``make torture``. A round takes a copy of the undisturbed run without the files of one notebook, sends signals to a run
that makes them again, each to what the one before left unfinished, lets it end, and compares. Rounds go through all
notebooks, several side by side. A fault is noted and the next attack follows. In the end tables say what was done and
what was found; exit status 1: something was found.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil

from lmolt_utils.files import fingerprint
from lmolt_utils.paths import root
from lmolt_utils.run.notebook import notebook_record, read_notebook_record
from lmolt_utils.run.notebooks import NOTEBOOKS
from lmolt_utils.run.reproduce import executed
from lmolt_utils.run.steps import output_path, record_path, records

#: What has to be the same in the end.
_COMPARED = ("data", "models", "predictions", "scores", "figures")
#: What there holds times. The report shows the figure of training times.
_TIMED = (".record.json", ".seconds.jsonl", *(f"training_curves.{x}" for x in ("csv", "pdf", "png")), "index.html")
#: Seconds after which a run that was told to end, and what it started, hang.
_HANGS = 180.0
#: Seconds to a signal, at most: what was done before it stays, so that later signals meet later steps.
_LONGEST = 60.0
#: Signals in one round: then the run may end.
_PER_ROUND = 10
#: Who gets which signal: the command itself, as by Ctrl-C or `kill`; one of the processes below it; all
#: at once; or the command again after a moment.
SIGNALS = tuple((number, who) for who in ("main", "one", "all", "twice") for number in ("SIGKILL", "SIGTERM", "SIGINT"))


@dataclass
class Torture:
    """The smoke profile's ``notebooks``, tortured in folders below ``place``, ``signals`` times."""

    place: Path
    notebooks: Sequence[str] = NOTEBOOKS
    signals: int = 200
    files: int = 5
    done: Counter[str] = field(default_factory=Counter)
    hits: list[tuple[str, str, str]] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)

    def begin(self, runs: Path, *notebooks: str) -> None:
        """A copy of the undisturbed run without what ``notebooks`` made."""
        shutil.copytree(self.place / "undisturbed", runs, dirs_exist_ok=True)
        for path in (path for notebook in notebooks for path in self.made(runs, notebook)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(runs / "smoke" / "cache", ignore_errors=True)

    def made(self, runs: Path, notebook: str) -> list[Path]:
        """What ``notebook`` made, records and its executed copy too."""
        folder = runs / "smoke"
        names = (read_notebook_record(folder, notebook) or {"files": {}})["files"]
        paths = [path for name in names for path in (folder / name, record_path(folder / name))]
        return [p for p in (*paths, executed(folder, notebook), notebook_record(folder, notebook)) if p.exists()]

    def run(self, runs: Path, until: str, **environment: str) -> "subprocess.Popen[str]":
        """``lmolt reproduce`` up to a notebook in ``runs``, in the background; its words go to a log."""
        runs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "lmolt_utils.cli", "reproduce", "--profile", "smoke", "--cores", "1"]
        words = self.place / f"{runs.name}.log"
        words.unlink(missing_ok=True)  # a run before may still write into its own
        with words.open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                [*command, "--", "--until", f"nb{until}"],
                env={**os.environ, "LMOLT_RUNS": str(runs), **environment},
                cwd=root(),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def finished(self, attack: str, runs: Path, until: str) -> None:
        """Run to the end; anything but success and an undisturbed run's bytes is a fault."""
        if self.run(runs, until).wait():
            self.fault(attack, f"the run after it fails: {self._words(runs)}")
        else:
            self.compare(attack, runs)

    def compare(self, attack: str, runs: Path) -> None:
        there, here = self.hashes(self.place / "undisturbed"), self.hashes(runs)
        if different := sorted(name for name in {*there, *here} if there.get(name) != here.get(name)):
            self.fault(attack, f"{len(different)} of {len(there)} files differ: {', '.join(different[:3])}")
            kept = self.place / f"fault-{len(self.faults)}"
            shutil.copytree(runs / "smoke", kept, ignore_dangling_symlinks=True)

    def hashes(self, runs: Path) -> dict[str, str]:
        """What is compared of a run: names and SHA-256."""
        paths = [path for name in _COMPARED for path in (runs / "smoke" / name).rglob("*") if path.is_file()]
        names = {path.relative_to(runs).as_posix(): path for path in paths}
        return {n: fingerprint(p) for n, p in names.items() if not n.endswith(_TIMED) and "/." not in n}

    def fault(self, attack: str, told: str) -> None:
        self.faults.append((attack, told))
        print(f"FAULT {attack}: {told}", flush=True)

    def _words(self, runs: Path) -> str:
        lines = (self.place / f"{runs.name}.log").read_text(encoding="utf-8", errors="replace").split("\n")
        return " | ".join([line for line in lines if "Error" in line or line.startswith("lmolt:")][-3:] or lines[-3:])

    # ---- signals ----

    def rounds(self, lane: int, lanes: int) -> None:
        """Every so many rounds: signals to one notebook, at moments within the time that it took undisturbed."""
        for number in itertools.count(lane, lanes):
            notebook, rng = self.notebooks[number % len(self.notebooks)], random.Random(number)
            notes = json.loads(executed(self.place / "undisturbed" / "smoke", notebook).read_text(encoding="utf-8"))
            runs, longest = self.place / f"round-{number}", min(_LONGEST, notes["metadata"]["papermill"]["duration"])
            if len(self.hits) >= self.signals:
                return
            self.begin(runs, notebook)
            for _ in range(_PER_ROUND):
                if len(self.hits) >= self.signals or self.signalled(runs, notebook, rng, longest):
                    break
            self.finished(f"signals to {notebook}", runs, notebook)
            shutil.rmtree(runs)

    def family(self, runs: Path) -> list[psutil.Process]:
        """Every process that works on ``runs``: all inherit where it is."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("LMOLT_RUNS") == str(runs) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def works(self, runs: Path) -> bool:
        """Whether a notebook's kernel is there."""
        return any("ipykernel_launcher" in _command(process) for process in self.family(runs))

    def signalled(self, runs: Path, notebook: str, rng: random.Random, longest: float) -> bool:
        """One signal, and what must hold then; whether the run ended by itself before it.

        Half of the moments count from the start of the notebook's kernel, the others from the start of the command.
        """
        main, moment, anywhere = self.run(runs, notebook), rng.uniform(0, longest), rng.random() < 0.5
        while not anywhere and main.poll() is None and not self.works(runs):
            time.sleep(0.5)
        with suppress(subprocess.TimeoutExpired):
            if main.wait(moment):
                self.fault(f"run of {notebook}", f"it goes wrong by itself: {self._words(runs)}")
            return True
        number, who = SIGNALS[len(self.hits) % len(SIGNALS)]
        attack, below = f"{number} {who}", [process for process in self.family(runs) if process.pid != main.pid]
        self.hits.append((attack, notebook, "at work" if self.works(runs) else "starting or ending"))
        print(f"{time.strftime('%X')} {len(self.hits)}:", *self.hits[-1], f"{moment:.0f} s", flush=True)
        targets = [psutil.Process(main.pid), *below] if who == "all" else [psutil.Process(main.pid)]
        for process in [rng.choice(below)] if who == "one" and below else targets:
            with suppress(psutil.Error):
                process.send_signal(getattr(signal, number))
                if who == "twice":
                    time.sleep(rng.random())
                    process.send_signal(getattr(signal, number))
        if who == "one":  # what is left ends by itself, well or not, or is told to
            with suppress(subprocess.TimeoutExpired):
                main.wait(moment)
            main.terminate()
        elif number == "SIGKILL" and who != "all":  # nobody was told: the others work on
            if any("snakemake" in _command(process) for process in self.family(runs)):
                status = self.run(runs, notebook).wait()
                if status != 1 or "already running" not in self._words(runs):
                    self.fault(attack, f"a second run beside it ends with {status}, not refused: {self._words(runs)}")
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
        return False

    def whole(self, attack: str, runs: Path) -> None:
        """A record stands beside whole files only: what it stands beside is read without further questions."""
        for first, record in records(runs / "smoke").items():
            for name, digest in record["outputs"].items():
                path = output_path(first, name)
                if not path.exists() or fingerprint(path) != digest:
                    self.fault(attack, f"{name} is not what its record says")

    # ---- damage ----

    def damage(self, notebook: str) -> None:
        """Files of a finished run's notebook cut short, with a flipped bit, and as after the clock was moved."""
        runs, rng = self.place / f"damaged-{notebook}", random.Random(notebook)
        shutil.copytree(self.place / "undisturbed", runs)
        every = [p for made in self.made(runs, notebook) for p in (made, *made.rglob("*")) if p.is_file()]
        files = [path for path in every if path.stat().st_size]
        for name, bend in BENDS.items():
            for path in rng.sample(files, min(self.files, len(files))):
                bend(path, rng)
                self.done[f"files {name}"] += 1
        self.finished(f"damage to {notebook}", runs, notebook)
        shutil.rmtree(runs)

    def no_room(self, notebook: str) -> None:
        """The disk full after some of what ``notebook`` writes, then read-only: told, and with room it goes on."""
        rng = random.Random(notebook)
        with mounted(self.place / f"no-room-{notebook}", "size=1g") as (runs, remount):
            self.begin(runs, notebook)
            used = shutil.disk_usage(runs).used
            for attack, options, said in (
                ("read-only folder", "ro", ("Read-only",)),
                ("disk full", f"rw,size={used + rng.randrange(60_000, 400_000)}", ("No space left", "free some space")),
            ):
                remount(options)
                main = self.run(runs, notebook)
                status, words = main.wait(), (self.place / f"{runs.name}.log").read_text(encoding="utf-8")
                if status != 1 or not any(text in words for text in said):
                    self.fault(attack, f"{notebook}: exit status {status}, {self._words(runs)}")
                self.done[attack] += 1
            remount("size=1g")
            self.finished(f"room again for {notebook}", runs, notebook)

    def odd(self) -> None:
        """Two runs at once that make all of the notebooks, oddly named folder, other locale and time zone."""
        attack, runs = "two runs at once, odd path, locale C, other zone", self.place / "a b &'$(id)é…"
        self.begin(runs, *self.notebooks)
        last = max(self.notebooks)
        first, second = self.run(runs, last, LC_ALL="C", TZ="Asia/Kathmandu"), self.run(runs, last)
        self.done[attack] += 1
        if sorted((first.wait(), second.wait())) != [0, 1]:
            self.fault(attack, f"exit statuses {first.returncode} and {second.returncode}: 0 and 1 wanted")
        self.compare(attack, runs)


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size or 1))


def flip(path: Path, rng: random.Random) -> None:
    """One bit, the time of the last change left as it was."""
    times, data = path.stat(), bytearray(path.read_bytes() or b"\0")
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


#: Kinds of damage to a file.
BENDS: dict[str, Callable[[Path, random.Random], None]] = {
    "cut short": cut,
    "with a flipped bit": flip,
    "of 2046": lambda path, _: os.utime(path, (2.4e9, 2.4e9)),
    "of 1986": lambda path, _: os.utime(path, (5e8, 5e8)),
}


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
def mounted(folder: Path, options: str) -> Iterator[tuple[Path, Callable[[str], object]]]:
    """A file system of its own at ``folder``, and what gives it other options; needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder, lambda new: subprocess.run(["mount", "-o", f"remount,{new}", folder], check=True)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def main(argv: list[str] | None = None) -> int:
    """Torture, and print the tables; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--signals", type=int, default=200, help="at least so many (default: 200)")
    parser.add_argument("--files", type=int, default=5, help="of a kind of damage and notebook (default: 5); 0: none")
    parser.add_argument("--lanes", type=int, default=2, help="rounds side by side (default: 2)")
    parser.add_argument("--notebooks", nargs="+", default=NOTEBOOKS, choices=NOTEBOOKS)
    parser.add_argument("--place", help="a folder to work in, kept; an undisturbed run that it holds is used")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lmolt-torture-") as folder, ThreadPoolExecutor(given.lanes) as pool:
        it = Torture(Path(given.place or folder), given.notebooks, given.signals, given.files)
        if it.run(it.place / "undisturbed", max(it.notebooks)).wait():
            raise SystemExit(f"the undisturbed run fails: {it._words(it.place / 'undisturbed')}")
        list(pool.map(it.rounds, range(given.lanes), itertools.repeat(given.lanes)))
        if given.files:
            odd = pool.submit(it.odd)
            list(pool.map(it.damage, it.notebooks))
            if os.geteuid() == 0:  # only root may mount
                list(pool.map(it.no_room, it.notebooks))
            odd.result()
    hits = pd.DataFrame(it.hits, columns=["attack", "notebook", "when"])
    for by in ("when", "attack"):
        print(pd.crosstab(hits[by], hits["notebook"], margins=True).to_string() + "\n" if len(hits) else "no signals")
    print("\n".join(f"{times:4d} {attack}" for attack, times in it.done.items()))
    for attack, told in it.faults:
        print(f"FAULT {attack}: {told}")
    return bool(it.faults)


if __name__ == "__main__":
    raise SystemExit(main())
