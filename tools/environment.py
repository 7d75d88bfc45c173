"""Writes environment.yml, for conda users, from requirements.lock: python -m tools.environment

Only the standard library is imported: `make lock` runs this before an environment exists.
"""

import os
import re
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
    """Canonical name -> version, in the file's order; ValueError for other lines and for a name that comes twice."""
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


def write(lock: Path = LOCK, conda: Path = CONDA) -> None:
    """Write environment.yml from the lock, whole or not at all. Raises as `read_lock` does."""
    text = render(read_lock(lock))
    unfinished = conda.with_name(conda.name + ".part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, conda)


if __name__ == "__main__":
    write()
