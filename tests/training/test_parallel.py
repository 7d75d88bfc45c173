"""One training in two processes (gloo, on CPUs) is the training in one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmolt_utils.files import read_rows, write_rows
from lmolt_utils.training.parallel import main
from tests.run.executing import repository_with
from tests.training.test_losses import pairs


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    repository_with(["cpo"], repository)
    profile = repository / "params" / "smoke.yaml"
    profile.write_text(profile.read_text().replace("micro_batch: 16", "micro_batch: 4"))
    monkeypatch.setenv("LMOLT_ROOT", str(repository))
    logs = []
    for name, launch in (("one", []), ("two", [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"])):
        write_rows(tmp_path / name / "smoke" / "data" / "pairs.jsonl", pairs(48).reset_index(names="id"))
        monkeypatch.setenv("LMOLT_RUNS", str(tmp_path / name))
        if launch:
            command = [*launch, "-m", "lmolt_utils.training.parallel", "smoke", "cpo"]
            done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "process 2 of 2, MULTI_CPU" in done.stdout
        else:
            main("smoke", "cpo")
        assert (tmp_path / name / "smoke" / "models" / "cpo.record.json").is_file()
        logs.append(read_rows(tmp_path / name / "smoke" / "logs" / "cpo.training.jsonl", ("loss", "grad_norm")))
    assert len(logs[0]) == 3
    for column in ("loss", "grad_norm", "rewards/margins", "logps/chosen"):
        np.testing.assert_allclose(logs[0][column], logs[1][column], rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "told", "status"),
    [
        (["smoke", "meditron"], "lmolt: 'meditron' is no system that profile 'smoke' trains (lmolt systems", 2),
        (["smok", "cpo"], "lmolt: no profile 'smok'", 2),
        (["smoke"], "PROFILE SYSTEM", 1),
    ],
)
def test_a_mistyped_name_ends_in_one_line(given: list[str], told: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lmolt_utils.training.parallel", *given], capture_output=True, text=True
    )
    assert done.returncode == status
    assert told in done.stderr
    assert "Traceback" not in done.stderr
