"""From raw output to prediction, as a switch: `clean`, `as_released` or `none`, applied when outputs are scored.

`clean` undoes what storing and reading did to an answer and rewrites nothing a model said. `as_released` is what the
released code does (audit D27): it stores a list's Python repr, then removes `['`, `']`, every `#` (triple bonds become
single ones) and every backslash with the n behind it (also a bond and an aromatic nitrogen).
"""

import ast
import re
from collections.abc import Callable, Sequence
from typing import Literal

Rule = Literal["clean", "as_released", "none"]

_LIST = re.compile(r"""\s*\[(['"]).*\1\]\s*""", re.DOTALL)
_END = re.compile(r"(?:\\+n|\s)+\Z")


def _unlisted(text: str) -> str:
    """The element of a list's repr; any other text as it is."""
    if not _LIST.fullmatch(text):
        return text
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str) else text


#: In this order. A literal "\n" goes at the end only: inside a SMILES string it may be a bond and a nitrogen.
_STEPS: dict[Rule, dict[str, Callable[[str], str]]] = {
    "clean": {
        "list repr unwrapped": _unlisted,
        "literal \\n at the end removed": lambda text: _END.sub("", text) if "\\n" in text else text,
        "doubled backslash made one": lambda text: text.replace("\\\\", "\\"),
        "surrounding space removed": str.strip,
    },
    "as_released": {
        "stored as list repr": lambda text: text if _LIST.fullmatch(text) else repr([text]),
        "[' removed": lambda text: text.replace("['", ""),
        "'] removed": lambda text: text.replace("']", ""),
        "# removed": lambda text: text.replace("#", ""),
        "literal \\n removed": lambda text: text.replace("\\n", ""),
    },
    "none": {},
}


def postprocess(raw: Sequence[str], rule: Rule) -> tuple[list[str], dict[str, int]]:
    """Raw outputs cleaned by a rule, and how many each of its steps, and all of them ("outputs changed"), changed."""
    texts, counts = list(raw), {}
    for name, step in _STEPS[rule].items():
        after = [step(text) for text in texts]
        counts[name] = sum(a != b for a, b in zip(texts, after, strict=True))
        texts = after
    counts["outputs changed"] = sum(a != b for a, b in zip(raw, texts, strict=True))
    return texts, counts


def postprocess_references(texts: Sequence[str], rule: Rule) -> tuple[list[str], int]:
    """References under the same rule as the outputs, and how many of them it changed; the released code leaves them."""
    if rule == "as_released":
        return list(texts), 0
    after, counts = postprocess(texts, rule)
    return after, counts["outputs changed"]


def clean(raw: str) -> str:
    return postprocess([raw], "clean")[0][0]
