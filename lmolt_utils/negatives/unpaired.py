"""KTO's view of the pairs: single answers, each labelled as chosen or not (L4M Table 1)."""

import random
from collections.abc import Sequence

import pandas as pd


def unpaired(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """KTO's rows: task, source, answer, label (true: chosen).

    TRL walks through KTO's rows in order, and a batch of one class has no gradient (its loss stays at 0.5): chosen and
    rejected answers are shuffled apart, each with its own order, and alternate.
    """
    chosen, rejected = (
        pairs.iloc[random.Random(f"kto:{seed}:{label}").sample(range(len(pairs)), len(pairs))] for label in (0, 1)
    )
    sides = [
        part[["task", "source"]].assign(answer=part[name], label=name == "chosen").assign(order=range(len(part)))
        for part, name in ((chosen, "chosen"), (rejected, "rejected"))
    ]
    rows = pd.concat(sides, ignore_index=True).sort_values("order", kind="stable")
    return rows[["task", "source", "answer", "label"]].reset_index(drop=True)


def alike(rows: pd.DataFrame, prompts: Sequence[int], answers: Sequence[int], step_rows: int) -> pd.DataFrame:
    """:func:`unpaired` rows by the tokens of their prompts and answers, within each class of a step's rows.

    A step keeps its rows, and chosen and rejected answers still alternate, but what meets in a micro-batch is of like
    length: the sequences, and also the answers by themselves, which z_ref pairs with another row's prompt. So rows with
    the longer prompt (molecules to find) come first, longest first, then those with the longer answer, longest last.
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
