"""How the cells of property files are read; behind this module a set's names are joined by ``|``."""

import ast
import json
import re
from collections import Counter
from functools import lru_cache

from lmolt_utils.errors import DataError

#: A missing value that a table's writer spelt out.
MISSING = frozenset({"nan", "NaN", "NAN", "<NA>", "NA", "N/A", "n/a", "None", "null", "NULL", "NaT"})
#: What may part the names of a list that is neither ``|``-separated nor in brackets. Names hold commas themselves
#: (``1,3-beta-glucan``), so a file is only suspected where letters or a space follow, and never read by guess.
_OTHER_SEPARATORS = {";": re.compile(";"), ",": re.compile(r",\s|(?<=[^\W\d_]),(?=[^\W\d_])")}
_BRACKETS = re.compile(r"(?:frozenset|set)\(.*\)|\[.*\]|\{.*\}|\(\s*['\"].*\)", re.DOTALL)
#: Another notation, or one that was cut: quotes around a name, ``array([``, brackets around the whole or never closed.
_NO_NAME = re.compile(
    r"""['"].*|.*['"]\s*[]}]|\w+\(\s*[\[{'"].*|[\[({]\s*['"].*|\[[^]]*|\{[^}]*|\([^)]*\)?|[^[]*\]|[^{]*\}|[^(]*\)""",
    re.DOTALL,
)
_STRING = re.compile(r"""'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*\"""", re.DOTALL)
#: Where names are joined by ``|``, cells that look parted by a comma are believed to be names up to this share of them.
_RARE = 0.05


def names_in(cell: object) -> list[str]:
    """The property names of one cell, each once.

    A list or array; text with ``|`` between the names; text in brackets: a JSON list, or a Python list, tuple or set (a
    set's names come sorted). Other text is one name; ``nan`` and its like are none. Raises ``ValueError`` saying what
    is wrong.
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
    if isinstance(items, (set, frozenset)):
        items = sorted(items, key=str)
    if not isinstance(items, (list, tuple)):
        raise ValueError(f"a list of names is needed, not {type(items).__name__}")
    for item in items:
        if not isinstance(item, str) or not item.strip() or "|" in item or item.strip() in MISSING:
            raise ValueError(f"{item!r:.40} is no name")
    return list(dict.fromkeys(name.strip() for name in items))


class PropertyCells:
    """Reads the cells of one file, and notices when it seems to separate names by something else than ``|``."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}  # each name, and the separator it seems to hold
        self._first: dict[str, int] = {}  # the line of each such name that stood outside brackets
        self._suspect, self._piped, self._listed = 0, 0, 0

    def read(self, cell: object, line: int) -> str:
        """The names of one cell, joined by ``|``; ``ValueError`` as :func:`names_in`."""
        names = names_in(cell)
        plain = isinstance(cell, str) and not _BRACKETS.fullmatch(cell.strip())
        self._listed += not plain
        self._piped += plain and len(names) > 1
        for name in names:
            if name not in self._marks:
                self._marks[name] = next((mark for mark, look in _OTHER_SEPARATORS.items() if look.search(name)), "")
            if plain and self._marks[name]:
                self._first.setdefault(name, line)
                self._suspect += 1
        return "|".join(names)

    def doubt(self) -> str:
        """Which name looks like a list with another separator, given what else the file holds; empty if none does.

        A semicolon always does; a comma where other cells are lists or few have ``|``, or where all parts of the name
        come elsewhere in the file too.
        """
        owners = Counter(part for name in self._marks for part in set(self._parts(name)))
        for name, line in self._first.items():
            mark = self._marks[name]
            known = all(owners[part] > 1 for part in self._parts(name))
            if mark == ";" or self._listed or known or self._suspect > _RARE * self._piped:
                return (
                    f"line {line}: the properties {name[:60]!r} look like a list parted by {mark!r}, which is not read "
                    "because names may hold it: write '|' between the names, or a JSON list"
                )
        return ""

    def _parts(self, name: str) -> list[str]:
        mark = self._marks[name]
        return [part.strip() for part in name.split(mark)] if mark else [name]


@lru_cache(maxsize=20_000)  # L+M-24 has 5,062 sets for its 160,560 molecules
def _listed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    # Python joins neighbouring texts: ['a' 'b'], as numpy prints an array, would be one name.
    if re.search(r"~\s*~", _STRING.sub("~", text.replace("~", "-"))):
        raise ValueError("there is no comma between two names")
    text = re.sub(r"^(?:frozenset|set)\((.*)\)$", r"\1", text, flags=re.DOTALL).strip() or "[]"
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
            raise DataError(
                f"{name} line {number}: lines like ('a', 'b'), a tab and a count are needed, not {line[:60]!r}"
            ) from None
        pairs.append((str(first), str(second)))
    return pairs
