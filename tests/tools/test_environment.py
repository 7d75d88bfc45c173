"""One set of versions: pyproject.toml, requirements.lock, environment.yml and what is installed agree.

And `make env`, run with stand-ins for Python and uv, makes .venv in the right steps and survives being stopped.
"""

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tools import environment
from tools.environment import CONDA, LOCK, ROOT, canonical, check, read_lock, render, write

# -------------------------------------------------------------------------------- the files


def test_environment_yml_has_the_locks_pins() -> None:
    conda = yaml.safe_load(CONDA.read_text(encoding="utf-8"))
    (pip_section,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    lock_lines = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert sorted(pip_section) == sorted(lock_lines)
    assert (conda["name"], conda["channels"]) == ("lmolt", ["conda-forge"])
    assert [entry for entry in conda["dependencies"] if isinstance(entry, str)] == ["python=3.11", "pip"]
    assert check() == []


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


@pytest.mark.parametrize("path", [LOCK, CONDA], ids=lambda path: path.name)
def test_no_build_tag_address_or_path(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "+" not in text
    assert "://" not in text
    assert re.search(r"(^|[\s=:'\"])[/~]", text) is None
    assert re.search(r"^\s*(- )?(-e|-f|-i|--\w)", text, re.MULTILINE) is None


def test_installed_versions_are_the_locks() -> None:
    different = {}
    for name, pinned in read_lock().items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            different[name] = (pinned, "not installed")
            continue
        if Version(installed).public != Version(pinned).public:  # public: a CPU and a CUDA torch are one version
            different[name] = (pinned, installed)
    assert different == {}, "run `make env`"


# -------------------------------------------------------------------------------- the module


def test_read_lock_takes_names_and_versions_only(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("# a comment\n\nRapid_Fuzz==3.14.6\nzlib.ng==1.0rc1\n", encoding="utf-8")
    assert read_lock(lock) == {"rapid-fuzz": "3.14.6", "zlib-ng": "1.0rc1"}
    for line in (
        "numpy==2.4.6+local",
        "numpy>=2.4",
        "numpy @ file:///wheels/numpy.whl",
        "--index-url https://example.org/simple",
        "numpy==2.4.6 ; python_version < '3.12'",
    ):
        lock.write_text(f"idna==3.20\n{line}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"line 2: .*make lock"):
            read_lock(lock)
    lock.write_text("idna==3.20\nIDNA==3.19\n", encoding="utf-8")
    with pytest.raises(ValueError, match="idna is pinned twice"):
        read_lock(lock)
    with pytest.raises(FileNotFoundError, match="make lock"):
        read_lock(tmp_path / "other.lock")


def test_check_names_every_difference(tmp_path: Path) -> None:
    lock, conda = tmp_path / "requirements.lock", tmp_path / "environment.yml"
    lock.write_text("a==1\nb==2\nc==3\n", encoding="utf-8")
    assert check(lock, conda) == ["environment.yml is missing"]
    write(lock, conda)
    assert check(lock, conda) == []
    assert yaml.safe_load(conda.read_text(encoding="utf-8"))["dependencies"][-1] == {"pip": ["a==1", "b==2", "c==3"]}
    conda.write_text(render({"a": "1", "b": "2.1", "d": "4"}), encoding="utf-8")
    assert check(lock, conda) == [
        "b: requirements.lock has 2, environment.yml has 2.1",
        "c: requirements.lock has 3, environment.yml has nothing",
        "d: requirements.lock has nothing, environment.yml has 4",
    ]
    conda.write_text(render(read_lock(lock)).replace("python=3.11", "python=3.9"), encoding="utf-8")
    assert len(check(lock, conda)) == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_command_line_needs_only_the_standard_library(tmp_path: Path) -> None:
    package = tmp_path / "tools"
    package.mkdir()
    shutil.copy(environment.__file__, package)
    (tmp_path / "requirements.lock").write_text("idna==3.20\n", encoding="utf-8")

    def run(flag: str) -> subprocess.CompletedProcess[str]:
        # -S leaves site-packages out: an import from there would fail.
        command = [sys.executable, "-S", "-m", "tools.environment", flag]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    missing = run("--check")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "environment.yml is missing" in missing.stderr
    assert "--write" in missing.stderr
    assert run("--write").returncode == 0
    assert run("--check").returncode == 0
    (tmp_path / "requirements.lock").write_text("idna\n", encoding="utf-8")
    broken = run("--write")
    assert broken.returncode == 1
    assert len(broken.stderr.splitlines()) == 1


# -------------------------------------------------------------------------------- the Makefile

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

# A Python (and, under the name uv, a uv) that writes what it was asked to a file and installs nothing.
STAND_IN = """\
#!/bin/sh
seen="PYTHONPATH=$PYTHONPATH VIRTUAL_ENV=$VIRTUAL_ENV UV_FIND_LINKS=$UV_FIND_LINKS"
echo "$(basename "$0") $* | $seen" >>"$CALLS"
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
        self.lock = self.folder / "requirements.lock"
        self.lock.write_text("# pins\nidna==3.20\ntorch==2.13.0\n", encoding="utf-8")
        self.python, self.uv = folder / "python", folder / "uv"
        for program in (self.python, self.uv):
            program.write_text(STAND_IN, encoding="utf-8")
            program.chmod(0o755)
        self.stamp = self.folder / ".venv" / ".installed"

    def make(self, *arguments: str, uv: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
        settings = [f"PYTHON={self.python}", f"UV={self.uv if uv else ''}"]
        return subprocess.run(
            ["make", *settings, *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "CALLS": str(self.calls_file), **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def installs(self) -> list[str]:
        """The calls that install since the last time this was asked, without the options that quieten."""
        lines = self.calls_file.read_text(encoding="utf-8").splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return [
            re.sub(r" (-qq|--quiet|--disable-pip-version-check)", "", line.split(" | ")[0])
            for line in lines
            if "pip install" in line
        ]

    def age(self, path: Path, seconds: int) -> None:
        """Move a file's time stamp, so that make sees an order that does not hang on the clock."""
        moved = path.stat().st_mtime + seconds
        os.utime(path, (moved, moved))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@needs_make
def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(" ".join(re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)).split()) - {"FORCE"}
    # A bare environment: `make test` itself may be above this, and its MAKEFLAGS must not reach this make.
    bare = {"PATH": os.environ["PATH"]}
    shown = subprocess.run(["make"], cwd=ROOT, env=bare, capture_output=True, text=True, check=True).stdout
    listed = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.startswith("  ")}
    assert set(listed) == phony
    assert {
        "env",
        "lock",
        "reproduce",
        "smoke",
        "test",
        "lab",
        "embedded-models",
        "bench",
        "lint",
        "clean",
    } < phony
    assert all(listed.values())


@needs_make
def test_make_env_with_pip_installs_torch_first_and_once(checkout: Checkout) -> None:
    made = checkout.make("env")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("making .venv from requirements.lock (once; pip")
    assert len(made.stdout.splitlines()) == 1
    assert checkout.installs() == [
        "python -m pip install torch==2.13.0",
        "python -m pip install -r requirements.lock",
        "python -m pip install --no-deps -e .",
    ]
    assert checkout.stamp.exists()
    assert checkout.make("env").returncode == 0
    assert checkout.installs() == []


@needs_make
def test_make_env_with_uv_follows_find_links_or_the_backend(checkout: Checkout) -> None:
    assert checkout.make("env", uv=True, PIP_FIND_LINKS="/one /two").returncode == 0
    assert "UV_FIND_LINKS=/one,/two" in checkout.calls_file.read_text(encoding="utf-8")
    with_links = checkout.installs()
    assert with_links[0].endswith(" -r requirements.lock")
    assert "--torch-backend" not in with_links[0]
    assert with_links[1].endswith(" --no-deps -e .")
    for arguments, backend in ((), "auto"), (("TORCH_BACKEND=cpu",), "cpu"):
        shutil.rmtree(checkout.folder / ".venv")
        assert checkout.make("env", *arguments, uv=True).returncode == 0
        assert f"--torch-backend={backend} -r requirements.lock" in checkout.installs()[0]


@needs_make
def test_make_env_begins_anew_after_an_interruption(checkout: Checkout) -> None:
    stopped = checkout.make("env", BREAK="1")
    assert stopped.returncode != 0
    assert "type the command again" in stopped.stderr
    assert not checkout.stamp.exists()
    half = checkout.folder / ".venv" / "half-a-package"
    half.touch()
    checkout.installs()
    again = checkout.make("env")
    assert again.returncode == 0
    assert "the last installation was interrupted" in again.stdout
    assert len(checkout.installs()) == 3
    assert checkout.stamp.exists()
    assert not half.exists()


@needs_make
@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_make_env_updates_when_its_inputs_change(checkout: Checkout, changed: str) -> None:
    checkout.make("env")
    checkout.installs()
    kept = checkout.folder / ".venv" / "kept"
    kept.touch()
    checkout.age(checkout.stamp, -100)
    for name in ("requirements.lock", "pyproject.toml"):
        checkout.age(checkout.folder / name, -50 if name == changed else -200)
    updated = checkout.make("env")
    assert updated.stdout == "bringing .venv up to requirements.lock\n"
    assert len(checkout.installs()) == 3
    assert kept.exists()
    # An update that is stopped leaves an unknown state, which is not built upon.
    checkout.age(checkout.stamp, -1000)
    assert checkout.make("env", BREAK="1").returncode != 0
    assert checkout.make("env").returncode == 0
    assert not kept.exists()


@needs_make
def test_make_env_replaces_a_moved_or_broken_one(checkout: Checkout, tmp_path: Path) -> None:
    checkout.make("env")
    checkout.folder = checkout.folder.rename(tmp_path / "elsewhere")
    assert "made in another folder" in checkout.make("env").stdout
    (checkout.folder / ".venv" / "bin" / "python").unlink()
    checkout.installs()
    assert checkout.make("env").returncode == 0
    assert len(checkout.installs()) == 3


@needs_make
def test_make_env_says_which_python_it_needs(checkout: Checkout) -> None:
    old = checkout.make("env", TOO_OLD="1")
    assert old.returncode != 0
    assert "is Python 3.9.18, but 3.11 or newer is needed" in old.stderr
    absent = checkout.make("env", "PYTHON=no-such-python")
    assert absent.returncode != 0
    assert "no-such-python does not run; install Python 3.11 or newer" in absent.stderr
    assert not (checkout.folder / ".venv").exists()


@needs_make
def test_make_test_ignores_what_the_caller_activated(checkout: Checkout) -> None:
    checkout.make("env")
    checkout.calls_file.unlink()
    run = checkout.make("test", "ARGS=-k one", PYTHONPATH="/elsewhere", VIRTUAL_ENV="/elsewhere")
    assert run.returncode == 0, run.stderr
    (call,) = checkout.calls_file.read_text(encoding="utf-8").splitlines()
    assert call == "python -m pytest -k one | PYTHONPATH= VIRTUAL_ENV= UV_FIND_LINKS="
    outside = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile")],
        cwd=checkout.python.parent,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert outside.returncode != 0
    assert "run make in the repository's folder" in outside.stderr


@needs_make
@pytest.mark.parametrize("target", ["reproduce", "smoke"])
def test_a_signal_to_make_reaches_what_it_runs(checkout: Checkout, target: str) -> None:
    checkout.make("env")
    seen = checkout.folder / "seen"
    program = checkout.folder / ".venv" / "bin" / "lmolt"
    program.write_text(
        "#!/bin/sh\ntrap 'echo ended >seen; exit 143' TERM\necho $$ >seen\nwhile :; do sleep 0.1; done\n"
    )
    program.chmod(0o755)
    settings = [f"PYTHON={checkout.python}", "UV="]
    process = subprocess.Popen(
        ["make", *settings, target],
        cwd=checkout.folder,
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until(lambda: seen.exists() and seen.read_text(encoding="utf-8").strip().isdigit())
        own = int(seen.read_text(encoding="utf-8"))
        process.terminate()
        process.wait(10)
        _wait_until(lambda: seen.read_text(encoding="utf-8") == "ended\n")
    finally:
        process.kill()
        if seen.read_text(encoding="utf-8").strip().isdigit():
            os.kill(own, signal.SIGKILL)


def _wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
