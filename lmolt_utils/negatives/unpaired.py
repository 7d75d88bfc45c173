"""KTO's view of preference pairs: single answers. Pandas is all it needs, on a GPU machine too."""

import random
from collections.abc import Sequence

import pandas as pd


def unpaired(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """KTO's view of the pairs (L4M Table 1), single answers: columns task, source, answer, label (true: chosen).

    TRL reads KTO's rows in order. In a batch of one class z_ref moves with the answers that are compared with it, and
    the loss stays near 0.5: so chosen and rejected answers are shuffled apart, each in its own order, and alternate.
    """
    sides = []
    for number, side in enumerate(("chosen", "rejected")):
        order = random.Random(f"kto:{seed}:{number}").sample(range(len(pairs)), len(pairs))
        rows = pairs.iloc[order]
        sides.append(rows.assign(answer=rows[side], label=side == "chosen", order=range(len(pairs))))
    alternating = pd.concat(sides).sort_values("order", kind="stable", ignore_index=True)
    return alternating[["task", "source", "answer", "label"]]


def alike(rows: pd.DataFrame, prompts: Sequence[int], answers: Sequence[int], step_rows: int) -> pd.DataFrame:
    """:func:`unpaired` rows sorted by length within each step of ``step_rows``, so that batches need little padding.

    ``prompts`` and ``answers`` are lengths in tokens. Steps keep their rows and the classes still alternate. Rows whose
    prompt is the longer part come first, longest first, then the others, longest last: answers of like length meet,
    which matters because z_ref pairs each with another row's prompt.
    """
    sizes = rows.assign(
        step=[index // step_rows for index in range(len(rows))],
        size=[own + answer if own < answer else -own - answer for own, answer in zip(prompts, answers, strict=True)],
    )
    ranked = sizes.sort_values(["step", "size"], kind="stable")
    place = ranked.groupby(["step", "label"]).cumcount()
    order = ranked.assign(place=place).sort_values(["step", "place", "label"], ascending=[True, True, False])
    return order[list(rows)].reset_index(drop=True)


def single_class_batches(labels: Sequence[bool], size: int) -> list[int]:
    """Numbers of the batches of ``size`` rows, in order, that hold one class only.

    A last batch of one row is such a batch; z_ref would pair that row's prompt with its own answer.
    """
    starts = range(0, len(labels), size)
    return [start // size for start in starts if len(set(labels[start : start + size])) == 1]
