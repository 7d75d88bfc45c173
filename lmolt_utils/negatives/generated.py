"""Rejected answers and the pairs they make with the references (L4M §4.1).

The papers ask MolT5, fine-tuned on all of L+M-24, for its own training molecules and call the answers
dispreferred, unfiltered (audit D24).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.data.sample import for_task
from lmolt_utils.models.generation import stream
from lmolt_utils.models.loading import load_model, load_tokenizer
from lmolt_utils.models.postprocess import clean
from lmolt_utils.run.resume import answered

#: Source and answer column of each task.
SIDES: dict[Task, tuple[str, str]] = {"mol2cap": ("molecule", "caption"), "cap2mol": ("caption", "molecule")}
#: A longer source is not asked: attention grows with its square. L+M-24's longest molecule has 990 characters.
LONGEST_SOURCE = 4096


def translate(
    translator: str,
    sources: Sequence[str],
    work: Path,
    shard_rows: int,
    *,
    device: str,
    dtype: str,
    max_new_tokens: int,
    batch_size: int,
    title: str,
) -> list[str]:
    """The translator's greedy answer to each source; MolT5 takes the bare source, no instruction.

    Answers already in the shards of ``work`` are not asked for again, and the model is loaded only if some are
    missing. A source beyond :data:`LONGEST_SOURCE` characters is not asked; its answer is empty.
    """

    def ask(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
        model: Any = load_model(translator, "translator", device=device, dtype=dtype)
        short = [text if len(text) <= LONGEST_SOURCE else "" for text in texts]
        limits = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
        for batch in stream(model, load_tokenizer(translator), short, **limits):
            yield [(index, clean(text) if short[index] else "") for index, text in batch]

    return answered(sources, ask, work, shard_rows, title)


def preference_pairs(sampled: pd.DataFrame, rejected: Mapping[Task, Sequence[str]]) -> pd.DataFrame:
    """Triples of each task's rows (:func:`for_task`): id, task, source, chosen (the reference), rejected."""
    frames = []
    for task, answers in rejected.items():
        rows, (source, answer) = for_task(sampled, task), SIDES[task]
        frames.append(
            pd.DataFrame(
                {
                    "id": rows["id"],
                    "task": task,
                    "source": rows[source],
                    "chosen": rows[answer],
                    "rejected": list(answers),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def usable(pairs: pd.DataFrame, *, drop_equal: bool = True) -> pd.DataFrame:
    """Pairs with an answer to reject.

    One that equals the reference carries no preference: its gradient is zero (``drop_equal=False`` keeps it, as the
    released code does). An empty one cannot be trained on and is never kept.
    """
    kept = pairs["rejected"] != ""
    if drop_equal:
        kept &= pairs["rejected"] != pairs["chosen"]
    return pairs[kept].reset_index(drop=True)


def triple_counts(pairs: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Per task and in all: molecules, triples made, those equal or empty, triples kept.

    The papers' 12.7k are molecules; both directions in one adapter make 25.4k triples of them (audit D3).
    """
    rows = {}
    for name, frame, left in (
        *((task, pairs[pairs["task"] == task], kept[kept["task"] == task]) for task in TASKS),
        ("both", pairs, kept),
    ):
        rows[name] = {
            "molecules": frame["id"].nunique(),
            "triples": len(frame),
            "equal": int((frame["rejected"] == frame["chosen"]).sum()),
            "empty": int((frame["rejected"] == "").sum()),
            "kept": len(left),
        }
    return pd.DataFrame(rows).T.rename_axis("task")
