"""Captions of the embedded corpus: the plain forms of L+M-24's grammar.

The embedded models were trained on these captions, so the same arguments must give the same bytes.
"""

import random
from collections.abc import Sequence
from functools import cache

from lmolt_utils.grammar.compose import Composer
from lmolt_utils.grammar.forms import STYLES
from lmolt_utils.grammar.vocabulary import Vocabulary


@cache
def _composer() -> Composer:
    return Composer(Vocabulary.embedded(), STYLES["plain"])


def compose(properties: Sequence[str], rng: random.Random) -> str:
    """A caption of one to three sentences stating every one of ``properties`` once, in random order."""
    return _composer().caption(properties, rng)


def caption_for(smiles: str, properties: Sequence[str], seed: int, variant: int = 0) -> str:
    """The ``variant``-th caption of a molecule; depends on nothing but these arguments."""
    return compose(sorted(properties), random.Random(f"caption:{seed}:{variant}:{smiles}"))
