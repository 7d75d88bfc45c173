"""How long each notebook of a profile takes: ``make bench``.

The profile runs from nothing in a folder of its own; ``--last`` reports its last run instead. Times are papermill's,
from the executed notebooks.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import show, timed
from lmolt_utils.paths import run_folder


def durations(folder: Path) -> dict[str, float]:
    """Seconds of each notebook that was executed in a run's ``folder``, by name."""
    found = {}
    for path in sorted((folder / "notebooks").glob("*.ipynb")):
        told = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("papermill", {})
        found[path.stem] = float(told.get("duration") or "nan")
    return found


def report(profile: str) -> None:
    """Print a line for each notebook and for their sum."""
    seconds = durations(run_folder(profile))
    show([{"notebook": name, "seconds": taken} for name, taken in {**seconds, "sum": sum(seconds.values())}.items()])


def main() -> int:
    """Run and report; returns the exit status of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="cpu", help="params/PROFILE.yaml (default: cpu)")
    parser.add_argument("--cores", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--last", action="store_true", help="do not run: report the profile's last run")
    given = parser.parse_args()
    if given.last:
        report(given.profile)
        return 0
    with tempfile.TemporaryDirectory(prefix="lmolt-bench-") as folder:
        os.environ["LMOLT_RUNS"] = folder
        command = [sys.executable, "-m", "lmolt_utils.cli", "reproduce"]
        command += ["--profile", given.profile, "--cores", str(given.cores)]
        status, seconds = timed(lambda: subprocess.run(command).returncode)
        report(given.profile)
    print(f"wall time {seconds:.0f} s on {given.cores} cores")
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
