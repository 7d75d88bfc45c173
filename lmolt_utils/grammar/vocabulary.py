"""Property names and what kind each is: in which slot of a sentence L+M-24 writes it.

Names are compared in lower case with single spaces, as L+M-24's captions write them; that form is the canonical one.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Self

from lmolt_utils.errors import DataError
from lmolt_utils.grammar.forms import FREE_TEXT, LIST_SEPARATOR

Kind = Literal["role", "class", "effect", "quality", "free text"]
#: L+M-24's property tree (``nested_props.json``, or ``prop_counts.json``, whose names are keys): category ->
#: properties (text) and subcategories (mappings again).
Tree = Mapping[str, Any]
#: Between the categories of a property's path.
SEPARATOR = "__"

#: Groups of L+M-24's property tree -> the slot that their names fill in real captions; all others hold roles.
GROUP_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("disease", "cancer", "health_effect_relation", "toxin"), "effect"),
    **dict.fromkeys(("antis", "treatments", "lights", "electros", "antagonists", "modulators"), "class"),
    "organoleptic_effect_relations": "quality",
}
#: A bare list of names has no groups: the ending tells diseases and classes from roles well enough to write them.
_EFFECT = re.compile(r"(?:disease|syndrome|disorder|cancer|carcinoma|failure|obesity|(?:[aeiou]mi|ur)a|itis|osis)$")
_CLASS = re.compile(r"^anti |treatment$")


def leaves(tree: Any, groups: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every property with the categories that it is in, outermost first; raises TypeError for anything else."""
    if isinstance(tree, str):
        yield groups, tree
    elif isinstance(tree, Mapping):
        for name, child in tree.items():
            yield from [(groups, name)] if isinstance(child, int) else leaves(child, (*groups, name))
    elif isinstance(tree, Sequence):
        for child in tree:
            yield from leaves(child, groups)
    else:
        raise TypeError(f"{groups[-1] if groups else 'the tree'!r} holds {tree!r}, neither a property nor a category")


def paths(tree: Tree) -> list[str]:
    """Every property as category__subcategory__name, in the tree's order, each path once."""
    if not isinstance(tree, Mapping):
        raise TypeError("it is no mapping of categories")
    return list(dict.fromkeys(SEPARATOR.join((*groups, name)) for groups, name in leaves(tree)))


def canonical(name: str) -> str:
    """The form in which names are compared: lower case, single spaces."""
    return " ".join(name.split()).lower()


def _loose(name: str) -> str:
    """The name without Greek letters, which no T5 vocabulary has, and hyphens: ``tnf inhibitor``, ``anti viral``."""
    return canonical(re.sub(r"[\u0370-\u03ff]", "", name).replace("-", " "))


@dataclass(frozen=True)
class Vocabulary:
    """Canonical property names with their kinds."""

    kinds: dict[str, Kind]

    @classmethod
    def of(cls, kinds: Mapping[str, Kind]) -> Self:
        """From names with kinds; of two spellings of a name the first wins."""
        table: dict[str, Kind] = {}
        for name, kind in kinds.items():
            if name := canonical(name):
                table.setdefault(name, "free text" if name in FREE_TEXT else kind)
        if not table:
            raise DataError("the vocabulary has no names")
        return cls(table)

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Self:
        """From bare names; kinds are guessed from their endings (they matter for composing, not for reading)."""

        def kind(name: str) -> Kind:
            return "effect" if _EFFECT.search(name) else "class" if _CLASS.search(name) else "role"

        return cls.of({name: kind(canonical(name)) for name in names})

    @classmethod
    def from_tree(cls, tree: Any) -> Self:
        """From L+M-24's property tree; raises TypeError for anything else."""
        kinds: dict[str, Kind] = {}
        for groups, name in leaves(tree):
            kinds.setdefault(name, GROUP_KINDS.get(groups[-1] if groups else "", "role"))
        return cls.of(kinds)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file: a property tree in JSON, or one name per line; raises :class:`DataError`."""
        try:
            text = path.read_text(encoding="utf-8-sig")
            if text.lstrip()[:1] in ("{", "["):
                return cls.from_tree(json.loads(text))
            return cls.from_names(line for line in text.splitlines() if line.strip())
        except (OSError, ValueError, TypeError) as error:
            told = "give L+M-24's nested_props.json, or one name per line in UTF-8"
            raise DataError(f"vocabulary {path} cannot be read ({error}): {told}") from None

    @classmethod
    @cache
    def embedded(cls) -> Self:
        """The shipped vocabulary: the names of the embedded corpus's rules, and the four free-text properties."""
        # Imported here: the rules need RDKit, which takes longer to load than a caption file to read.
        from lmolt_utils.grammar.rules import EFFECTS, QUALITIES, vocabulary

        kinds: dict[str, Kind] = {**dict.fromkeys(vocabulary(), "role"), **dict.fromkeys(EFFECTS, "effect")}
        return cls.of({**kinds, **dict.fromkeys(QUALITIES, "quality"), **dict.fromkeys(FREE_TEXT, "free text")})

    def kind(self, name: str) -> Kind:
        """The kind of a name; unknown ones count as roles, the most frequent kind."""
        name = canonical(name)
        return self.kinds.get(name, "free text" if name in FREE_TEXT else "role")

    def find(self, phrase: str) -> str | None:
        """The canonical name that ``phrase`` is, or None; an exact name goes before one with other hyphens."""
        name = canonical(phrase)
        return name if name in self.kinds else self._aliases.get(_loose(name))

    @cached_property
    def _aliases(self) -> dict[str, str]:
        return {_loose(name): name for name in reversed(self.kinds)}  # of two alike the first name wins

    @cached_property
    def longest(self) -> dict[str, int]:
        """For names that look like lists (``food and nutrition``): their first item, and how many items they have."""
        table: dict[str, int] = {}
        for name in (*self.kinds, *self._aliases):
            items = LIST_SEPARATOR.split(name)[::2]
            if len(items) > 1:
                table[items[0]] = max(len(items), table.get(items[0], 0))
        return table
