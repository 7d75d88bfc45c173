"""What watches a training: its progress bar, its costs per step, and the stop when it diverges."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm
from transformers import TrainerCallback

from lmolt_utils.run.steps import peak_memory_mb
from lmolt_utils.training.losses import Monitored, TrainingError


class Progress(TrainerCallback):
    """A progress bar with loss and time left; after a kill it does not begin at 0."""

    def __init__(self, title: str) -> None:
        self.title = title

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.title, unit="step", mininterval=5)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


class Clock(TrainerCallback):
    """Per step: seconds and tokens since the beginning, peak memory; ``rows``: those of before a kill.

    Seconds include the reference's log-probabilities and the time before a kill, but not the pause.
    """

    def __init__(self, trainer: Monitored, rows: Sequence[dict[str, Any]] = ()) -> None:
        self.trainer, self.rows = trainer, list(rows)
        if self.rows:
            trainer.tokens = int(self.rows[-1]["tokens"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start = time.perf_counter() - (float(self.rows[-1]["seconds"]) if self.rows else self.trainer.reference_s)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        on_gpu = args.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(args.device) / 2**20 if on_gpu else peak_memory_mb()
        row = {"step": state.global_step, "seconds": time.perf_counter() - self.start, "tokens": self.trainer.tokens}
        self.rows.append({**row, "peak_mb": round(peak)})


class StopOnDivergence(TrainerCallback):
    """Stops a training whose gradient is not finite or whose loss runs away, before that is saved anywhere."""

    def __init__(self, stop_above: float) -> None:
        self.stop_above = stop_above

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.losses = [float(row["loss"]) for row in state.log_history if "loss" in row]

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                raise TrainingError(f"the gradient of {name} is not finite at step {state.global_step + 1}")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Compare the last tenth of the steps with the first: a preference loss has single steps far above ln 2."""
        if not logs or "loss" not in logs:
            return
        self.losses.append(float(logs["loss"]))
        window = min(max(3, state.max_steps // 10), 20)
        recent, first = sum(self.losses[-window:]) / window, max(map(abs, self.losses[:window]))
        if len(self.losses) > window and recent > self.stop_above * first:
            raise TrainingError(
                f"the loss diverges: {recent:.3g} on average of {window} steps at step {state.global_step}, more than "
                f"{self.stop_above:g} times the {first:.3g} of the worst of the first {window} (stop_above)"
            )


def timing_path(log: Path) -> Path:
    """Where the seconds of a training lie: beside its log."""
    return log.with_name(log.name.replace(".jsonl", ".seconds.jsonl"))


def efficiency(logs: pd.DataFrame) -> pd.DataFrame:
    """What each system's training cost (L4M Fig. 12, ALMol Fig. 6), from the rows of ``views.training_logs``.

    Peak memory, in MB, is that of the process, or of the GPU where there is one. Losses of different methods are
    different quantities: compare them within a row only.
    """
    logs = logs.reindex(columns=["system", "step", "seconds", "tokens", "peak_mb", "loss"])
    by = logs.sort_values("step", kind="stable").groupby("system", sort=False)
    table = by.max().rename(columns={"step": "steps", "peak_mb": "peak MB"}).drop(columns="loss")
    table.insert(3, "tokens/s", table["tokens"] / table["seconds"])
    return table.assign(**{"first loss": by["loss"].first(), "last loss": by["loss"].last()})
