"""L+M-24's tree of property categories (``nested_props.json``)."""

from collections.abc import Mapping, Sequence
from typing import Any

SEPARATOR = "__"

Tree = Mapping[str, Sequence[Any]]  # category -> properties (text) and subcategories (mappings again)


def paths(tree: Tree) -> list[str]:
    """Every property as category__subcategory__name, in the tree's order, each path once."""
    found: list[str] = []
    for category, children in tree.items():
        for child in children:
            if isinstance(child, str):
                found.append(f"{category}{SEPARATOR}{child}")
            elif isinstance(child, Mapping):
                found += [f"{category}{SEPARATOR}{path}" for path in paths(child)]
            else:
                raise TypeError(f"{category!r} holds {child!r}, neither a property nor a category")
    return list(dict.fromkeys(found))
