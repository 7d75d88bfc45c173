"""The embedded corpus: molecules, property sets, captions and splits, from a size and a seed.

It has L+M-24's shape (skewed families, one property set covering about 36 % of the molecules, captions in its
templates) and the split the papers lack: ``withheld``, molecules that combine two properties never seen
together in training. The other splits share their property sets.
"""

import random
from collections.abc import Sequence
from functools import cache, lru_cache

import pandas as pd

from lmolt_utils.embedded.molecules import draw
from lmolt_utils.grammar.compose import Composer
from lmolt_utils.grammar.forms import STYLES
from lmolt_utils.grammar.rules import families_of, properties_of
from lmolt_utils.grammar.vocabulary import Vocabulary

#: Pairs of properties that never meet in training (L+M-24 withholds property combinations likewise).
WITHHELD_PAIRS: tuple[tuple[str, str], ...] = (
    ("egfr inhibitor", "carbonic anhydrase inhibitor"),
    ("egfr inhibitor", "hdac inhibitor"),
    ("anxiolytic", "explosive"),
    ("serotonin antagonist", "aromatase inhibitor"),
    ("fluorescent", "liquid crystal"),
    ("electroluminescent", "cyclooxygenase inhibitor"),
    ("calcium channel blocker", "herbicide"),
    ("beta blocker", "anti fungal"),
    ("ppar agonist", "hdac inhibitor"),
    ("stimulant", "carbonic anhydrase inhibitor"),
    ("anti oxidant", "explosive"),
    ("reverse transcriptase inhibitor", "aromatase inhibitor"),
)
#: Shares of the molecules without a withheld pair.
SPLIT_SHARES = {"train": 0.79, "validation": 0.105, "test": 0.105}

#: The corpus whose train split the shipped models were trained on.
MODEL_ROWS, MODEL_SEED = 6000, 0

COLUMNS = ("id", "split", "molecule", "caption", "properties", "families")
_MAX_MISSES = 5_000


_composer = cache(lambda: Composer(Vocabulary.embedded(), STYLES["plain"]))


def caption_for(smiles: str, properties: Sequence[str], seed: int, variant: int = 0) -> str:
    """The ``variant``-th caption of a molecule, from these arguments alone: the embedded models were trained on it."""
    return _composer().caption(sorted(properties), random.Random(f"caption:{seed}:{variant}:{smiles}"))


def generate(rows: int, seed: int) -> pd.DataFrame:
    """A corpus of ``rows`` (100 at least) distinct molecules, the same bytes for the same arguments.

    Small molecules repeat sooner than lipids, so the lipids' share grows in large corpora: cardiolipins are 42 % of
    3,000 molecules and 64 % of 100,000. ``properties`` and ``families`` are ``|``-separated, as in L+M-24's file.
    """
    if rows < 100:
        raise ValueError(f"the corpus needs at least 100 rows, not {rows}: smaller ones leave splits empty")
    return pd.DataFrame(list(_records(rows, seed)), columns=list(COLUMNS))


@lru_cache(maxsize=2)  # 01_data asks twice: for the run's corpus, and for what the embedded models were trained on
def _records(rows: int, seed: int) -> tuple[dict[str, str], ...]:
    rng = random.Random(f"corpus:{seed}")
    records: dict[str, dict[str, str]] = {}
    misses = 0
    while len(records) < rows:
        smiles, mol = draw(rng)
        families = [] if smiles in records else families_of(mol)
        if not families:  # a repeat, or decorations without any property: nothing to say about it
            misses += 1
            if misses > _MAX_MISSES:
                raise ValueError(f"no more than {len(records)} distinct molecules can be drawn; ask for fewer rows")
            continue
        misses = 0
        properties = properties_of(families)
        (split,) = rng.choices(list(SPLIT_SHARES), weights=list(SPLIT_SHARES.values()))
        if any(set(pair) <= set(properties) for pair in WITHHELD_PAIRS):
            split = "withheld"
        records[smiles] = {
            "id": f"e{len(records):06d}",
            "split": split,
            "molecule": smiles,
            "caption": caption_for(smiles, properties, seed),
            "properties": "|".join(properties),
            "families": "|".join(families),
        }
    return tuple(records.values())
