"""What a reader sees of a running training, and what it leaves behind: seconds, tokens and memory per step."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm
from transformers import TrainerCallback

from lmolt_utils.training.losses import Watched


class Progress(TrainerCallback):
    """A progress bar with loss and time left; plain lines where there is no notebook."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A bar that begins where the training does: not at 0 after a kill."""
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.title, unit="step", mininterval=5)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """The loss, beside the bar."""
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close it."""
        if self.bar is not None:
            self.bar.close()


class Clock(TrainerCallback):
    """Per step: seconds of training, tokens read, peak memory.

    Seconds include the reference's log-probabilities, and the time before a kill, but not the pause.
    """

    def __init__(self, watched: Watched, rows: Sequence[dict[str, Any]] = ()) -> None:
        self.watched = watched
        self.rows = list(rows)
        self.start = 0.0
        if self.rows:
            watched.tokens = int(self.rows[-1]["tokens"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start, or go on; the peak is this training's own, not that of what ran before."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.start = time.perf_counter() - (float(self.rows[-1]["seconds"]) if self.rows else self.watched.reference_s)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One row."""
        self.rows.append(
            {
                "step": state.global_step,
                "seconds": time.perf_counter() - self.start,
                "tokens": self.watched.tokens,
                "peak_mb": round(self.watched.peak_mb),
            }
        )

    def frame(self) -> pd.DataFrame:
        """Columns step, seconds, tokens (both since the beginning), peak_mb."""
        return pd.DataFrame(self.rows, columns=["step", "seconds", "tokens", "peak_mb"])


def timing_path(log: Path) -> Path:
    """Where the seconds of a training lie: beside its log."""
    return log.with_name(log.name.replace(".jsonl", ".seconds.jsonl"))


def efficiency(logs: pd.DataFrame) -> pd.DataFrame:
    """What each training cost (L4M Fig. 12, ALMol Fig. 6), from the rows of ``views.training_logs``.

    ``logs``: system, step, loss, seconds, tokens, peak_mb. Returns per system: steps, seconds, tokens, tokens per
    second, peak memory in MB (of the process, sampled at each micro-batch; of the GPU where there is one), first and
    last loss. Losses of different methods are different quantities: compare them within a row only.
    """
    rows = {}
    for system, log in logs.groupby("system", sort=False):
        log = log.sort_values("step")
        seconds = log["seconds"].max() if "seconds" in log else float("nan")
        tokens = log["tokens"].max() if "tokens" in log else float("nan")
        rows[system] = {
            "steps": int(log["step"].max()),
            "seconds": seconds,
            "tokens": tokens,
            "tokens/s": tokens / seconds if seconds else float("nan"),
            "peak MB": log["peak_mb"].max() if "peak_mb" in log else float("nan"),
            "first loss": log["loss"].iloc[0],
            "last loss": log["loss"].iloc[-1],
        }
    return pd.DataFrame(rows).T.rename_axis("system")
