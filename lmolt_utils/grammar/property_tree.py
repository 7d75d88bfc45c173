"""L+M-24's tree of property categories: ``nested_props.json``, or ``prop_counts.json``, whose names are keys."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SEPARATOR = "__"

Tree = Mapping[str, Any]  # category -> properties (text) and subcategories (mappings again)


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
        where = f"{groups[-1]!r}" if groups else "the tree"
        raise TypeError(f"{where} holds {tree!r}, neither a property nor a category")


def paths(tree: Tree) -> list[str]:
    """Every property as category__subcategory__name, in the tree's order, each path once."""
    if not isinstance(tree, Mapping):
        raise TypeError("it is no mapping of categories")
    return list(dict.fromkeys(SEPARATOR.join((*groups, name)) for groups, name in leaves(tree)))
