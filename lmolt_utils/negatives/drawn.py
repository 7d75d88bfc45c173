"""Rejected answers without a translator: other references, edited captions, neighbours.

They keep what a translator's errors give away (its length, its alphabet, its few favourite answers) out of the
pairs. All come from the training split, so that no test molecule is ever rejected.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import pandas as pd
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from lmolt_utils.config.prompts import Task
from lmolt_utils.data.captioner import Compose
from lmolt_utils.data.molecules import parse
from lmolt_utils.embedded.captions import caption_for
from lmolt_utils.negatives.generated import SIDES

#: ``translator`` is the papers' way (:func:`lmolt_utils.negatives.generated.translate`); the others are drawn here.
Kind = Literal["translator", "shuffled", "random", "property_edited", "nearest"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_TRIES = 200
_NONE = ("", "")
#: What stands before a property tells its kind in L+M-24's sentences: "is a X", "is X", "impacts X".
_BEFORE = {
    **dict.fromkeys(("a", "an", "the"), "role"),
    "is": "quality",
    **dict.fromkeys(("impacts", "impacting", "on", "both", "affects", "influences"), "effect"),
}


def draw(
    kind: Kind,
    sampled: pd.DataFrame,
    corpus: pd.DataFrame,
    task: Task,
    seed: int,
    compose: Compose = caption_for,
) -> pd.DataFrame:
    """A rejected answer for each row of ``sampled``: columns id, rejected, origin.

    ``origin`` is the id of the row that an answer was taken from, or the edit (``fruity -> waxy``). Where there is
    none to be had, both are empty. Neither the row's own answer nor one of the same source is ever given.

    - ``shuffled``: the sample's references, permuted;
    - ``random``: references of the corpus;
    - ``property_edited``: mol2cap: the caption with one property replaced by another of its kind, or written anew by
      ``compose`` where it does not spell the property out; cap2mol: a molecule whose property set differs by the fewest
      properties, but differs;
    - ``nearest``: the reference of the most similar molecule (Tanimoto, Morgan radius 2) with another property set:
      with the same set it would be a right answer.

    Deterministic in its arguments; raises ``ValueError`` for a kind that is not drawn.
    """
    pool = corpus[corpus["split"] == "train"].reset_index(drop=True)
    makers: dict[str, Callable[[], list[tuple[str, str]]]] = {
        "shuffled": lambda: _shuffled(sampled, task, seed),
        "random": lambda: _random(sampled, pool, task, seed),
        "property_edited": lambda: (
            _edited_captions(sampled, pool, seed, compose)
            if task == "mol2cap"
            else _edited_molecules(sampled, pool, seed)
        ),
        "nearest": lambda: _nearest(sampled, pool, task),
    }
    if kind not in makers:
        raise ValueError(f"negatives of kind {kind!r} are not drawn; {', '.join(makers)} are")
    found = makers[kind]()
    return pd.DataFrame({"id": sampled["id"], "rejected": [f[0] for f in found], "origin": [f[1] for f in found]})


def same_properties(drawn: pd.DataFrame, sampled: pd.DataFrame, corpus: pd.DataFrame) -> int:
    """How many rejected answers come from a row with the same property set: right answers all the same."""
    sets = dict(zip(corpus["id"], _sets(corpus), strict=True))
    own = _sets(sampled)
    return sum(bool(mine) and sets.get(origin) == mine for mine, origin in zip(own, drawn["origin"], strict=True))


def _sets(frame: pd.DataFrame) -> list[frozenset[str]]:
    """Each row's property set; empty where the data has none."""
    return [frozenset(filter(None, text.split("|"))) for text in frame["properties"]]


def _shuffled(sampled: pd.DataFrame, task: Task, seed: int) -> list[tuple[str, str]]:
    source, answer = SIDES[task]
    sources, answers, ids = (list(sampled[name]) for name in (source, answer, "id"))
    rng = random.Random(f"shuffled:{seed}:{task}")
    order = rng.sample(range(len(ids)), len(ids))

    def clash(row: int, other: int) -> bool:
        return answers[row] == answers[other] or sources[row] == sources[other]

    for row in range(len(ids)):
        for _ in range(_TRIES):
            if not clash(row, order[row]):
                break
            other = rng.randrange(len(ids))
            if not clash(row, order[other]) and not clash(other, order[row]):
                order[row], order[other] = order[other], order[row]
    return [_NONE if clash(row, other) else (answers[other], ids[other]) for row, other in enumerate(order)]


