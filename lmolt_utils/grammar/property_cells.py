"""How the cells of property files are read; behind this module a set's names are joined by ``|``."""

import ast
import json
import re
from collections.abc import Sequence
from functools import lru_cache

from lmolt_utils.errors import DataError

#: A missing value that a table's writer spelt out.
MISSING = frozenset({"nan", "NaN", "NAN", "<NA>", "NA", "N/A", "n/a", "None", "null", "NULL", "NaT"})
#: What may part the names of a list that is neither ``|``-separated nor in brackets. Names hold commas themselves
#: (``1,3-beta-glucan``), so a file is only suspected where letters or a space follow, and never read by guess.
_OTHER_SEPARATORS = {";": re.compile(";"), ",": re.compile(r",\s|(?<=[^\W\d_]),(?=[^\W\d_])")}
_BRACKETS = re.compile(r"\[.*\]|\{.*\}", re.DOTALL)
#: Another notation, or one that was cut: quotes around a name, ``array([``, brackets around the whole or never closed.
_NO_NAME = re.compile(
    r"""['"].*|.*['"]\s*[]}]|\w+\(\s*[\[{'"].*|[\[({]\s*['"].*|\[[^]]*|\{[^}]*|\([^)]*\)?|[^[]*\]|[^{]*\}|[^(]*\)""",
    re.DOTALL,
)
_STRING = re.compile(r"""'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*\"""", re.DOTALL)


def names_in(cell: object) -> list[str]:
    """The property names of one cell, each once.

    A list; text with ``|`` between the names; text in brackets: a JSON list, or a Python list or set (a set's names
    come sorted). Other text is one name; ``nan`` and its like are none. Raises ``ValueError`` saying what is wrong.
    """
    items = cell
    if isinstance(cell, str):
        text = cell.strip()
        if _BRACKETS.fullmatch(text):
            items = _listed(text)
        else:
            items = [] if text in MISSING else [name.strip() for name in text.split("|") if name.strip()]
            if any(_NO_NAME.fullmatch(name) for name in items):
                raise ValueError("a list in another notation, or one that was cut; '|' or a JSON list is read")
    if isinstance(items, set):
        items = sorted(items, key=str)
    if not isinstance(items, list):
        raise ValueError(f"a list of names is needed, not {type(items).__name__}")
    for item in items:
        if not isinstance(item, str) or not item.strip() or "|" in item or item.strip() in MISSING:
            raise ValueError(f"{item!r:.40} is no name")
    return list(dict.fromkeys(name.strip() for name in items))


def other_separator(cells: Sequence[tuple[int, object]]) -> str:
    """What is wrong where cells, each with its line, seem to be parted by another mark than ``|``; empty if they don't.

    A few commas are the names' own: only a mark that is seen in more cells than are lists is suspected.
    """
    single = [
        (line, cell)
        for line, cell in cells
        if isinstance(cell, str) and "|" not in cell and not _BRACKETS.fullmatch(cell.strip())
    ]
    for mark, look in _OTHER_SEPARATORS.items():
        parted = [(line, text) for line, text in single if look.search(text)]
        if len(parted) > len(cells) - len(single):
            line, text = parted[0]
            return (
                f"line {line}: the properties {text[:60]!r} look like a list parted by {mark!r}, which is not read "
                "because names may hold it: write '|' between the names, or a JSON list"
            )
    return ""


@lru_cache(maxsize=20_000)  # L+M-24 has 5,062 sets for its 160,560 molecules
def _listed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    # Python joins neighbouring texts: ['a' 'b'], as numpy prints an array, would be one name.
    if re.search(r"~\s*~", _STRING.sub("~", text.replace("~", "-"))):
        raise ValueError("there is no comma between two names")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError("neither a JSON list nor a Python list or set") from None


def pairs_in(text: str, name: str) -> list[tuple[str, str]]:
    """The pairs of properties that L+M-24 withholds from training: a Python tuple, a tab and a count per line."""
    pairs = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            first, second = ast.literal_eval(line.split("\t")[0])
        except (ValueError, SyntaxError, TypeError):
            told = f"lines like ('a', 'b'), a tab and a count are needed, not {line[:60]!r}"
            raise DataError(f"{name} line {number}: {told}") from None
        pairs.append((str(first), str(second)))
    return pairs
