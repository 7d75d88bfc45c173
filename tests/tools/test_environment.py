"""One set of versions: pyproject.toml, requirements.lock, environment.yml and what is installed agree.

And `make env`, run with stand-ins for Python and uv, makes .venv in the right steps and does not take a failed
installation for done.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lmolt_utils.paths import root

LOCK = root() / "requirements.lock"


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Canonical name -> version."""
    lines = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_the_lock_has_plain_versions_and_conda_installs_it(pins: dict[str, str]) -> None:
    # A build tag (+...), an address or a path would tie the file to one machine.
    assert [pin for pin in pins.items() if not re.fullmatch(r"[0-9][A-Za-z0-9.!]*", pin[1])] == []
    conda = yaml.safe_load((root() / "environment.yml").read_text(encoding="utf-8"))
    assert conda["dependencies"] == ["python=3.11", "pip", {"pip": ["-r requirements.lock"]}]


def test_direct_dependencies_are_pinned_within_their_ranges(pins: dict[str, str]) -> None:
    project = tomllib.loads((root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # The slurm extra is for clusters only, and is not part of what `make env` installs.
    wanted = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    assert len(wanted) > 30
    assert [str(one) for one in wanted if not one.specifier.contains(pins[canonicalize_name(one.name)])] == []


def test_installed_versions_are_the_locks(pins: dict[str, str]) -> None:
    installed = {canonicalize_name(one.name): Version(one.version).public for one in importlib.metadata.distributions()}
    # public: a CPU and a CUDA torch are one version
    different = {name: pin for name, pin in pins.items() if installed.get(name) != Version(pin).public}
    assert different == {}, "run `make env`"


# -------------------------------------------------------------------------------- the Makefile

# A Python (and, under the name uv, a uv) that writes what it was asked to a file and installs nothing.
STAND_IN = """\
#!/bin/sh
echo "$(basename "$0") $* | UV_FIND_LINKS=$UV_FIND_LINKS" >>"$CALLS"
case "$*" in
    *sys.executable*) echo "$0" ;;
    *version_info*) exit "${TOO_OLD:-0}" ;;
    -V) echo "Python 3.9.18" ;;
    *venv*.venv) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *"pip install"*-r*) [ -z "$BREAK" ] || exit 1 ;;
esac
"""


class Checkout:
    """A folder with the Makefile, a small lock and stand-ins for Python and uv."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a checkout"  # with a space, as home folders have them
        self.calls, self.python, self.uv = folder / "calls", folder / "python", folder / "uv"
        self.folder.mkdir()
        shutil.copy(root() / "Makefile", self.folder)
        (self.folder / "pyproject.toml").touch()
        (self.folder / "requirements.lock").write_text("# pins\nidna==3.20\ntorch==2.13.0\n", encoding="utf-8")
        for program in (self.python, self.uv):
            program.write_text(STAND_IN, encoding="utf-8")
            program.chmod(0o755)
        self.venv, self.stamp = self.folder / ".venv", self.folder / ".venv" / ".installed"

    def make_env(self, *arguments: str, uv: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        command = ["make", f"PYTHON={self.python}", f"UV={self.uv if uv else ''}", *arguments, "env"]
        environment = {"PATH": os.environ["PATH"], "CALLS": str(self.calls), **variables}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60)

    def installs(self) -> list[str]:
        """What the last :meth:`make_env` installed, without the options that quieten."""
        lines = self.calls.read_text(encoding="utf-8").splitlines()
        quiet = r" (-qq|--quiet|--disable-pip-version-check)"
        return [re.sub(quiet, "", line) for line in lines if "pip install" in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    return Checkout(tmp_path)


def test_make_env_with_pip_installs_torch_first_and_once(checkout: Checkout) -> None:
    made = checkout.make_env()
    assert made.returncode == 0, made.stderr
    assert [call.split(" | ")[0] for call in checkout.installs()] == [
        "python -m pip install torch==2.13.0",
        "python -m pip install -r requirements.lock",
        "python -m pip install --no-deps -e .",
    ]
    assert checkout.make_env().returncode == 0
    assert checkout.installs() == []


def test_make_env_with_uv_follows_find_links_or_the_backend(checkout: Checkout) -> None:
    assert checkout.make_env(uv=True, PIP_FIND_LINKS="/one /two").returncode == 0
    pins, package = checkout.installs()
    assert pins.endswith(" -r requirements.lock | UV_FIND_LINKS=/one,/two")
    assert "--torch-backend" not in pins
    assert " --no-deps -e . |" in package
    for arguments, backend in ((), "auto"), (("TORCH_BACKEND=cpu",), "cpu"):
        shutil.rmtree(checkout.venv)
        assert checkout.make_env(*arguments, uv=True).returncode == 0
        assert f"--torch-backend={backend} -r requirements.lock" in checkout.installs()[0]


def test_a_failed_installation_is_not_taken_for_done(checkout: Checkout) -> None:
    failed = checkout.make_env(BREAK="1")
    assert failed.returncode != 0
    assert "type the command again" in failed.stderr
    assert not checkout.stamp.exists()
    half = checkout.venv / "half-a-package"
    half.touch()
    again = checkout.make_env()
    assert "the last installation was interrupted" in again.stdout
    assert len(checkout.installs()) == 3
    assert checkout.stamp.exists()
    assert not half.exists()


def test_a_changed_lock_updates_and_a_moved_folder_begins_anew(checkout: Checkout, tmp_path: Path) -> None:
    checkout.make_env()
    kept = checkout.venv / "kept"
    kept.touch()
    os.utime(checkout.stamp, (0, 0))
    assert checkout.make_env().stdout == "bringing .venv up to requirements.lock\n"
    assert kept.exists()
    checkout.folder = checkout.folder.rename(tmp_path / "elsewhere")
    assert "made in another folder" in checkout.make_env().stdout
    assert not (checkout.folder / ".venv" / "kept").exists()


def test_make_env_says_which_python_it_needs(checkout: Checkout) -> None:
    assert "is Python 3.9.18, but 3.11 or newer is needed" in checkout.make_env(TOO_OLD="1").stderr
    absent = checkout.make_env("PYTHON=no-such-python")
    assert "no-such-python does not run; install Python 3.11 or newer" in absent.stderr
    assert absent.returncode != 0
    assert not checkout.venv.exists()
