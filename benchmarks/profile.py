"""How long each notebook of a profile takes, run from nothing in a folder of its own: ``make bench``.

Times are papermill's, from the executed notebooks.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

from benchmarks.timing import show, timed
from lmolt_utils.paths import run_folder


def main() -> int:
    """Run, and print a line for each notebook; returns the exit status of the run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", default="cpu", help="params/PROFILE.yaml (default: cpu)")
    parser.add_argument("--cores", default=str(min(4, os.cpu_count() or 1)))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmolt-bench-") as folder:
        os.environ["LMOLT_RUNS"] = folder
        command = [sys.executable, "-m", "lmolt_utils.cli", "reproduce", "--profile", given.profile]
        done, seconds = timed(lambda: subprocess.run([*command, "--cores", given.cores]))
        notebooks = sorted((run_folder(given.profile) / "notebooks").glob("*.ipynb"))
        told = [json.loads(path.read_text(encoding="utf-8"))["metadata"].get("papermill", {}) for path in notebooks]
    show([{"notebook": path.stem, "s": one.get("duration")} for path, one in zip(notebooks, told, strict=True)])
    print(f"wall time {seconds:.0f} s on {given.cores} cores")
    return int(done.returncode)


if __name__ == "__main__":
    raise SystemExit(main())
