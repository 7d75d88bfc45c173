"""A training killed with SIGKILL goes on, and ends where one never killed ends; damaged checkpoints do not count."""

import multiprocessing
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lmolt_utils.config.params import load
from lmolt_utils.config.systems import load_systems
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.files import read_rows, write_rows
from lmolt_utils.run.notebook import Run
from lmolt_utils.run.resume import Checkpoints
from lmolt_utils.training import experiment
from lmolt_utils.training.losses import Monitored, PairTrainer, TrainingError
from tests.training.test_losses import pairs
from tests.training.test_training import recipe, trained

#: Dropout on, so that the random states matter; 8 pairs, 4 steps an epoch (KTO: 8).
SETTINGS = {"effective_batch": 2, "lora_dropout": 0.3, "epochs": 3.0, "scheduler": "cosine", "warmup_share": 0.1}
#: Children are forked from a process that has imported torch once.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["lmolt_utils.training.trainers"])


def train_in_child(folder: Path, method: str) -> None:
    trained(recipe(method, **SETTINGS), folder / "killed", read_rows(folder / "pairs.jsonl", ()), save_steps=3)


def killed_after(folder: Path, method: str, step: int) -> None:
    """Start a training of its own process and kill it without warning once it has saved ``step``."""
    child = FORKS.Process(target=train_in_child, args=(folder, method))
    child.start()
    seal = folder / "killed" / "w" / f"checkpoint-{step}.json"
    limit = time.monotonic() + 300
    while not seal.exists():
        assert child.is_alive(), "the training ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.01)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not (folder / "killed" / "a").exists()


@pytest.mark.parametrize("method", ["sft", "dpo", "cpo", "kto"])
def test_killed_and_continued_equals_never_killed(method: str, tmp_path: Path) -> None:
    rows = pairs(8)
    write_rows(tmp_path / "pairs.jsonl", rows)
    killed_after(tmp_path, method, step=6)
    torch.rand(7)  # whatever random numbers this process has drawn
    (goes_on, _) = trained(recipe(method, **SETTINGS), tmp_path / "killed", rows, save_steps=3)
    assert re.match(rf"{method}: goes on after step ([6-9]|\d\d), from checkpoint-", goes_on)
    trained(recipe(method, **SETTINGS), tmp_path / "whole", rows, save_steps=3)
    steps = 24 if method == "kto" else 12  # KTO's rows are single answers
    for name in ("a/adapter_model.safetensors", "a/adapter_config.json", "l.jsonl"):  # the log is whole too
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    times, whole = (
        read_rows(tmp_path / name / "l.seconds.jsonl", ("step", "seconds", "tokens")) for name in ("killed", "whole")
    )
    assert list(times["step"]) == list(range(1, steps + 1))
    assert times["seconds"].is_monotonic_increasing
    assert times["tokens"].iloc[-1] == whole["tokens"].iloc[-1], "tokens before the kill count once"


@pytest.mark.parametrize("method", ["sft", "cpo"])
def test_sigterm_keeps_the_step_and_the_same_bytes_come_out(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, original, calls, before = pairs(8), Monitored.training_step, [], signal.getsignal(signal.SIGTERM)

    def told(self: Monitored, *args: object, **kwargs: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 10:  # in the middle of step 5
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args, **kwargs)

    settings = recipe(method, **SETTINGS | {"effective_batch": 4, "micro_batch": 2})
    with monkeypatch.context() as patch:
        patch.setattr(Monitored, "training_step", told)
        with pytest.raises(KeyboardInterrupt, match=rf"{method} was told to end: the checkpoint of step 5 is kept"):
            trained(settings, tmp_path / "told", rows, save_steps=100)
    assert len(calls) == 10
    assert signal.getsignal(signal.SIGTERM) == before
    assert not (tmp_path / "told" / "a").exists()
    (goes_on, _) = trained(settings, tmp_path / "told", rows, save_steps=100)
    assert goes_on == f"{method}: goes on after step 5, from checkpoint-5"
    trained(settings, tmp_path / "whole", rows, save_steps=100)
    for name in ("a/adapter_model.safetensors", "a/adapter_config.json", "l.jsonl"):
        assert (tmp_path / "told" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def checkpoint(folder: Path, step: int, text: str = "weights") -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "adapter_model.safetensors").write_text(text)
    return path


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    assert kept.last() is None
    for step in (3, 6):
        checkpoint(tmp_path, step)
        kept.notes = lambda step=step: [{"step": step}]
        kept.on_save(None, SimpleNamespace(global_step=step), None)
    checkpoint(tmp_path, 9)  # killed while it was written: no seal
    assert kept.last() == (tmp_path / "checkpoint-6", [{"step": 6}])
    assert not (tmp_path / "checkpoint-9").exists()
    (tmp_path / "checkpoint-6" / "adapter_model.safetensors").write_text("damaged")
    assert kept.last() == (tmp_path / "checkpoint-3", [{"step": 3}])


def test_a_killed_prediction_loses_one_shard_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = generate(200, 0).head(20).assign(properties="")
    params = load("smoke", {"negatives_shard_rows": 8, "generation_batch": 4, "max_new_tokens": 12})
    whole, killed = (Run("03_sft", tmp_path / name, params) for name in ("whole", "killed"))
    (meditron,) = (system for system in load_systems() if system.name == "meditron")
    stream, asked = experiment.stream, []

    def interrupted(model: Any, tokenizer: Any, prompts: Any, **limits: Any) -> Iterator[list[tuple[int, str]]]:
        asked.append(len(prompts))
        for number, batch in enumerate(stream(model, tokenizer, prompts, **limits)):
            if len(asked) == 2 and number == 3:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(experiment, "stream", interrupted)
    for run in (whole, killed):
        write_rows(run.path("data", "test.jsonl"), rows)
    first = experiment.predict(whole, experiment.plan(whole, meditron), "mol2cap")
    with pytest.raises(KeyboardInterrupt):
        experiment.predict(killed, experiment.plan(killed, meditron), "mol2cap")
    again = experiment.predict(killed, experiment.plan(killed, meditron), "mol2cap")
    assert asked == [20, 20, 12], "of three batches of four, a shard of eight was kept"
    assert first.read_bytes() == again.read_bytes()


def test_a_diverging_training_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    wild = {"learning_rate": 30.0, "warmup_share": 0.9, "max_grad_norm": 1e9, "stop_above": 1.2}
    settings = recipe("dpo", effective_batch=2, epochs=5.0, **wild)
    with pytest.raises(TrainingError, match=r"wild: the (loss|gradient).* step (\d+).*kept in .*smaller learning_rate"):
        trained(settings, tmp_path, pairs(8), title="wild", save_steps=1)
    assert not (tmp_path / "a").exists()
    assert list((tmp_path / "w").glob("checkpoint-*/adapter_model.safetensors"))


def test_a_loss_that_is_not_finite_names_step_and_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def poisoned(self: object, *args: object, **kwargs: object) -> torch.Tensor:
        calls.append(1)
        loss = original(self, *args, **kwargs)
        return loss * float("nan") if len(calls) == 6 else loss

    original = PairTrainer.compute_loss
    monkeypatch.setattr(PairTrainer, "compute_loss", poisoned)
    where = "the loss is nan at step 3, micro-batch 2"
    with pytest.raises(TrainingError, match=f"{where}.*checkpoint of step 2 is kept"):
        trained(recipe("cpo", effective_batch=4, micro_batch=2), tmp_path, pairs(8), save_steps=2)
    assert (tmp_path / "w" / "checkpoint-2").is_dir()
