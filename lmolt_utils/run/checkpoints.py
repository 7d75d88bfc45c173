"""A training that was killed goes on from its last whole checkpoint.

The checkpoints are Transformers': adapter (safetensors), optimiser, schedule and random states, log. The folder lies
beside the adapter, is keyed to what the training is made from, and goes when the training is done. Its optimiser and
random states are PyTorch files that only this program wrote; Transformers reads them with ``weights_only``, which
loads tensors and plain values and runs nothing. A checkpoint counts only if its receipt, written last, still fits it.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from lmolt_utils.files import BadFileError, fingerprint, read_json, write_json

KEY = "made-from.json"


class Checkpoints(TrainerCallback):
    """The checkpoint folder of one training; ``notes`` gives what else has to survive a kill."""

    def __init__(self, folder: Path, made_from: Mapping[str, Any]) -> None:
        self.folder = folder
        self.made_from = dict(made_from)
        self.notes: Callable[[], Any] = list

    def last(self) -> tuple[Path, Any] | None:
        """The newest whole checkpoint of the same training, and its notes; others are deleted."""
        key = self.folder / KEY
        if not (key.is_file() and _readable(key) == self.made_from):
            self.remove()
            self.folder.mkdir(parents=True)
            write_json(key, self.made_from)
            return None
        for step in reversed(self._steps()):
            checkpoint = self.folder / f"checkpoint-{step}"
            receipt = _readable(_receipt(checkpoint))
            if receipt and receipt["fingerprint"] == fingerprint(checkpoint):
                return checkpoint, receipt["notes"]
            shutil.rmtree(checkpoint)
        return None

    def _steps(self) -> list[int]:
        return sorted(int(path.name.split("-")[1]) for path in self.folder.glob("checkpoint-*/"))

    def left(self) -> str:
        """Which checkpoint a failed training leaves."""
        steps = self._steps()
        return f"the checkpoint of step {steps[-1]} is kept in {self.folder}." if steps else "no checkpoint was due."

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The receipt of a checkpoint that is completely written."""
        checkpoint = self.folder / f"checkpoint-{state.global_step}"
        write_json(_receipt(checkpoint), {"fingerprint": fingerprint(checkpoint), "notes": self.notes()})

    def remove(self) -> None:
        """Delete the folder, whatever is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _receipt(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.json")


def _readable(path: Path) -> Any:
    try:
        return read_json(path)
    except BadFileError:
        return None
