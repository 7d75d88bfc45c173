"""How a cell of properties is read: the one place that decides it. Behind it a set's names are joined by ``|``."""

import ast
import json
import re

#: What may part the names of a list that is neither ``|``-separated nor in brackets. Names hold commas themselves
#: (``1,3-beta-glucan``), so a file is only suspected where letters or a space follow, and never read by guess.
_OTHER_SEPARATORS = {";": re.compile(";"), ",": re.compile(r",\s|(?<=[^\W\d_]),(?=[^\W\d_])")}
_BRACKETS = re.compile(r"(?:frozenset|set)\(.*\)|\[.*\]|\{.*\}|\(\s*['\"].*\)", re.DOTALL)
_NO_COMMA = re.compile(r"""'\s+'|"\s+"|'\s+"|"\s+'""")


def names_in(cell: object) -> list[str]:
    """The property names of one cell, each once: a list or array, or text with ``|`` between the names or in brackets.

    Text in brackets is a JSON list, or a Python list, tuple or set (a set's names come sorted). Any other text is one
    name. Raises ``ValueError`` saying what is wrong.
    """
    items = cell
    if isinstance(cell, str):
        text = cell.strip()
        items = _listed(text) if _BRACKETS.fullmatch(text) else [name for name in text.split("|") if name.strip()]
    if isinstance(items, (set, frozenset)):
        items = sorted(items, key=str)
    if not isinstance(items, (list, tuple)):
        raise ValueError(f"a list of names is needed, not {type(items).__name__}")
    odd = next((item for item in items if not isinstance(item, str) or not item.strip() or "|" in item), None)
    if odd is not None or None in items:
        raise ValueError(f"{odd!r:.40} is no name")
    return list(dict.fromkeys(name.strip() for name in items))


class PropertyCells:
    """Reads the cells of one file, and notices when the file parts its names by something else than expected."""

    def __init__(self) -> None:
        self._several = False
        self._suspect: tuple[int, str, str] | None = None

    def read(self, cell: object, line: int) -> str:
        """The names of one cell, joined by ``|``; ``ValueError`` as :func:`names_in`."""
        names = names_in(cell)
        if len(names) > 1 or not isinstance(cell, str) or cell.strip() != "".join(names):
            self._several = True
        elif self._suspect is None:
            mark = next((mark for mark, look in _OTHER_SEPARATORS.items() if look.search(cell)), None)
            self._suspect = (line, mark, cell) if mark else None
        return "|".join(names)

    def doubt(self) -> str:
        """Why the file is not believed: no cell had several names, but one looks like a list with another separator."""
        if self._several or self._suspect is None:
            return ""
        line, mark, text = self._suspect
        return (
            f"line {line}: the properties {text[:60]!r} look like a list parted by {mark!r}, which is not read because "
            "names may hold it: write '|' between the names, or a JSON list"
        )


def _listed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if _NO_COMMA.search(text):  # Python joins such texts: ['a' 'b'], as numpy prints an array, would be one name
        raise ValueError("there is no comma between two names")
    text = re.sub(r"^(?:frozenset|set)\((.*)\)$", r"\1", text, flags=re.DOTALL).strip() or "[]"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError("neither a JSON list nor a Python list or set") from None
