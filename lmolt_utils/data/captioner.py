"""Who writes captions that a corpus lacks, and who reads properties off captions: both with the property tree there is.

L+M-24's release has property sets only, its hub page captions only, and re-captioning needs new captions.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from lmolt_utils.data.rows import DataError
from lmolt_utils.data.sources import EMBEDDED, TREE_FILE, WITHHELD_FILE, Compose, Source, beside
from lmolt_utils.embedded.captions import caption_for
from lmolt_utils.embedded.corpus import WITHHELD_PAIRS
from lmolt_utils.files import read_json
from lmolt_utils.grammar.compose import Composer
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.property_cells import pairs_in
from lmolt_utils.grammar.vocabulary import Tree, Vocabulary, paths
from lmolt_utils.paths import from_root


@dataclass(frozen=True)
class Knowledge:
    """What is known of a corpus's properties besides its rows: L+M-24's ``tree`` and the pairs that training withholds.

    ``facts``: where each came from and the hash of its text, or ``None``.
    """

    tree: dict[str, Any] | None
    withheld: list[tuple[str, str]]
    facts: dict[str, dict[str, str] | None]


def knowledge(source: Source, property_tree: str | None, withheld_combinations: str | None) -> Knowledge:
    """From the files given, else from those of the release that lie with the corpus.

    The embedded corpus has pairs of its own, and no file. Raises :class:`~lmolt_utils.data.rows.DataError` for a file
    that is missing or is not what it should be.
    """
    tree = _text(source, property_tree, TREE_FILE)
    pairs = _text(source, withheld_combinations, WITHHELD_FILE)
    own = list(WITHHELD_PAIRS) if source.name == EMBEDDED else []
    facts = {
        name: {"from": found[0], "sha256": sha256(found[1].encode()).hexdigest()} if found else None
        for name, found in (("property_tree", tree), ("withheld_combinations", pairs))
    }
    return Knowledge(_tree(tree[1], tree[0]) if tree else None, pairs_in(pairs[1], pairs[0]) if pairs else own, facts)


def _text(source: Source, given: str | None, name: str) -> tuple[str, str] | None:
    if not given:
        return beside(source, name)
    try:
        return given, Path(from_root(given)).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{given} cannot be read ({error}): give L+M-24's {name}, or null") from None


def _tree(text: str, name: str) -> dict[str, Any]:
    try:
        tree = json.loads(text)
        if not paths(tree):
            raise ValueError("it has no properties")
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{name} is no tree of properties ({error}): give L+M-24's {TREE_FILE}, or null") from None
    return dict(tree)


def captioner(corpus: str, tree: Tree | None = None) -> Compose:
    """The composer for ``corpus``: the plain forms for the embedded one, all of L+M-24's forms for any other.

    ``tree`` says which names are effects, classes or qualities; without it their kinds are guessed from the names. The
    ``variant``-th caption of a molecule depends on molecule, set and seed.
    """
    if corpus == EMBEDDED:
        return caption_for
    composers: dict[frozenset[str], Composer] = {}
    known = Vocabulary.from_tree(tree) if tree else None

    def compose(molecule: str, properties: Sequence[str], seed: int, variant: int) -> str:
        names = frozenset(properties)
        if names not in composers:
            composers[names] = Composer(known or Vocabulary.from_names(names))
        return composers[names].compose(names, random.Random(f"caption:{seed}:{variant}:{molecule}"))

    return compose


def reader(tree: Tree | None) -> Decomposer:
    """Reads captions with the names of ``tree``; without one with the shipped names and whatever reads like a name."""
    if tree:
        return Decomposer(Vocabulary.from_tree(tree))
    return Decomposer(Vocabulary.embedded(), open_vocabulary=True)


def kept_tree(data: Path) -> dict[str, Any] | None:
    """The tree that 01 kept in a run's data folder (``property_tree.json``); ``None`` where there was none."""
    path = data / "property_tree.json"
    return read_json(path) if path.exists() else None


def kept_captioner(data: Path) -> Compose:
    """The composer of the corpus in a run's data folder."""
    return captioner(read_json(data / "corpus.manifest.json")["source"], kept_tree(data))
