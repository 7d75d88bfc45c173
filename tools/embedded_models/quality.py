"""How good the embedded models are on held-out molecules: what their model cards state."""

import re
from collections.abc import Iterable, Sequence
from functools import cache

from rdkit import DataStructs
from rdkit.Chem.rdMolDescriptors import GetMACCSKeysFingerprint

from lmolt_utils.data.molecules import parse
from lmolt_utils.grammar.rules import vocabulary


def name_pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Finds whole names, the longest first."""
    longest_first = sorted(map(re.escape, names), key=lambda name: (-len(name), name))
    return re.compile(rf"(?<![\w-])(?:{'|'.join(longest_first)})(?![\w-])")


@cache
def _names() -> re.Pattern[str]:
    return name_pattern(vocabulary())


def properties_in(caption: str) -> set[str]:
    """Properties that a caption names, longest match first (``anti inflammatory`` is not ``inflammatory``)."""
    return set(_names().findall(caption.lower()))


def property_f1(references: Iterable[str], captions: Iterable[str]) -> float:
    """Micro F1 of the properties that ``captions`` name against ``|``-separated reference sets."""
    hits = named = true = 0
    for reference, caption in zip(references, captions, strict=True):
        expected, found = set(reference.split("|")), properties_in(caption)
        hits += len(expected & found)
        named += len(found)
        true += len(expected)
    return 2 * hits / (named + true) if named + true else 0.0


def molecule_quality(references: Sequence[str], molecules: Sequence[str]) -> tuple[float, float]:
    """Validity, and mean MACCS similarity to the reference over all rows (an invalid molecule counts as 0)."""
    valid, similarity = 0, 0.0
    for reference, text in zip(references, molecules, strict=True):
        mol = parse(text)
        if mol is not None:
            valid += 1
            pair = GetMACCSKeysFingerprint(parse(reference)), GetMACCSKeysFingerprint(mol)
            similarity += DataStructs.TanimotoSimilarity(*pair)
    return valid / len(references), similarity / len(references)
