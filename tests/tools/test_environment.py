"""One set of versions: pyproject.toml, requirements.lock, environment.yml and what is installed agree.

And `make env`, run with stand-ins for Python and uv, makes .venv in the right steps and does not take a failed
installation for done.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tools import environment
from tools.environment import CONDA, LOCK, ROOT, canonical, read_lock, render


def test_environment_yml_has_the_locks_pins() -> None:
    conda = yaml.safe_load(CONDA.read_text(encoding="utf-8"))
    (pip_section,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    lock_lines = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert sorted(pip_section) == sorted(lock_lines)
    assert (conda["name"], conda["channels"]) == ("lmolt", ["conda-forge"])
    assert [entry for entry in conda["dependencies"] if isinstance(entry, str)] == ["python=3.11", "pip"]
    assert CONDA.read_text(encoding="utf-8") == render(read_lock()), "python -m tools.environment"


def test_direct_dependencies_are_pinned_within_their_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # The slurm extra is for clusters only, and is not part of what `make env` installs.
    wanted = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    pins = read_lock()
    assert len(wanted) > 30
    assert [str(one) for one in wanted if canonical(one.name) not in pins] == []
    outside = [
        f"{one} but {pins[canonical(one.name)]}"
        for one in wanted
        if not one.specifier.contains(pins[canonical(one.name)])
    ]
    assert outside == []


def test_installed_versions_are_the_locks() -> None:
    installed = {canonical(one.name): Version(one.version).public for one in importlib.metadata.distributions()}
    # public: a CPU and a CUDA torch are one version
    different = {name: pin for name, pin in read_lock().items() if installed.get(name) != Version(pin).public}
    assert different == {}, "run `make env`"


def test_read_lock_takes_names_and_versions_only(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("# a comment\n\nRapid_Fuzz==3.14.6\nzlib.ng==1.0rc1\n", encoding="utf-8")
    assert read_lock(lock) == {"rapid-fuzz": "3.14.6", "zlib-ng": "1.0rc1"}
    for line in ("numpy==2.4.6+local", "numpy>=2.4", "numpy @ file:///wheels/numpy.whl", "--index-url https://e.org"):
        lock.write_text(f"idna==3.20\n{line}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"line 2: .*make lock"):
            read_lock(lock)
    lock.write_text("idna==3.20\nIDNA==3.19\n", encoding="utf-8")
    with pytest.raises(ValueError, match="idna is pinned twice"):
        read_lock(lock)


def test_the_command_needs_only_the_standard_library(tmp_path: Path) -> None:
    package = tmp_path / "tools"
    package.mkdir()
    shutil.copy(environment.__file__, package)
    lock = tmp_path / "requirements.lock"

    def run() -> subprocess.CompletedProcess[str]:
        # -S leaves site-packages out: an import from there would fail.
        command, bare = [sys.executable, "-S", "-m", "tools.environment"], {"PATH": os.environ["PATH"]}
        return subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True)

    lock.write_text("a==1\nb==2\n", encoding="utf-8")
    assert run().returncode == 0
    written = tmp_path / "environment.yml"
    assert yaml.safe_load(written.read_text(encoding="utf-8"))["dependencies"][-1] == {"pip": ["a==1", "b==2"]}
    before = written.read_bytes()
    lock.write_text("idna\n", encoding="utf-8")
    assert "'idna' is not name==version" in run().stderr
    assert written.read_bytes() == before


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
        self.calls_file = folder / "calls"
        self.folder.mkdir()
        shutil.copy(ROOT / "Makefile", self.folder)
        (self.folder / "pyproject.toml").write_text("", encoding="utf-8")
        (self.folder / "requirements.lock").write_text("# pins\nidna==3.20\ntorch==2.13.0\n", encoding="utf-8")
        self.python, self.uv = folder / "python", folder / "uv"
        for program in (self.python, self.uv):
            program.write_text(STAND_IN, encoding="utf-8")
            program.chmod(0o755)
        self.stamp = self.folder / ".venv" / ".installed"

    def make_env(self, *arguments: str, uv: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["make", f"PYTHON={self.python}", f"UV={self.uv if uv else ''}", *arguments, "env"]
        environment = {"PATH": os.environ["PATH"], "CALLS": str(self.calls_file), **variables}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60)

    def installs(self) -> list[str]:
        """The calls that install since the last time this was asked, without the options that quieten."""
        lines = self.calls_file.read_text(encoding="utf-8").splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        quiet = r" (-qq|--quiet|--disable-pip-version-check)"
        return [re.sub(quiet, "", line) for line in lines if "pip install" in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    return Checkout(tmp_path)


def test_help_lists_every_target(checkout: Checkout) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(" ".join(re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)).split()) - {"FORCE"}
    # A bare environment: `make test` itself may be above this, and its MAKEFLAGS must not reach this make.
    bare = {"PATH": os.environ["PATH"]}
    shown = subprocess.run(["make"], cwd=ROOT, env=bare, capture_output=True, text=True, check=True).stdout
    listed = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.startswith("  ")}
    assert set(listed) == phony
    assert all(listed.values())


def test_make_env_with_pip_installs_torch_first_and_once(checkout: Checkout) -> None:
    made = checkout.make_env()
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("making .venv from requirements.lock (once; pip")
    assert [call.split(" | ")[0] for call in checkout.installs()] == [
        "python -m pip install torch==2.13.0",
        "python -m pip install -r requirements.lock",
        "python -m pip install --no-deps -e .",
    ]
    assert checkout.stamp.exists()
    assert checkout.make_env().returncode == 0
    assert checkout.installs() == []


def test_make_env_with_uv_follows_find_links_or_the_backend(checkout: Checkout) -> None:
    assert checkout.make_env(uv=True, PIP_FIND_LINKS="/one /two").returncode == 0
    pins, package = checkout.installs()
    assert pins.endswith(" -r requirements.lock | UV_FIND_LINKS=/one,/two")
    assert "--torch-backend" not in pins
    assert " --no-deps -e . |" in package
    for arguments, backend in ((), "auto"), (("TORCH_BACKEND=cpu",), "cpu"):
        shutil.rmtree(checkout.folder / ".venv")
        assert checkout.make_env(*arguments, uv=True).returncode == 0
        assert f"--torch-backend={backend} -r requirements.lock" in checkout.installs()[0]


def test_a_failed_installation_is_not_taken_for_done(checkout: Checkout) -> None:
    failed = checkout.make_env(BREAK="1")
    assert failed.returncode != 0
    assert "type the command again" in failed.stderr
    assert not checkout.stamp.exists()
    half = checkout.folder / ".venv" / "half-a-package"
    half.touch()
    checkout.installs()
    again = checkout.make_env()
    assert again.returncode == 0
    assert "the last installation was interrupted" in again.stdout
    assert len(checkout.installs()) == 3
    assert checkout.stamp.exists()
    assert not half.exists()


def test_a_changed_lock_updates_and_a_moved_folder_begins_anew(checkout: Checkout, tmp_path: Path) -> None:
    checkout.make_env()
    kept = checkout.folder / ".venv" / "kept"
    kept.touch()
    os.utime(checkout.stamp, (0, 0))
    assert checkout.make_env().stdout == "bringing .venv up to requirements.lock\n"
    assert kept.exists()
    checkout.folder = checkout.folder.rename(tmp_path / "elsewhere")
    assert "made in another folder" in checkout.make_env().stdout
    assert not kept.exists()


def test_make_env_says_which_python_it_needs(checkout: Checkout) -> None:
    old = checkout.make_env(TOO_OLD="1")
    assert old.returncode != 0
    assert "is Python 3.9.18, but 3.11 or newer is needed" in old.stderr
    absent = checkout.make_env("PYTHON=no-such-python")
    assert absent.returncode != 0
    assert "no-such-python does not run; install Python 3.11 or newer" in absent.stderr
    assert not (checkout.folder / ".venv").exists()