def _random(sampled: pd.DataFrame, pool: pd.DataFrame, task: Task, seed: int) -> list[tuple[str, str]]:
    source, answer = SIDES[task]
    sources, answers, ids = (list(pool[name]) for name in (source, answer, "id"))
    found = []
    for name, own_source, own_answer in zip(sampled["id"], sampled[source], sampled[answer], strict=True):
        rng = random.Random(f"random:{seed}:{task}:{name}")
        for _ in range(_TRIES if ids else 0):
            row = rng.randrange(len(ids))
            if answers[row] != own_answer and sources[row] != own_source:
                found.append((answers[row], ids[row]))
                break
        else:
            found.append(_NONE)
    return found


def property_kinds(frame: pd.DataFrame) -> dict[str, str]:
    """Each property's kind, ``role``, ``effect`` or ``quality``, by the word that most often introduces it."""
    votes: dict[str, Counter[str]] = {}
    for caption, names in zip(frame["caption"].str.lower(), _sets(frame), strict=True):
        for name in names:
            seen = votes.setdefault(name, Counter())
            at = caption.find(f" {name.lower()}")
            if at > 0:
                kind = _BEFORE.get(caption[:at].rsplit(None, 1)[-1])
                if kind:
                    seen[kind] += 1
    return {name: max(sorted(seen), key=lambda kind: seen[kind]) if seen else "role" for name, seen in votes.items()}


def _edited_captions(sampled: pd.DataFrame, pool: pd.DataFrame, seed: int, compose: Compose) -> list[tuple[str, str]]:
    """Another property comes in as often as captions state it, so that rare words give nothing away."""
    kinds = property_kinds(pd.concat([pool, sampled], ignore_index=True))
    counts = Counter(name for names in _sets(pool) for name in names)
    choices: dict[str, tuple[list[str], list[int]]] = {}
    for kind in set(kinds.values()):
        names = sorted(name for name in counts if kinds[name] == kind)
        choices[kind] = names, list(np.cumsum([counts[name] for name in names]))
    found = []
    for name, caption, own in zip(sampled["id"], sampled["caption"], _sets(sampled), strict=True):
        rng = random.Random(f"property_edited:{seed}:{name}")
        found.append(_edited(caption, own, kinds, choices, rng, compose))
    return found


def _edited(
    caption: str,
    own: frozenset[str],
    kinds: dict[str, str],
    choices: dict[str, tuple[list[str], list[int]]],
    rng: random.Random,
    compose: Compose,
) -> tuple[str, str]:
    old_names = sorted(own)
    rng.shuffle(old_names)
    stated = _stated(caption, own)
    # A property that the caption spells out can be replaced in place; failing that, the caption is written anew.
    for old in sorted(old_names, key=lambda name: name.lower() not in stated):
        names, weights = choices[kinds[old]]
        others = {name.lower() for name in own}
        drawn = (rng.choices(names, cum_weights=weights)[0] for _ in range(_TRIES if names else 0))
        new = next((name for name in drawn if name.lower() not in others), None)
        if new is None:
            continue
        if old.lower() not in stated:
            text = compose("", sorted(own - {old} | {new}), rng.getrandbits(32), 0)
        else:
            text = caption
            for start, end in reversed(stated[old.lower()]):
                text = text[:start] + (new if text[start:end] == old else new.lower()) + text[end:]
        if text != caption:
            return text, f"{old} -> {new}"
    return _NONE


def _stated(caption: str, names: frozenset[str]) -> dict[str, list[tuple[int, int]]]:
    """Where ``caption`` spells out each of ``names`` (lower case), the longest name first."""
    found: dict[str, list[tuple[int, int]]] = {}
    for match in _any_of(names).finditer(caption) if names else ():
        found.setdefault(match.group().lower(), []).append(match.span())
    return found


