"""Who writes captions that a corpus lacks: L+M-24's release has property sets only, re-captioning needs new ones."""

import random
from collections.abc import Sequence
from pathlib import Path

from lmolt_utils.embedded.captions import caption_for
from lmolt_utils.grammar.compose import Composer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.paths import from_root
from lmolt_utils.sources import EMBEDDED, Compose


def captioner(corpus: str, property_tree: str | None) -> Compose:
    """The composer for ``corpus``: the plain forms for the embedded one, all of L+M-24's forms for any other.

    ``property_tree`` (L+M-24's ``nested_props.json``) says which names are effects, classes or qualities; without it
    their kinds are guessed from the names. The ``variant``-th caption of a molecule depends on molecule, set and seed.
    """
    if corpus == EMBEDDED:
        return caption_for
    composers: dict[frozenset[str], Composer] = {}
    tree = Vocabulary.read(Path(from_root(property_tree))) if property_tree else None

    def compose(molecule: str, properties: Sequence[str], seed: int, variant: int) -> str:
        names = frozenset(properties)
        if names not in composers:
            composers[names] = Composer(tree or Vocabulary.from_names(names))
        return composers[names].compose(names, random.Random(f"caption:{seed}:{variant}:{molecule}"))

    return compose
