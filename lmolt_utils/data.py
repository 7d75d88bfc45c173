"""The data of a run: the corpus, the 10 % sample, the test molecules.

The embedded corpus stands in for L+M-24. Any folder or hub data set with the columns ``molecule`` and
``caption`` goes through the same code.
"""

import random
from dataclasses import dataclass

import pandas as pd

from lmolt_utils.embedded.corpus import generate
from lmolt_utils.errors import CompanionError

CORPUS_COLUMNS = ("id", "split", "molecule", "caption", "properties", "families")
TEST_COLUMNS = ("id", "molecule", "caption", "properties")
PAIR_COLUMNS = ("id", "task", "source", "chosen", "rejected")
EMBEDDED = "embedded"
#: What the splits of L+M-24 and its train-extra are called on the hub.
_HUB_SPLITS = {
    "train": ("split_train", "train"),
    "validation": ("split_valid", "validation", "valid"),
    "test": ("test",),
}


class DataError(CompanionError):
    """Data that cannot be had or is not what it should be."""


@dataclass(frozen=True)
class Source:
    """Where molecules come from: ``embedded`` (with rows and seed), or a folder or hub id (with revision)."""

    name: str
    rows: int
    seed: int
    revision: str | None = None
    test_name: str | None = None

    def relevant(self) -> dict[str, str | int | None]:
        """The values that decide the corpus: what its record is keyed by."""
        if self.name == EMBEDDED:
            return {"corpus": self.name, "rows": self.rows, "seed": self.seed}
        return {"corpus": self.name, "revision": self.revision, "test": self.test_name}


def load_corpus(source: Source) -> pd.DataFrame:
    """The corpus with the columns :data:`CORPUS_COLUMNS`.

    Raises :class:`DataError` naming what is missing and how to point at a local copy.
    """
    if source.name == EMBEDDED:
        return generate(source.rows, source.seed)
    frames = [_load(source.name, source.revision, ("train", "validation", "test"))]
    if source.test_name:
        # The papers' test molecules: the supplementary set's validation molecules, first caption of each.
        extra = _load(source.test_name, None, ("validation",)).drop_duplicates("molecule")
        frames[0] = frames[0][frames[0]["split"] != "test"]
        frames.append(extra.assign(split="test"))
    frame = pd.concat(frames, ignore_index=True)
    frame["id"] = [f"m{index:07d}" for index in range(len(frame))]
    for column in ("properties", "families"):
        frame[column] = frame.get(column, "")
    return frame[list(CORPUS_COLUMNS)]


def _load(name: str, revision: str | None, wanted: tuple[str, ...]) -> pd.DataFrame:
    from datasets import load_dataset  # slow to import, and the embedded corpus does not need it

    try:
        loaded = load_dataset(name, revision=revision)
    except Exception as error:  # a hub raises many kinds; whatever it was, the remedy is the same
        raise DataError(
            f"data set {name!r} cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0]}). Without a "
            "network, download it elsewhere, put its files in a folder and give the folder's path as corpus"
        ) from error
    frames = []
    for split in wanted:
        for known in _HUB_SPLITS[split]:
            if known in loaded:
                frames.append(loaded[known].to_pandas().assign(split=split))
                break
    if not frames:
        raise DataError(f"data set {name!r} has none of the splits {wanted}; it has {', '.join(loaded)}")
    frame = pd.concat(frames, ignore_index=True)
    for column in ("molecule", "caption"):
        if column not in frame:
            raise DataError(f"data set {name!r} has no column {column!r}; it has {', '.join(map(str, frame.columns))}")
    return frame


def sample(corpus: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """``share`` of the training molecules (L4M §4.1: 10 %), the same ones for both tasks, in corpus order."""
    train = corpus[corpus["split"] == "train"]
    count = round(share * len(train))
    if count < 2:
        raise DataError(f"a share of {share} of {len(train)} training molecules leaves {count}: raise sample_share")
    picked = sorted(random.Random(f"sample:{seed}").sample(range(len(train)), count))
    return train.iloc[picked].reset_index(drop=True)


def held_out(corpus: pd.DataFrame, split: str, rows: int, seed: int) -> pd.DataFrame:
    """At most ``rows`` molecules of ``split``, drawn with ``seed``, in corpus order."""
    held = corpus[corpus["split"] == split]
    if len(held) < 2:
        raise DataError(
            f"the corpus has {len(held)} molecules in split {split!r}: raise corpus_rows or change test_split"
        )
    picked = sorted(random.Random(f"test:{seed}").sample(range(len(held)), min(rows, len(held))))
    return held.iloc[picked].reset_index(drop=True)
