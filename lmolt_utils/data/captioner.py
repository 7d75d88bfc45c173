"""Who writes captions that a corpus lacks, and who reads properties off captions: both with the property tree there is.

L+M-24's release has property sets only, its hub page captions only, and captioning molecules again needs new captions.
"""

import json
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.data.sources import EMBEDDED, Source
from lmolt_utils.embedded.corpus import WITHHELD_PAIRS, caption_for
from lmolt_utils.errors import DataError
from lmolt_utils.files import BadFileError, read_json
from lmolt_utils.grammar.compose import Composer
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.property_cells import pairs_in
from lmolt_utils.grammar.vocabulary import Tree, Vocabulary, paths
from lmolt_utils.paths import from_root

TREE_FILE, WITHHELD_FILE = "nested_props.json", "train_withheld_combos.txt"
#: What a corpus's property sets are: its own, read off its captions, or none.
STATED, NO_PROPERTIES = "stated", "none"
#: Writes a caption: molecule, properties, seed, variant (0, 1, ... for several captions of one molecule).
Compose = Callable[[str, Sequence[str], int, int], str]


@dataclass(frozen=True)
class Knowledge:
    """What is known of a corpus besides its rows: L+M-24's property ``tree``, and the pairs that training withholds.

    ``facts``: where each came from and the hash of its text, or ``None``. ``compose`` writes captions, ``read`` names
    the properties that one states; without it, property sets that a corpus lacks stay empty.
    """

    tree: dict[str, Any] | None = None
    withheld: Sequence[tuple[str, str]] = ()
    facts: dict[str, dict[str, str] | None] = field(default_factory=dict)
    compose: Compose = caption_for
    read: Callable[[str], Collection[str]] | None = None


def knowledge(source: Source, property_tree: str | None = None, withheld_combinations: str | None = None) -> Knowledge:
    """From the files given, else from those of the release that lie with the corpus.

    The embedded corpus has pairs of its own, and no file. Raises :class:`DataError` for a file that is missing or is
    not what it should be.
    """
    found = _text(source, property_tree, TREE_FILE)
    pairs = _text(source, withheld_combinations, WITHHELD_FILE)
    facts = {
        name: {"from": text[0], "sha256": sha256(text[1].encode()).hexdigest()} if text else None
        for name, text in (("property_tree", found), ("withheld_combinations", pairs))
    }
    tree = None
    if found:
        try:
            tree = json.loads(found[1])
            if not paths(tree):
                raise ValueError("it has no properties")
        except (ValueError, TypeError) as error:
            told = f"{found[0]} is no tree of properties ({error}): give L+M-24's {TREE_FILE}, or null"
            raise DataError(told) from None
    withheld = pairs_in(pairs[1], pairs[0]) if pairs else WITHHELD_PAIRS if source.name == EMBEDDED else ()
    return Knowledge(tree, list(withheld), facts, captioner(source.name, tree), reader(tree).properties)


def _text(source: Source, given: str | None, name: str) -> tuple[str, str] | None:
    """Where the file lies, and its text."""
    try:
        return (given, Path(from_root(given)).read_text(encoding="utf-8-sig")) if given else source.beside(name)
    except (OSError, UnicodeDecodeError, BadFileError) as error:
        place = given or f"{name} of {source.name}"
        raise DataError(f"{place} cannot be read ({error}): give L+M-24's {name}, or null") from None


def captioner(corpus: str, tree: Tree | None = None) -> Compose:
    """The composer for ``corpus``: the plain forms for the embedded one, all of L+M-24's forms for any other.

    ``tree`` says which names are effects, classes or qualities; without it their kinds are guessed from the names.
    """
    if corpus == EMBEDDED:
        return caption_for
    known = Vocabulary.from_tree(tree) if tree else None

    def compose(molecule: str, properties: Sequence[str], seed: int, variant: int) -> str:
        composer = Composer(known or Vocabulary.from_names(properties))
        return composer.compose(properties, random.Random(f"caption:{seed}:{variant}:{molecule}"))

    return compose


def recaptioned(frame: pd.DataFrame, seed: int, variant: int, compose: Compose = caption_for) -> pd.Series:
    """Captions of ``frame``'s molecules composed from their property sets: the ``variant``-th of each, by index."""
    rows = zip(frame["molecule"], frame["properties"], strict=True)
    captions = [compose(molecule, properties.split("|"), seed, variant) for molecule, properties in rows]
    return pd.Series(captions, index=frame.index, dtype=object)


def reader(tree: Tree | None) -> Decomposer:
    """Reads captions with the names of ``tree``; without one with the shipped names and whatever reads like a name."""
    return Decomposer(Vocabulary.from_tree(tree)) if tree else Decomposer(open_vocabulary=True)


def kept_tree(data: Path) -> dict[str, Any] | None:
    """The property tree that 01 kept in a run's data folder; ``None`` where there was none."""
    path = data / "property_tree.json"
    return read_json(path) if path.exists() else None