@lru_cache(maxsize=8192)  # L+M-24 has about 5,000 property sets
def _any_of(names: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(map(re.escape, names), key=lambda name: (-len(name), name))
    return re.compile(rf"(?<![\w-])(?:{'|'.join(longest_first)})(?![\w-])", re.IGNORECASE)


def _edited_molecules(sampled: pd.DataFrame, pool: pd.DataFrame, seed: int) -> list[tuple[str, str]]:
    rows_of: dict[frozenset[str], list[int]] = {}
    for row, names in enumerate(_sets(pool)):
        if names:
            rows_of.setdefault(names, []).append(row)
    sets = list(rows_of)
    columns = {name: column for column, name in enumerate(sorted({name for names in sets for name in names}))}
    known, sizes = _indicators(sets, columns), np.array([len(names) for names in sets])
    nearest: dict[frozenset[str], list[int]] = {}
    wanted = [names for names in dict.fromkeys(_sets(sampled)) if names and sets]
    for start in range(0, len(wanted), 256):
        part = wanted[start : start + 256]
        shared = _indicators(part, columns) @ known.T
        apart = np.array([[len(names)] for names in part]) + sizes - 2 * shared
        apart[apart == 0] = np.inf
        for names, row in zip(part, apart, strict=True):
            closest = np.flatnonzero(row == row.min()) if np.isfinite(row.min()) else ()
            nearest[names] = [position for at in closest for position in rows_of[sets[at]]]
    molecules, captions, ids = (list(pool[name]) for name in ("molecule", "caption", "id"))
    found = []
    for name, own, molecule, caption in zip(
        sampled["id"], _sets(sampled), sampled["molecule"], sampled["caption"], strict=True
    ):
        rng = random.Random(f"property_edited:{seed}:{name}")
        rows = nearest.get(own, [])
        drawn = (rows[rng.randrange(len(rows))] for _ in range(_TRIES if rows else 0))
        pick = next((row for row in drawn if molecules[row] != molecule and captions[row] != caption), None)
        found.append(_NONE if pick is None else (molecules[pick], ids[pick]))
    return found


def _indicators(sets: Sequence[frozenset[str]], columns: dict[str, int]) -> np.ndarray:
    """One row per set, one column per property: 1 where the set has it."""
    table = np.zeros((len(sets), len(columns)), dtype=np.float32)
    for row, names in enumerate(sets):
        table[row, [columns[name] for name in names if name in columns]] = 1
    return table


def _nearest(sampled: pd.DataFrame, pool: pd.DataFrame, task: Task) -> list[tuple[str, str]]:
    answer = SIDES[task][1]
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    rows, prints, spellings = [], [], []
    for row, text in enumerate(pool["molecule"]):
        mol = parse(text)
        if mol is not None:
            rows.append(row)
            prints.append(morgan.GetFingerprint(mol))
            spellings.append(Chem.MolToSmiles(mol))
    canonical = np.array(spellings, dtype=object)
    pool_sets = _sets(pool)
    codes = {names: code for code, names in enumerate(dict.fromkeys(pool_sets))}
    set_of = np.array([codes[pool_sets[row]] for row in rows])
    answers = np.array([pool[answer].iloc[row] for row in rows], dtype=object)
    found = []
    for smiles, own_answer, own in zip(sampled["molecule"], sampled[answer], _sets(sampled), strict=True):
        mol = parse(smiles)
        if mol is None or not rows:
            found.append(_NONE)
            continue
        likeness = np.array(DataStructs.BulkTanimotoSimilarity(morgan.GetFingerprint(mol), prints))
        likeness[(canonical == Chem.MolToSmiles(mol)) | (answers == own_answer)] = -1
        if own:
            likeness[set_of == codes.get(own, -1)] = -1
        at = int(likeness.argmax())
        found.append(_NONE if likeness[at] < 0 else (answers[at], pool["id"].iloc[rows[at]]))
    return found
