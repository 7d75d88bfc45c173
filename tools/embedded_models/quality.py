"""Which properties captions name, and how well: what the model cards of the embedded models state."""

import re
from collections.abc import Iterable

from lmolt_utils.grammar.rules import vocabulary


def name_pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Finds whole names, the longest first."""
    longest_first = sorted(map(re.escape, names), key=lambda name: (-len(name), name))
    return re.compile(rf"(?<![\w-])(?:{'|'.join(longest_first)})(?![\w-])")


_NAMES = name_pattern(vocabulary())


def properties_in(caption: str) -> set[str]:
    """Properties that a caption names, longest match first (``anti inflammatory`` is not ``inflammatory``)."""
    return set(_NAMES.findall(caption.lower()))


def property_f1(references: Iterable[str], captions: Iterable[str]) -> float:
    """Micro F1 of the properties that ``captions`` name against ``|``-separated reference sets."""
    hits = named = true = 0
    for reference, caption in zip(references, captions, strict=True):
        expected, found = set(reference.split("|")), properties_in(caption)
        hits += len(expected & found)
        named += len(found)
        true += len(expected)
    return 2 * hits / (named + true) if named + true else 0.0
