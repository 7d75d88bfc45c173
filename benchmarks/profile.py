"""How long each notebook of a profile takes, run from nothing in a folder of its own: ``make bench``."""

import argparse
import os
import subprocess
import sys
import tempfile

import pandas as pd

from lmolt_utils.paths import run_folder
from lmolt_utils.run.summary import notes


def main() -> int:
    """Run, and print a line for each notebook and one for the whole; returns the exit status of the run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", default="cpu", help="params/PROFILE.yaml (default: cpu)")
    given, more = parser.parse_known_args()  # more: for lmolt reproduce
    with tempfile.TemporaryDirectory(prefix="lmolt-bench-") as folder:
        os.environ["LMOLT_RUNS"] = folder
        command = [sys.executable, "-m", "lmolt_utils.cli", "reproduce", "--profile", given.profile, *more]
        status = subprocess.run(command).returncode
        told = pd.DataFrame(notes(run_folder(given.profile)))
    print(told.reindex(columns=["what", "systems", "status", "seconds"]).to_string(index=False, na_rep="-"))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
