"""Figures of the data: how similar test molecules are to what was trained on, how skewed and how long the corpus is."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lmolt_utils.data.card import LENGTHS, Card
from lmolt_utils.data.overlap import SIMILAR
from lmolt_utils.figures.style import MUTED, TWO_COLUMNS, Drawn, add_note, colour_of, line_of, mark_empty, styled


@styled
def neighbour_similarity(similarities: pd.DataFrame) -> Drawn:
    """Similarity of each test molecule's nearest neighbour in each reference set.

    ``similarities``: ``id`` and one column per reference set (:class:`lmolt_utils.data.overlap.Overlap`).
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(TWO_COLUMNS, 2.6), sharex=True)
    for index, (name, column) in enumerate(similarities.set_index("id").items()):
        values = column.dropna().to_numpy(dtype=float)
        look = {"color": colour_of(index), "linestyle": line_of(index)}
        label = f"{name} (n = {len(values):,})" if len(values) else f"{name} (nothing to compare)"
        right.plot([], [], **look, label=label)
        if len(values):
            shares = np.full(len(values), 1 / len(values))
            left.hist(values, np.linspace(0, 1, 26), weights=shares, histtype="step", **look)
            right.ecdf(values, complementary=True, **look)
    left.set(ylabel="Share of test molecules", ylim=(0, None))
    right.set(ylabel="Share more similar than this", ylim=(0, 1.04))
    right.axvline(SIMILAR, color=MUTED, linewidth=0.6, zorder=0)
    for axes in (left, right):
        axes.set(xlabel="Similarity of the nearest neighbour", xlim=(0, 1.01))
    figure.legend(loc="outside upper center", ncols=2)
    add_note(figure, f"Tanimoto, Morgan fingerprints of radius 2, 2,048 bits. Vertical line: {SIMILAR}.")
    return figure, similarities


@styled
def card_figure(card: Card, note: str = "") -> Drawn:
    """Skew of the property sets, and lengths of captions and SMILES per split, in one figure of four panels.

    ``note`` is written below it: where the property sets come from.
    """
    figure, grid = plt.subplots(2, 2, figsize=(TWO_COLUMNS, 4.1))
    data = [_skew(grid[0][0], card)]
    splits = list(dict.fromkeys(card.lengths["split"]))
    for axes, quantity in zip(grid.flat[1:], LENGTHS, strict=True):
        values = card.lengths[quantity]
        # Half a unit before the shortest, so that every bin holds whole lengths.
        step = max(1, -(-int(values.max() - values.min() + 1) // 40))
        edges = np.arange(values.min() - 0.5, values.max() + step + 0.5, step)
        for index, split in enumerate(splits):
            mine = values[card.lengths["split"] == split]
            shares = np.histogram(mine, edges)[0] / len(mine)
            axes.stairs(shares, edges, color=colour_of(index), linestyle=line_of(index), label=split)
            bars = {"panel": quantity, "split": split, "left": edges[:-1], "right": edges[1:], "share": shares}
            data.append(pd.DataFrame(bars))
        axes.set(xlabel=quantity[0].upper() + quantity[1:], ylabel="Share of rows", ylim=(0, None))
    handles, names = grid[0][1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=max(1, len(names)))
    if note:
        add_note(figure, note)
    return figure, pd.concat(data, ignore_index=True)


def _skew(axes: plt.Axes, card: Card) -> pd.DataFrame:
    """Share of the rows that the k largest property sets cover, against k."""
    axes.set(xlabel="Property sets, largest first", ylabel="Share of rows covered")
    if card.sets.empty:
        mark_empty(axes, "no property sets")
        return pd.DataFrame({"panel": ["property sets"]})
    covered = card.sets.to_numpy().cumsum() / card.sets.sum()
    ranks = np.arange(1, len(covered) + 1)
    axes.step(ranks, covered, where="post", color="black")
    for rank in (1, 10):
        if rank <= len(covered):
            share = covered[rank - 1]
            axes.plot([rank], [share], "o", color="black")
            text = f"{'largest' if rank == 1 else 'ten largest'}: {share:.1%}"
            axes.annotate(text, (rank, share), xytext=(6, -3), textcoords="offset points", va="top")
    axes.set(xscale="log", ylim=(0, 1.04))
    return pd.DataFrame({"panel": "property sets", "rank": ranks, "share": covered})
