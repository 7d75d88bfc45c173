"""What goes on from the middle after a kill: shards of answers, and checkpoints of a training.

Both lie in the work folder of a step (:func:`lmolt_utils.run.steps.step`), which is emptied when what the step is
made from has changed.
"""

import hashlib
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from tqdm import tqdm
from transformers import TrainerCallback

from lmolt_utils.files import fingerprint, read_kept, read_rows, write_json, write_text

#: Asks a model: for texts, batches of (position among them, answer).
Ask = Callable[[Sequence[str]], Iterator[list[tuple[int, str]]]]


def answered(texts: Sequence[str], ask: Ask, work: Path, shard_rows: int, title: str) -> list[str]:
    """The answer to each text, in order: those in the shards of ``work``, and the others asked for and kept there.

    A kill loses the rows since the last shard, ``shard_rows`` and one batch at most.
    """
    answers: dict[int, str] = {}
    shards = sorted(work.glob("[0-9]*.jsonl"))
    for path in shards:
        if fingerprint(path).startswith(path.stem.partition("-")[2]):  # else damaged: its answers are asked for again
            shard = read_rows(path, ("row", "answer"))
            answers |= dict(zip(shard["row"].astype(int), shard["answer"], strict=True))
    left = [row for row in range(len(texts)) if row not in answers]
    written, waiting = len(shards), dict[int, str]()
    with tqdm(total=len(texts), initial=len(answers), desc=title, unit="row", leave=False, mininterval=5) as bar:
        for batch in ask([texts[row] for row in left]) if left else ():
            waiting |= {left[index]: text for index, text in batch}
            bar.update(len(batch))
            if len(waiting) >= shard_rows or len(answers) + len(waiting) == len(texts):
                frame = pd.DataFrame({"row": list(waiting), "answer": list(waiting.values())})
                text = frame.to_json(orient="records", lines=True, force_ascii=False)
                digest = hashlib.sha256(text.encode()).hexdigest()[:16]
                write_text(work / f"{written:05d}-{digest}.jsonl", text)
                answers, written, waiting = answers | waiting, written + 1, {}
    return [answers[row] for row in range(len(texts))]


class Checkpoints(TrainerCallback):
    """Transformers' checkpoints of one training in ``folder``; ``notes`` gives what else has to survive a kill.

    A checkpoint counts only if its seal, written last, still fits it. Transformers reads its optimiser and random
    states with ``weights_only``, which runs nothing.

    SIGTERM makes the training finish its step, keep it and stop. (Transformers' own ``enable_jit_checkpoint`` keeps
    what lies between two steps, from where the same bytes do not come out.)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: Callable[[], Any] = list
        self.told = False  # to end, by SIGTERM
        self._before: Any = None

    def last(self) -> tuple[Path, Any] | None:
        """The newest whole checkpoint and its notes; newer, broken ones are deleted."""
        for step in reversed(self._steps()):
            checkpoint = self.folder / f"checkpoint-{step}"
            seal = read_kept(_seal(checkpoint))
            if isinstance(seal, dict) and seal.get("fingerprint") == fingerprint(checkpoint):
                return checkpoint, seal.get("notes")
            shutil.rmtree(checkpoint)
        return None

    def left(self) -> str:
        """Which checkpoint a failed training leaves."""
        steps = self._steps()
        return f"the checkpoint of step {steps[-1]} is kept in {self.folder}." if steps else "no checkpoint was due."

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "told", True))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.world_size > 1:  # all processes stop after the same step
            self.told = bool(reduce(torch.tensor(float(self.told), device=args.device)))
        if self.told:
            control.should_save = control.should_training_stop = True

    def over(self) -> None:
        """Leave SIGTERM to whom it was left before the training."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        PartialState().wait_for_everyone()
        if not PartialState().is_main_process:
            return
        checkpoint = self.folder / f"checkpoint-{state.global_step}"
        write_json(_seal(checkpoint), {"fingerprint": fingerprint(checkpoint), "notes": self.notes()})

    def _steps(self) -> list[int]:
        return sorted(int(path.name.split("-")[1]) for path in self.folder.glob("checkpoint-*/"))


def _seal(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.json")
