"""The papers' headline effects, looked for in the scores: what a run saw, whether or not it agrees."""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lmolt_utils.config.prompts import Task
from lmolt_utils.config.systems import System

UNDECIDED = 0.025  # of the draws on either side: a 95 % interval
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


def wanted(systems: Sequence[System]) -> list[tuple[str, Task, str]]:
    """Every (system, task, metric) that an effect rests on, with the copies for further seeds among ``systems``."""
    pairs = dict.fromkeys(pair for effect in EFFECTS for pair in effect.rests_on)
    names = [system.name for system in systems]
    return [(copy, _TASKS[metric], metric) for name, metric in pairs for copy in _seeds(name, names)]


def look(
    scores: pd.DataFrame,
    systems: Sequence[System],
    replicates: Mapping[tuple[str, str], np.ndarray] | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Each effect with the numbers it rests on, whether it is seen, in which share of the draws, over how many seeds.

    scores: of ``systems`` with their copies for further seeds (``<system>@seed<k>``). replicates: values by (system,
    metric) under the same draws of the test rows. Of a system with several seeds the mean counts; each draw moves it
    by what other test rows would do (the mean of its seeds' replicates) and, independently of other systems, by what
    other training seeds would do (Student's t times standard deviation over the root of the number of seeds). An
    effect is undecided where more than 2.5 % of the draws say otherwise; ``draws`` is the share in which it is seen,
    "–" where neither spread is known. Where a trained system has one seed its verdict knows the test rows only, and
    says so.
    """
    rng = np.random.default_rng(seed)
    names = [system.name for system in systems]
    trained = {system.name for system in systems if system.method != "none"}
    values = {
        (s, m): v for s, m, v in scores[["system", "metric", "value"]].itertuples(index=False) if not math.isnan(v)
    }
    found = {
        (name, metric): _Known.of(
            {copy: values[copy, metric] for copy in _seeds(name, names) if (copy, metric) in values},
            [replicates[copy, metric] for copy in _seeds(name, names) if replicates and (copy, metric) in replicates],
            draws,
            rng,
        )
        for name, metric in dict.fromkeys(pair for effect in EFFECTS for pair in effect.rests_on)
    }
    return pd.DataFrame([_line(effect, [found[pair] for pair in effect.rests_on], trained) for effect in EFFECTS])


def _seeds(name: str, names: Sequence[str]) -> list[str]:
    """``name`` and its copies for further seeds."""
    copy = re.compile(rf"{re.escape(name)}@seed\d+")
    return [name, *(other for other in names if copy.fullmatch(other))]


@dataclass(frozen=True, eq=False)
class _Known:
    """A system's number: its mean over ``seeds``, their standard deviation, its draws (None: no spread is known)."""

    mean: float
    spread: float
    seeds: int
    draws: np.ndarray | None

    @classmethod
    def of(
        cls, values: Mapping[str, float], replicates: Sequence[np.ndarray], draws: int, rng: np.random.Generator
    ) -> "_Known":
        k = len(values)
        if not k:
            return cls(math.nan, math.nan, 0, None)
        mean = float(np.mean(list(values.values())))
        spread = float(np.std(list(values.values()), ddof=1)) if k > 1 else math.nan
        if not replicates and k == 1:
            return cls(mean, spread, k, None)
        drawn = np.mean(replicates, axis=0) if replicates else np.full(draws, mean)
        if k > 1:
            drawn = drawn + rng.standard_t(k - 1, len(drawn)) * spread / math.sqrt(k)
        return cls(mean, spread, k, drawn)


def _line(effect: Effect, numbers: Sequence[_Known], trained: Collection[str]) -> dict[str, str]:
    names = [name for name, _ in effect.rests_on]
    missing = any(not number.seeds for number in numbers)
    share = math.nan
    if all(number.draws is not None for number in numbers):
        share = float(np.mean([effect.holds(*line) for line in zip(*(n.draws for n in numbers), strict=True)]))
    holds = not missing and effect.holds(*(number.mean for number in numbers))
    undecided = UNDECIDED < share < 1 - UNDECIDED
    seen = "not run" if missing else "undecided" if undecided else "yes" if holds else "no"
    seeds = {name: number.seeds for name, number in zip(names, numbers, strict=True) if name in trained}
    one = not missing and 1 in seeds.values()
    return {
        "effect": effect.statement,
        "source": effect.source,
        "here": ", ".join(f"{name} {_shown(number)}" for name, number in zip(names, numbers, strict=True)),
        "seen": f"{seen} (one seed)" if one else seen,
        "draws": "–" if math.isnan(share) else f"{share:.0%}",
        "seeds": ", ".join(f"{name} {count}" for name, count in seeds.items()) or "none trained",
    }


def _shown(number: _Known) -> str:
    if not number.seeds:
        return "not run"
    return f"{number.mean:.2f}" + ("" if math.isnan(number.spread) else f" ± {number.spread:.2f}")
