"""Properties named in captions, as the L+M-24 evaluation counts them: precision, recall and F1.

A property is present where its lower-cased word pieces occur one after the other in the caption's. Every name that
occurs counts, so "kinase inhibitor" is also found inside "tyrosine kinase inhibitor". Counts are taken per property
over the corpus and averaged up the tree of categories; what is undefined (0 / 0) is left out.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from lmolt_utils.grammar.vocabulary import SEPARATOR, Tree, paths
from lmolt_utils.metrics.captions import CaptionTokenizer, strip_cls

OVERALL = "Overall"
#: A category in which nothing is defined, in the official scorer that L+M-24's results come from (0 in an earlier one).
EMPTY_CATEGORY = 1.0
MEASURES = ("precision", "recall", "f1", "accuracy")
#: Bands of how often training names a property: lower ends, the last one open.
BANDS = {"0": 0, "1 to 9": 1, "10 to 99": 10, "100 to 999": 100, "1,000 or more": 1000}


# ---- finding names ----


def presence(names: Sequence[str], texts: Sequence[str], tokenizer: CaptionTokenizer) -> sparse.csr_array:
    """Shape (texts, names), 1 where the text has the name; equal texts are searched once."""
    columns: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for column, pieces in enumerate(tokenizer.split([name.lower() for name in names])):
        columns[tuple(pieces)].append(column)
    sizes = {len(name) for name in columns} - {0}
    distinct, found = list(dict.fromkeys(texts)), {}
    for text, pieces in zip(distinct, tokenizer.split([text.lower() for text in distinct]), strict=True):
        # The text's runs of pieces are looked up: L+M-24's thousands of names one by one take a minute.
        runs = (tuple(pieces[start : start + size]) for size in sizes for start in range(len(pieces) - size + 1))
        found[text] = sorted({column for run in runs for column in columns.get(run, ())})
    rows = [found[text] for text in texts]
    flat = np.array([column for row in rows for column in row], dtype=np.int64)
    ends = np.cumsum([0, *map(len, rows)])
    return sparse.csr_array((np.ones(len(flat)), flat, ends), shape=(len(texts), len(names)))


# ---- scores ----


@dataclass(frozen=True, eq=False)
class PropertyScores:
    """:data:`MEASURES`, NaN where undefined.

    properties: one line per path, with tp, fp, fn, tn. categories: one line per category path and "Overall",
    macro-averaged up the tree. combinations: micro, of withheld pairs; empty without. rows: per caption omitted (share
    of the reference's properties) and hallucinated (share of its own); by distinct name, not by path.
    """

    properties: pd.DataFrame
    categories: pd.DataFrame
    combinations: dict[str, float]
    rows: pd.DataFrame


def property_scores(
    references: Sequence[str],
    predictions: Sequence[str],
    tree: Tree,
    tokenizer: CaptionTokenizer,
    *,
    combinations: Sequence[tuple[str, str]] = (),
) -> PropertyScores:
    """Compare the properties that references and predictions name, row by row.

    combinations: pairs that training withholds; a caption has one where it names both.
    """
    leaves = paths(tree)
    by_path = [leaf.split(SEPARATOR)[-1] for leaf in leaves]
    names = list(dict.fromkeys([*by_path, *(name for pair in combinations for name in pair)]))
    column = {name: index for index, name in enumerate(names)}
    gold = presence(names, references, tokenizer)
    said = presence(names, [strip_cls(text) for text in predictions], tokenizer)

    counts = _counts(gold, said).iloc[[column[name] for name in by_path]].set_axis(leaves, axis=0)
    properties = pd.concat([counts, _measures(counts)], axis=1).rename_axis("property")
    categories = pd.DataFrame({m: _up(tree, dict(zip(leaves, properties[m].tolist(), strict=True))) for m in MEASURES})
    named = [column[name] for name in dict.fromkeys(by_path)]
    return PropertyScores(
        properties,
        categories.rename_axis("category"),
        _combinations(gold, said, [(column[a], column[b]) for a, b in combinations]),
        _rows(gold[:, named], said[:, named]),
    )


def _counts(gold: sparse.csr_array, said: sparse.csr_array) -> pd.DataFrame:
    both = gold.multiply(said).sum(axis=0)
    counts = {"tp": both, "fp": said.sum(axis=0) - both, "fn": gold.sum(axis=0) - both}
    frame = pd.DataFrame({name: np.asarray(values).astype(int) for name, values in counts.items()})
    return frame.assign(tn=gold.shape[0] - frame.sum(axis=1))


def _measures(counts: pd.DataFrame) -> pd.DataFrame:
    tp, fp, fn, tn = (counts[name].to_numpy(dtype=float) for name in ("tp", "fp", "fn", "tn"))
    with np.errstate(invalid="ignore"):
        values = {
            "precision": tp / (tp + fp),
            "recall": tp / (tp + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "accuracy": (tp + tn) / (tp + tn + fp + fn),
        }
    return pd.DataFrame(values, index=counts.index)


def _up(tree: Tree, values: Mapping[str, float]) -> dict[str, float]:
    """The mean of each category's children, undefined properties left out; children first, "Overall" last."""
    result: dict[str, float] = {}

    def mean(children: Iterable[Any], prefix: str) -> float:
        found: dict[str, float] = {}
        if isinstance(children, Mapping):  # prop_counts.json: a property is a key
            children = [name if isinstance(below, int) else {name: below} for name, below in children.items()]
        for child in children:
            if isinstance(child, str):
                found[child] = values[prefix + child]
            else:
                for name, below in child.items():
                    found[name] = result[prefix + name] = mean(below, f"{prefix}{name}{SEPARATOR}")
        defined = [value for value in found.values() if not np.isnan(value)]
        return float(np.mean(defined)) if defined else EMPTY_CATEGORY

    overall = mean([tree], "")
    return {**result, OVERALL: overall}


def _combinations(gold: Any, said: Any, pairs: Sequence[tuple[int, int]]) -> dict[str, float]:
    if not pairs:
        return {}
    first, second = (list(side) for side in zip(*pairs, strict=True))
    wanted, given = gold[:, first].multiply(gold[:, second]), said[:, first].multiply(said[:, second])
    measures = _measures(_counts(wanted, given).sum().to_frame().T)
    return {name: float(measures[name].iloc[0]) for name in MEASURES}


def _rows(gold: Any, said: Any) -> pd.DataFrame:
    both, wanted, given = (np.asarray(x.sum(axis=1)) for x in (gold.multiply(said), gold, said))
    with np.errstate(invalid="ignore"):
        return pd.DataFrame({"omitted": (wanted - both) / wanted, "hallucinated": (given - both) / given})


def by_frequency(scores: PropertyScores, frequency: Mapping[str, int]) -> pd.DataFrame:
    """Omitted and hallucinated properties by how many training molecules have them (``frequency``, lower-case names).

    Columns: trained (the band), properties (that references or predictions name), named and said (mentions in
    references and in predictions), omitted and hallucinated (share of those that the other side lacks).
    """
    names = [path.split(SEPARATOR)[-1].lower() for path in scores.properties.index]
    counts = scores.properties[["tp", "fp", "fn"]].set_axis(names, axis=0)
    counts = counts[~counts.index.duplicated() & (counts.sum(axis=1) > 0)]
    named = [frequency.get(name, 0) for name in counts.index]
    band = pd.cut(named, [*BANDS.values(), np.inf], right=False, labels=list(BANDS))
    groups = counts.groupby(pd.Series(band, counts.index), observed=False)
    tp, fp, fn = (groups[name].sum() for name in ("tp", "fp", "fn"))
    columns = {"properties": groups.size(), "named": tp + fn, "omitted": fn / (tp + fn)}
    columns |= {"said": tp + fp, "hallucinated": fp / (tp + fp)}
    return pd.DataFrame(columns).rename_axis("trained").reset_index().astype({"trained": str})
