"""Answers kept as they come, so that a killed run goes on where it was.

A folder of files, each written atomically: a kill costs the rows since the last one. The folder remembers what its
answers were made from and starts anew when that changed.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from lmolt_utils.files import BadFileError, read_kept, read_rows, write_json, write_rows

#: Asks a model: for texts, batches of (position among them, answer).
Ask = Callable[[Sequence[str]], Iterator[list[tuple[int, str]]]]


class Shards:
    """Answers by row number in ``folder``, at least ``rows`` of them in a file (fewer in the last)."""

    def __init__(self, folder: Path, rows: int, key: Mapping[str, Any]) -> None:
        """``key``, plain values, names everything that decides an answer; answers made from another are removed."""
        self.folder, self.rows = folder, rows
        self._waiting: dict[int, str] = {}
        made_from = folder / "key.json"
        if folder.exists() and read_kept(made_from) != dict(key):
            shutil.rmtree(folder)
        if not made_from.exists():
            write_json(made_from, dict(key))

    def read(self) -> dict[int, str]:
        """Every answer written so far; those of a damaged file are asked for again."""
        answers: dict[int, str] = {}
        for path in self._files():
            try:
                shard = read_rows(path, ("row", "answer"))
            except BadFileError:
                shard = pd.DataFrame(columns=["row", "answer"])
            answers |= dict(zip(shard["row"].astype(int), shard["answer"], strict=True))
        return answers

    def add(self, answers: Mapping[int, str]) -> None:
        """Keep ``answers``; writes a file whenever ``rows`` have come together."""
        self._waiting |= answers
        if len(self._waiting) >= self.rows:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            frame = pd.DataFrame({"row": list(self._waiting), "answer": list(self._waiting.values())})
            write_rows(self.folder / f"{len(self._files()):05d}.jsonl", frame)
            self._waiting = {}

    def remove(self) -> None:
        """Delete the folder: its answers are in their final file."""
        shutil.rmtree(self.folder)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.jsonl"))


def answered(texts: Sequence[str], ask: Ask, shards: Shards, title: str) -> list[str]:
    """The answer to each text, in order: those in ``shards``, and the others asked for and kept there."""
    answers = shards.read()
    left = [row for row in range(len(texts)) if row not in answers]
    with tqdm(total=len(texts), initial=len(answers), desc=title, unit="row", leave=False, mininterval=5) as bar:
        for batch in ask([texts[row] for row in left]) if left else ():
            new = {left[index]: text for index, text in batch}
            shards.add(new)
            answers |= new
            bar.update(len(new))
    shards.flush()
    return [answers[row] for row in range(len(texts))]
