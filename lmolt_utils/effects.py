"""The papers' headline effects, looked for in the scores: what a run saw, whether or not it agrees."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lmolt_utils.prompts import Task

UNDECIDED = 0.025  # of the resamples on either side: a 95 % interval
CAPTION, MOLECULE = "BLEU-2", "MACCS"


@dataclass(frozen=True)
class Effect:
    """One statement, the numbers it rests on (system, metric) and the rule that decides it."""

    statement: str
    source: str
    rests_on: tuple[tuple[str, str], ...]
    holds: Callable[..., bool]


EFFECTS = (
    Effect(
        "DPO from cap2mol cannot caption (BLEU-2 below 0.05)",
        "L4M Table 2",
        (("dpo", CAPTION),),
        lambda dpo: dpo < 0.05,
    ),
    Effect(
        "KTO from cap2mol cannot caption (BLEU-2 below 0.05)",
        "L4M Table 2",
        (("kto", CAPTION),),
        lambda kto: kto < 0.05,
    ),
    Effect(
        "neither can the model that both start from (BLEU-2 below 0.05)",
        "control, not in the papers",
        (("init", CAPTION),),
        lambda init: init < 0.05,
    ),
    Effect(
        "CPO from cap2mol can caption (BLEU-2 at least 0.15 above DPO)",
        "L4M Table 2",
        (("cpo", CAPTION), ("dpo", CAPTION)),
        lambda cpo, dpo: cpo - dpo >= 0.15,
    ),
    Effect(
        "CPO beats the per-task model in captions (BLEU-2)",
        "L4M Table 2",
        (("cpo", CAPTION), ("meditron", CAPTION)),
        lambda cpo, meditron: cpo > meditron,
    ),
    Effect(
        "CPO beats the per-task model in molecules (MACCS)",
        "L4M Table 3",
        (("cpo", MOLECULE), ("meditron", MOLECULE)),
        lambda cpo, meditron: cpo > meditron,
    ),
    Effect(
        "SFT is below CPO in captions (BLEU-2)",
        "L4M Table 2",
        (("sft", CAPTION), ("cpo", CAPTION)),
        lambda sft, cpo: sft < cpo,
    ),
    Effect(
        "KTO ruins molecules (validity below 0.2)",
        "L4M Table 3",
        (("kto", "Validity"),),
        lambda kto: kto < 0.2,
    ),
    Effect(
        "TIES+DPO can caption (BLEU-2 at least 0.5 above DPO)",
        "L4M Table 4",
        (("ties+dpo", CAPTION), ("dpo", CAPTION)),
        lambda ties, dpo: ties - dpo >= 0.5,
    ),
    Effect(
        "... and so can the TIES merge without any training (within 0.05 of TIES+DPO)",
        "control, not in the papers",
        (("ties", CAPTION), ("ties+dpo", CAPTION)),
        lambda merge, dpo: abs(merge - dpo) <= 0.05,
    ),
    Effect(
        "SLERP+DPO at 1:18 cannot caption (BLEU-2 below 0.05)",
        "L4M Table 4",
        (("slerp+dpo", CAPTION),),
        lambda x: x < 0.05,
    ),
    Effect(
        "SLERP at 1:18 helps CPO in captions (BLEU-2)",
        "L4M Table 4",
        (("slerp+cpo", CAPTION), ("cpo", CAPTION)),
        lambda merged, cpo: merged > cpo,
    ),
    Effect(
        "... and costs it little in molecules (MACCS within 0.05)",
        "L4M Table 5",
        (("slerp+cpo", MOLECULE), ("cpo", MOLECULE)),
        lambda merged, cpo: cpo - merged <= 0.05,
    ),
    Effect(
        "soup is below SLERP under CPO at the same ratio, in captions (BLEU-2)",
        "L4M Fig. 8",
        (("soup+cpo", CAPTION), ("slerp+cpo", CAPTION)),
        lambda soup, slerp: soup < slerp,
    ),
    Effect(
        "more of mol2cap in the merge means better captions (19:1 above 1:18, BLEU-2)",
        "L4M Fig. 4",
        (("slerp@0.95+cpo", CAPTION), ("slerp+cpo", CAPTION)),
        lambda much, little: much > little,
    ),
    Effect(
        "... and worse molecules (19:1 below 1:18, MACCS)",
        "L4M Fig. 4",
        (("slerp@0.95+cpo", MOLECULE), ("slerp+cpo", MOLECULE)),
        lambda much, little: much < little,
    ),
    Effect(
        "CPO captions better than one caption for all molecules (BLEU-2)",
        "control, not in the papers",
        (("cpo", CAPTION), ("constant", CAPTION)),
        lambda cpo, constant: cpo > constant,
    ),
    Effect(
        "... and makes better molecules than one molecule for all captions (MACCS)",
        "control, not in the papers",
        (("cpo", MOLECULE), ("constant", MOLECULE)),
        lambda cpo, constant: cpo > constant,
    ),
    Effect(
        "the per-task model captions better than the nearest neighbour in the sample (BLEU-2)",
        "control, not in the papers",
        (("meditron", CAPTION), ("nearest-neighbour", CAPTION)),
        lambda meditron, nearest: meditron > nearest,
    ),
)


_TASKS: dict[str, Task] = {CAPTION: "mol2cap", MOLECULE: "cap2mol", "Validity": "cap2mol"}


def wanted() -> list[tuple[str, Task, str]]:
    """Every (system, task, metric) that an effect rests on."""
    pairs = dict.fromkeys(pair for effect in EFFECTS for pair in effect.rests_on)
    return [(system, _TASKS[metric], metric) for system, metric in pairs]


def look(scores: pd.DataFrame, replicates: Mapping[tuple[str, str], np.ndarray] | None = None) -> pd.DataFrame:
    """Each effect with the numbers it rests on, ``seen`` (yes, no, undecided, not run) and ``resamples``.

    replicates: values by (system, metric) under the same draws of the test rows. ``resamples`` is the share of them
    in which the effect is seen, "–" without: how far the answer hangs on these test rows. It is undecided where more
    than 2.5 % of them say otherwise. One training seed.
    """
    found = {(s, t, m): v for s, t, m, v in scores[["system", "task", "metric", "value"]].itertuples(index=False)}
    rows = []
    for effect in EFFECTS:
        values = [found.get((system, _TASKS[metric], metric)) for system, metric in effect.rests_on]
        numbers = ", ".join(
            f"{system} {'not run' if value is None else format(value, '.2f')}"
            for (system, _), value in zip(effect.rests_on, values, strict=True)
        )
        missing = any(value is None for value in values)
        share = math.nan if missing else _share(effect, replicates or {})
        undecided = UNDECIDED < share < 1 - UNDECIDED
        seen = "not run" if missing else "undecided" if undecided else "yes" if effect.holds(*values) else "no"
        rows.append(
            {
                "effect": effect.statement,
                "source": effect.source,
                "here": numbers,
                "seen": seen,
                "resamples": "–" if math.isnan(share) else f"{share:.0%}",
            }
        )
    return pd.DataFrame(rows)


def _share(effect: Effect, replicates: Mapping[tuple[str, str], np.ndarray]) -> float:
    """Share of the resamples in which an effect holds, NaN where there are none."""
    if not all(pair in replicates for pair in effect.rests_on):
        return math.nan
    columns = [replicates[pair] for pair in effect.rests_on]
    return float(np.mean([effect.holds(*line) for line in zip(*columns, strict=True)]))
