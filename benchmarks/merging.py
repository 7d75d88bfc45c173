"""Merging against ``mergekit-yaml`` and against the disk: ``python -m benchmarks.merging``.

On made-up checkpoints of bf16 weights (2 GB each by default), each measured in a process of its own, caches dropped
first: the time that reading the parents and writing the result takes the disk; the merge by this package, with the
processor time it used (on a busy machine the rest is waiting); the same YAML by mergekit's command. Peak memory is the
process's own (RssAnon: what it allocated; mapped files are the kernel's to take back). Written files count when they
are on the disk (fsync).
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from benchmarks.made_up import make_checkpoint
from lmolt_utils.merging.merges import RULES, TASK_VECTOR_RULES, Merge, merge_models, yaml_path

BLOCK = 16 << 20
ROLES = ("base", "cap2mol", "mol2cap")


def forget(folder: Path) -> None:
    """Have the kernel drop what it caches of a folder's files, so that they are read from the disk again."""
    os.sync()
    for file in folder.iterdir():
        handle = os.open(file, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read_seconds(folders: list[Path]) -> float:
    """Seconds to read every weight file of ``folders``, once, from the disk."""
    for folder in folders:
        forget(folder)
    started = time.perf_counter()
    for folder in folders:
        for file in sorted(folder.glob("*.safetensors")):
            with open(file, "rb", buffering=0) as handle:
                while handle.read(BLOCK):
                    pass
    return time.perf_counter() - started


def write_seconds(file: Path, size: int) -> float:
    """Seconds until ``size`` bytes are on the disk; the file is removed again."""
    block = os.urandom(BLOCK)
    started = time.perf_counter()
    with open(file, "wb", buffering=0) as handle:
        for _ in range(-(-size // BLOCK)):
            handle.write(block)
        os.fsync(handle.fileno())
    seconds = time.perf_counter() - started
    file.unlink()
    return seconds


def synced(folder: Path) -> None:
    """Wait until a folder's files are on the disk."""
    for file in folder.iterdir():
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


@contextmanager
def peak_mb() -> Iterator[Callable[[], float]]:
    """Watch this process's own memory (RssAnon), 50 times a second; call the result for the peak in MB so far."""
    seen, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            seen[0] = max(seen[0], next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: seen[0]
    finally:
        ended.set()
        thread.join()


def merge_here(rule: str, work: Path, shard_bytes: int) -> tuple[float, float, float, float]:
    """Merge in this process: seconds until on the disk, processor seconds, MB before (libraries), MB at the peak."""
    import mergekit.merge  # noqa: F401  (its import is no part of a merge)

    with peak_mb() as peak:
        time.sleep(0.1)
        before = peak()
        started, used = time.perf_counter(), time.process_time()
        base, cap2mol, mol2cap = (str(work / role) for role in ROLES)
        share = 0.5 if rule in ("ties", "half_sum_ties") else 1 / 19
        merge = Merge(rule, share, dtype="bfloat16", base=base, cap2mol=cap2mol, mol2cap=mol2cap)
        merge_models(merge, work / "merged", shard_bytes=shard_bytes)
        synced(work / "merged")
        return time.perf_counter() - started, time.process_time() - used, before, peak()


def _own_process(*arguments: str) -> str:
    found = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{found.stderr[-2000:]}")
    return found.stdout


def parents_of(rule: str, work: Path) -> list[Path]:
    """The checkpoints that a rule reads."""
    return [work / role for role in ROLES if role != "base" or rule in TASK_VECTOR_RULES]


def by_command(rule: str, work: Path) -> float:
    """Seconds of mergekit's command on the YAML that a merge left, its start included, until on the disk."""
    started = time.perf_counter()
    command = "lmolt_utils.merging.half_sum_ties" if rule == "half_sum_ties" else "mergekit.scripts.run_yaml"
    _own_process(command, str(yaml_path(work / "merged")), str(work / "command"), "--no-write-model-card")
    synced(work / "command")
    seconds = time.perf_counter() - started
    shutil.rmtree(work / "command")
    return seconds


def measure(rule: str, work: Path, shard_bytes: int, *, command: bool) -> dict[str, float]:
    """One repeat: seconds of disk, this package and, if asked for, mergekit's command; this package's memory in MB.

    Before each the kernel forgets the parents. A disk of a virtual machine may still be served from its host's memory:
    the parents are read once before all repeats, so that it is for all of them or for none.
    """
    read = parents_of(rule, work)
    size = sum(file.stat().st_size for file in (work / "cap2mol").glob("*.safetensors"))
    disk = read_seconds(read) + write_seconds(work / "probe", size)
    for folder in read:
        forget(folder)
    line = _own_process(
        "benchmarks.merging", "--rule", rule, "--inside", str(work), "--shard-bytes", str(shard_bytes)
    ).splitlines()[-1]
    seconds, processor, before, peak = (float(word) for word in line.split())
    shutil.rmtree(work / "merged")
    theirs = math.nan
    if command:
        for folder in read:
            forget(folder)
        theirs = by_command(rule, work)
    return {
        "disk s": disk,
        "here s": seconds,
        "processor s": processor,
        "mergekit-yaml s": theirs,
        "here / disk": seconds / disk,
        "here / mergekit-yaml": seconds / theirs,
        "libraries MB": before,
        "peak MB": peak,
    }


def main() -> None:
    """Print one row of medians per rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", nargs="+", choices=RULES, default=["slerp", "soup"])
    parser.add_argument("--layers", type=int, default=18, help="18 layers of 2048: 2.08 GB per checkpoint")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--command-repeats", type=int, default=3, help="of them, those that run mergekit-yaml too")
    parser.add_argument("--shard-bytes", type=int, default=250_000_000, help="size of the files read and written")
    parser.add_argument("--folder", type=Path, help="disk to measure on (default: the temporary folder)")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(*merge_here(given.rule[0], given.inside, given.shard_bytes))
        return
    with tempfile.TemporaryDirectory(prefix="lmolt-merging-", dir=given.folder) as name:
        work = Path(name)
        shape = {"layers": given.layers, "hidden": 2048, "inner": 5504, "vocabulary": 32000}
        sizes = [make_checkpoint(work / r, n, **shape, shard_bytes=given.shard_bytes) for n, r in enumerate(ROLES)]
        print(
            f"checkpoints of {sizes[0] / 1e9:.2f} GB, files of {given.shard_bytes / 1e6:.0f} MB, {os.cpu_count()} cores"
        )
        rows = {}
        for rule in given.rule:
            repeats = []
            read_seconds(parents_of(rule, work))
            for number in range(given.repeats):
                command = number < given.command_repeats
                repeats.append(measure(rule, work, given.shard_bytes, command=command))
                print(rule, number + 1, {key: round(value, 2) for key, value in repeats[-1].items()}, flush=True)
            rows[rule] = pd.DataFrame(repeats).median()
        print(pd.DataFrame(rows).T.round(2).to_string())


if __name__ == "__main__":
    main()
