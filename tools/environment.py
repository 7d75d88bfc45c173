"""environment.yml for conda users, written from requirements.lock and checked against it.

    python -m tools.environment --write    write environment.yml from the lock
    python -m tools.environment --check    say where the two differ; exit status 1 if they do

Only the standard library is imported: `make lock` runs this before an environment exists.
"""

import argparse
import os
import re
import sys
from difflib import unified_diff
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
CONDA = ROOT / "environment.yml"

# A name and a plain version and nothing else: a build tag (+...), an address or a path would tie
# the file to one machine.
PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[0-9][A-Za-z0-9.!]*)")

HEAD = """\
# For conda users. Written from requirements.lock by `make lock`, not by hand; a test compares the two.
#   conda env create -f environment.yml && conda activate lmolt
#   python -m pip install --no-deps -e .        (this package itself, from the repository's root)
# GPU: the same pins. On Linux the plain PyPI wheel of torch is the CUDA build and brings its CUDA libraries;
# only the NVIDIA driver has to be there already.
name: lmolt
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def canonical(name: str) -> str:
    """The name as package indexes compare it: lower case, runs of - _ . as one hyphen (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(path: Path = LOCK) -> dict[str, str]:
    """Canonical name -> version, in the file's order.

    Raises FileNotFoundError, and ValueError for a line that is not `name==version` and for a name that appears twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: restore it from version control, or run `make lock`")
    pins: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = PIN.fullmatch(text)
        if match is None:
            raise ValueError(f"{path}, line {number}: {text!r} is not name==version; run `make lock`")
        name = canonical(match["name"])
        if name in pins:
            raise ValueError(f"{path}, line {number}: {name} is pinned twice; run `make lock`")
        pins[name] = match["version"]
    return pins


def render(pins: dict[str, str]) -> str:
    """The text of environment.yml for these pins (name -> version)."""
    return HEAD + "".join(f"      - {name}=={version}\n" for name, version in pins.items())


def check(lock: Path = LOCK, conda: Path = CONDA) -> list[str]:
    """The lines in which environment.yml is not what the lock makes it, as a diff. Raises as `read_lock` does."""
    wanted = render(read_lock(lock))
    if not conda.is_file():
        return [f"{conda.name} is missing"]
    found = conda.read_text(encoding="utf-8")
    return list(unified_diff(found.splitlines(), wanted.splitlines(), conda.name, lock.name, lineterm="", n=0))


def write(lock: Path = LOCK, conda: Path = CONDA) -> None:
    """Write environment.yml from the lock, whole or not at all. Raises as `read_lock` does."""
    text = render(read_lock(lock))
    unfinished = conda.with_name(conda.name + ".part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, conda)


def main() -> int:
    """The exit status is 0 when the two files agree at the end."""
    parser = argparse.ArgumentParser(prog="python -m tools.environment", description=__doc__.split("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    for flag, text in (("--write", "write environment.yml from the lock"), ("--check", "say where the two differ")):
        action.add_argument(flag, action="store_true", help=text)
    arguments = parser.parse_args()
    try:
        if arguments.write:
            write()
        differences = check()
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for difference in differences:
        print(difference, file=sys.stderr)
    if differences:
        print("Run `python -m tools.environment --write`.", file=sys.stderr)
        return 1
    print(f"{CONDA.name} and {LOCK.name} agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
